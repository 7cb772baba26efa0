"""A node's right to host an instance, as the instance and its manager see it.

Without a cluster, there is none of this: the only server hosts all instances. In a cluster, an
instance is hosted by one node at a time (`actors/cluster/hosting.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from reileta.rules.cluster.placement import Tenure


class Holding:
    """The right to host one instance, for as long as it lasts.

    Attributes:
        tenure: names it in messages and writes.
        lost: whether it has ended for good.
        moving: whether the instance is being handed over, and so says nothing.
    """

    __slots__ = ("_valid", "lost", "moving", "tenure")

    def __init__(self, tenure: Tenure, valid: Callable[[], bool]) -> None:
        """`valid`: whether the node may send, write and answer now."""
        self.tenure = tenure
        self.lost = self.moving = False
        self._valid = valid

    def valid(self) -> bool:
        """Whether the instance may send, write and answer now."""
        return not (self.lost or self.moving) and self._valid()


@dataclass(frozen=True, slots=True)
class Here:
    """This node hosts the instance."""

    holding: Holding


@dataclass(frozen=True, slots=True)
class There:
    """Another node hosts the instance, in that epoch."""

    node: str
    epoch: int


Where: TypeAlias = Here | There


class Hosts(Protocol):
    """Which node hosts an instance (`actors.cluster.hosting.Hosting`)."""

    async def place(self, instance_id: str) -> Where:
        """Finds the host, or makes one.

        Raises:
            InstanceNotFound: it was deleted.
            Overloaded: no node can host it now, or its host does not answer.
            DatabaseUnavailable: its place can't be read now.
        """
        ...

    def holding(self, instance_id: str) -> Holding | None:
        """This node's right to host the instance, if it has one."""
        ...

    def held(self) -> Iterable[str]:
        """The instances that this node hosts."""
        ...

    def gave_up(self, instance_id: str) -> None:
        """The instance's actor has ended: another node may host it."""
        ...

    def fenced(self, holding: Holding) -> None:
        """A write has found that the tenure has ended."""
        ...
