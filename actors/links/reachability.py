"""Where clients can reach linked nodes themselves: proofs of addresses, again and again.

A name can point elsewhere later, and another server can answer there. So a proof counts for a
while: a node proves again that it is there every `AGAIN_S`, and sooner if clients seem not to
reach it. When that fails twice in a row, its address is withdrawn: its players get data over the
server, until it has proved that it is there.

Bounds: `PROVING` proofs at a time; those that are to confirm an address go first, so nodes that
answer nowhere can't keep others from losing theirs. Clients cause one proof of a node every
`DOUBT_S`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Final

import trio

from actors.links.direct_proofs import Proofs
from reileta.records import DirectAddress

AGAIN_S: Final = 300.0
"""Longest time until a node that has proved its address must prove it again."""
CONFIRM_S: Final = 5.0
"""Seconds until the second look, if a node does not prove that it is there."""
RETRY_S: Final = 10.0
"""Seconds until a node that has not proved its address is looked at again; doubled each time, up
to `AGAIN_S`."""
DOUBT_S: Final = 10.0
"""Seconds between two proofs of a node that clients cause."""
PROVING: Final = 32
"""Nodes that are looked at at the same time."""
JITTER: Final = (0.8, 1.0)
"""Waits are multiplied by a random number between these, so that many don't end at once."""
_DOUBLINGS: Final = 16

_random: Final = SystemRandom()


@dataclass(eq=False, slots=True)
class _Node:
    """A linked node that says where clients can reach it. `proved`: None: it is not known yet."""

    id: str
    direct: DirectAddress
    token_hash: bytes
    proved: bool | None = None
    failures: int = 0
    """In a row."""
    looking: bool = False
    looked_at: float = -math.inf
    due_at: float = field(default_factory=trio.current_time)


class Reachability:
    """The addresses of the nodes that are linked to this process. `run` must run beside its use."""

    def __init__(
        self,
        proofs: Proofs,
        reach: Callable[[str, DirectAddress | None], None],
        *,
        jitter: Callable[[], float] = lambda: _random.uniform(*JITTER),
    ) -> None:
        """`reach` is called with a node and where clients can reach it from now on; None: they
        can't, and those who are connected there are to come back."""
        self._proofs = proofs
        self._reach = reach
        self._jitter = jitter
        self._nodes: dict[str, _Node] = {}
        self._proving = 0
        self._stirred = trio.Event()

    def __len__(self) -> int:
        return len(self._nodes)

    def address(self, node_id: str) -> DirectAddress | None:
        """Where clients can reach the node, if it has proved that it is there."""
        node = self._nodes.get(node_id)
        return node.direct if node is not None and node.proved else None

    def follow(self, node_id: str, direct: DirectAddress | None, token_hash: bytes) -> None:
        """The node is linked, and says that clients can reach it there; None: nowhere."""
        known = self._nodes.get(node_id)
        if known is not None and (known.direct, known.token_hash) == (direct, token_hash):
            return
        if known is not None:
            del self._nodes[node_id]
        if direct is not None:
            self._nodes[node_id] = _Node(node_id, direct, token_hash)
            self._stirred.set()
        if known is not None and known.proved is not False:
            self._reach(node_id, None)

    def forget(self, node_id: str) -> None:
        """The node is not linked any more."""
        self._nodes.pop(node_id, None)

    def doubt(self, node_id: str) -> None:
        """A client seems not to reach the node: it is looked at soon."""
        node = self._nodes.get(node_id)
        if node is not None and node.proved:
            node.due_at = min(node.due_at, node.looked_at + DOUBT_S)
            self._stirred.set()

    async def run(self) -> None:
        """Looks at nodes when their time comes, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._stirred = trio.Event()
                with trio.move_on_at(self._start_due(nursery)):
                    await self._stirred.wait()

    def _start_due(self, nursery: trio.Nursery) -> float:
        """Begins the looks whose time has come; returns when the next one's comes."""
        now = trio.current_time()
        waiting = [node for node in self._nodes.values() if not node.looking]
        due = [node for node in waiting if node.due_at <= now]
        due.sort(key=lambda node: (not node.proved, node.due_at))
        for node in due[: PROVING - self._proving]:
            node.looking = True
            self._proving += 1
            nursery.start_soon(self._look, node)
        if self._proving == PROVING:
            return math.inf  # the end of a look stirs
        return min((node.due_at for node in waiting if not node.looking), default=math.inf)

    async def _look(self, node: _Node) -> None:
        try:
            there = await self._proofs.holds(node.id, node.direct, node.token_hash)
        finally:
            node.looking = False
            self._proving -= 1
            self._stirred.set()
        if self._nodes.get(node.id) is node:
            self._note(node, there)

    def _note(self, node: _Node, there: bool) -> None:
        now = node.looked_at = trio.current_time()
        node.failures = 0 if there else node.failures + 1
        if node.proved is not False and node.failures == 1:
            node.due_at = now + CONFIRM_S * self._jitter()
            return
        if node.proved is not there:
            node.proved, node.failures = there, 0 if there else 1
            self._reach(node.id, node.direct if there else None)
        wait_s = AGAIN_S
        if not there:
            wait_s = min(RETRY_S * 2 ** min(node.failures - 1, _DOUBLINGS), AGAIN_S)
        node.due_at = now + wait_s * self._jitter()
