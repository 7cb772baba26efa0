"""The choice of the node that hosts an instance.

PostgreSQL holds each instance's place: its host, if it has one, and its epoch, which grows by one
with each change of the host. A host is chosen only for an instance without one. A host that does
not answer is asked again: another one is chosen only once the place says that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

STAY_LOAD: Final = 0.6
"""Below this load, a node hosts what its own players ask for."""
LAG_LIMIT_MS: Final = 50
"""A node whose event loop is later than this gets no new instances, unless all are."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance lives. `epoch`: 0 before its first host. `linked`: if it lives on an
    instance node, the process that has the node's link, as far as the database knows."""

    instance: str
    node: str | None
    epoch: int
    linked: str | None = None


@dataclass(frozen=True, slots=True)
class Tenure:
    """A node's right to host an instance. It ends when the place has another epoch: then the node's
    messages and writes, which name it, have no effect."""

    instance: str
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node, as placement sees it.

    Attributes:
        hosts: whether it takes new instances: it has the role, is up and is not draining.
        instances, capacity: how many instances it hosts, and how many it may host.
        load: the part of its capacity for work that is in use, from 0.
        lag_ms: how late its event loop is.
        up: whether it is not draining.
    """

    node: str
    hosts: bool
    instances: int
    capacity: int
    load: float
    lag_ms: int
    up: bool = True

    @property
    def has_room(self) -> bool:
        return self.hosts and self.instances < self.capacity

    @property
    def takes_more(self) -> bool:
        return self.has_room and self.lag_ms < LAG_LIMIT_MS


def host_of(
    place: Place,
    candidates: Collection[Candidate],
    asker: str | None,
    below: Callable[[int], int],
    silent: Collection[str] = (),
) -> str | None:
    """The node to ask for the instance; None if no node can host it.

    An instance that lives on an instance node is hosted by the process that has the node's link,
    whatever its load and its roles. Without a link, any node hosts it, and waits for the link.

    Args:
        asker: the node whose player wants to enter; it is preferred while its load is low.
        below: a random number from 0 to below its argument.
        silent: nodes that were asked and did not answer. They are chosen only if there is no other
            one; a node that the place names is asked in any case.
    """
    if place.node is not None:
        return place.node
    if place.linked is not None and place.linked not in silent:
        for one in candidates:
            if one.node == place.linked and one.up:
                return one.node
    roomy = sorted((one for one in candidates if one.has_room), key=lambda one: one.node)
    able = [one for one in roomy if one.takes_more] or roomy
    able = [one for one in able if one.node not in silent] or able
    own = next((one for one in able if one.node == asker), None)
    if own is not None and own.load < STAY_LOAD:
        return own.node
    return _better_of_two(able, below)


def _better_of_two(able: Sequence[Candidate], below: Callable[[int], int]) -> str | None:
    """The less loaded of two random nodes. The least loaded of all would get everything that is
    placed before its next report."""
    if not able:
        return None
    first = below(len(able))
    second = below(len(able) - 1) if len(able) > 1 else 0
    if second >= first:
        second = min(second + 1, len(able) - 1)
    return min(able[first], able[second], key=lambda one: (one.load, one.instances)).node
