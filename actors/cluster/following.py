"""Moves instances after the links of the instance nodes on which they live.

A process hosts the instances of the nodes that are linked to it. When a node comes back at another
process, the instances that run here are handed over to that one, as those of a drained node are.
Until then, they are paused. What fails is tried again, for as long as the other process has the
link.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, Protocol

import trio

AGAIN_S: Final = 0.25
"""Seconds until a hand-over that failed is tried again; doubled each time, up to `AGAIN_MAX_S`."""
AGAIN_MAX_S: Final = 10.0
NODES: Final = 4096
"""Nodes whose instances move at the same time; others are found by the next look at their links."""


class Member(Protocol):
    """This process's part in the cluster."""

    @property
    def nodes(self) -> Container[str]:
        """The processes that are there."""
        ...


class Handover(Protocol):
    """Hands instances over (`actors.cluster.handover.Handover`)."""

    async def give(self, instance_id: str, target: str) -> bool:
        """Hands the instance over to that process; whether it is not here any more."""
        ...


class Links(Protocol):
    """The links to this process (`actors.links.host_links.HostLinks`)."""

    def ports(self, node_id: str) -> Iterable[str]:
        """The instances that run here and live on the node."""
        ...

    def has(self, node_id: str) -> bool:
        """Whether the node is linked to this process."""
        ...

    def look_for_links(self) -> None:
        """Looks soon where the links of nodes are that have instances here, and no link."""
        ...


class Following:
    """A `MemberListener`. `run` must run beside its use."""

    def __init__(self, member: Member, handover: Handover, links: Links) -> None:
        self._member = member
        self._handover = handover
        self._links = links
        self._targets: dict[str, str] = {}
        """By node, the process that has its link. A task moves the instances of each."""
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._targets)

    def moved(self, node_id: str, process: str) -> None:
        """The node's link is at that process."""
        if node_id in self._targets:
            self._targets[node_id] = process
        elif len(self._targets) < NODES and self._nursery is not None:
            self._targets[node_id] = process
            self._nursery.start_soon(self._follow, node_id)

    async def run(self) -> None:
        """Hands over what is to move, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._targets.clear()

    async def _follow(self, node_id: str) -> None:
        pause_s = AGAIN_S
        while node_id in self._targets:
            process = self._targets[node_id]
            async with trio.open_nursery() as nursery:
                if process in self._member.nodes:
                    for instance_id in tuple(self._links.ports(node_id)):
                        nursery.start_soon(self._handover.give, instance_id, process)
            if self._links.has(node_id) or not tuple(self._links.ports(node_id)):
                self._targets.pop(node_id, None)
            else:
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, AGAIN_MAX_S)

    # As a listener of the member ---------------------------------------------------------------

    def fell(self, was: str) -> None:
        """Nothing runs here any more."""
        self._targets.clear()

    def node_gone(self, node: str) -> None:
        """A link to that process has ended."""
        for node_id, process in list(self._targets.items()):
            if process == node:
                del self._targets[node_id]

    def node_seen(self, node: str) -> None:
        """The next attempt finds it."""

    def reconnected(self) -> None:
        """News of a link may be lost."""
        self._links.look_for_links()
