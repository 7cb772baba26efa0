"""Waiting lines of resources: each is at one node, and the others ask it.

A line is kept at the resource's *home*: of the nodes that are there, the one with the highest hash
of its id with the resource's number (rendezvous hashing). So all nodes agree about it without
asking, and only a few lines move when a node comes or goes. A node calls the home when a session
joins or leaves a line, and before a session acquires a resource: somebody in the line may have the
offer. The home tells sessions at other nodes their places with notes.

When the home changes, each node has its sessions wait again at the new one, in their order; the old
home forgets its line without a word. The order between sessions of two nodes can change then. The
lock on the lease in PostgreSQL is what guards a resource: a line decides only who comes next. So if
a home does not answer, an acquisition goes on without it, and the first one gets the resource.

Bounds: those of `reileta/rules/resource/waiting_line.py`, at the home and at the node that asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Final

import msgspec
import structlog
import trio

from actors.cluster.facts import ClusterMember
from actors.resource.manager import ResourceManager
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.errors import Overloaded, ReiletaError
from reileta.observability import log_events
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.waiting_line import Place

QUEUE: Final = "resource-queue"
UNQUEUE: Final = "resource-unqueue"
TURN: Final = "resource-turn"
CALL_S: Final = 2.0
AGAIN_S: Final = 1.0
"""Seconds until sessions whose line has moved are tried again."""

_log = structlog.get_logger()


class LineCall(msgspec.Struct, array_like=True):
    """A session and a resource."""

    type: str
    number: int
    session: str
    user: str
    admin: bool
    autopilot: bool
    present: bool = False

    @classmethod
    def of(cls, name: ResourceKey, who: Claimant, *, present: bool = False) -> LineCall:
        return cls(name.type, name.number, who.session, who.user, who.admin, who.autopilot, present)

    @property
    def name(self) -> ResourceKey:
        return ResourceKey(self.type, self.number)

    @property
    def who(self) -> Claimant:
        return Claimant(self.session, self.user, self.admin, self.autopilot)


class PlaceAnswer(msgspec.Struct, array_like=True):
    """A session's place in a line."""

    position: int
    offered_until: int | None


class Done(msgspec.Struct, array_like=True):
    """It is done."""


class Lines:
    """The lines as one node sees them."""

    def __init__(self, member: ClusterMember, calls: Calls, resources: ResourceManager) -> None:
        self._member = member
        self._calls = calls
        self._resources = resources
        self._asked: dict[tuple[int, str], tuple[LineCall, str]] = {}
        """The sessions that wait because of a request here, in their order, each with the home that
        was asked."""
        self._moved = trio.Event()
        calls.serve(QUEUE, LineCall, self._queue)
        calls.serve(UNQUEUE, LineCall, self._unqueue)
        calls.serve(TURN, LineCall, self._turn)

    def __len__(self) -> int:
        """How many sessions wait because of a request here."""
        return len(self._asked)

    def home(self, number: int) -> str:
        """The node that keeps the resource's line."""
        return self.home_among(self._member.nodes, number)

    @staticmethod
    def home_among(nodes: Iterable[str], number: int) -> str:
        """Of these nodes, the one that keeps the resource's line."""
        return max(nodes, key=lambda node: _weight(node, number))

    # Requests of this node ---------------------------------------------------------------------

    async def queue(self, name: ResourceKey, who: Claimant) -> Place:
        """As `ResourceManager.queue_here`, at the home. Raises Overloaded if it does not answer."""
        home = self.home(name.number)
        call = LineCall.of(name, who)
        place = await self._queue_at(home, call)
        self._asked[name.number, who.session] = call, home
        return place

    async def _queue_at(self, home: str, call: LineCall) -> Place:
        if home == self._member.node:
            return await self._resources.queue_here(call.name, call.who)
        try:
            answer = await self._calls.call(home, QUEUE, call, PlaceAnswer, CALL_S)
        except NodeUnreachable as error:
            raise Overloaded from error
        return Place(answer.position, answer.offered_until)

    async def unqueue(self, name: ResourceKey, who: Claimant) -> None:
        """As `ResourceManager.unqueue_here`, at the home."""
        self._asked.pop((name.number, who.session), None)
        home = self.home(name.number)
        if home == self._member.node:
            await self._resources.unqueue_here(name, who)
            return
        try:
            await self._calls.call(home, UNQUEUE, LineCall.of(name, who), Done, CALL_S)
        except NodeUnreachable as error:
            raise Overloaded from error

    async def ensure_turn(self, name: ResourceKey, who: Claimant) -> None:
        """Raises what an acquisition gets if another session has been offered the resource."""
        home = self.home(name.number)
        if home == self._member.node:
            return  # the resource's actor looks itself
        # Without an answer, the lease in the database is all that decides.
        with suppress(NodeUnreachable):
            await self._calls.call(home, TURN, LineCall.of(name, who), Done, CALL_S)

    def left(self, number: int, session: str) -> None:
        """The session no longer waits."""
        self._asked.pop((number, session), None)

    def session_ended(self, session: str) -> None:
        """The session has ended; its home knows it, too."""
        for key in [key for key in self._asked if key[1] == session]:
            del self._asked[key]

    # Requests of other nodes -------------------------------------------------------------------

    async def _queue(self, call: LineCall, _: str) -> PlaceAnswer:
        place = await self._resources.queue_here(call.name, call.who)
        return PlaceAnswer(place.position, place.offered_until)

    async def _unqueue(self, call: LineCall, _: str) -> Done:
        await self._resources.unqueue_here(call.name, call.who)
        return Done()

    async def _turn(self, call: LineCall, _: str) -> Done:
        await self._resources.ensure_turn_here(call.name, call.who)
        return Done()

    # Nodes come and go -------------------------------------------------------------------------

    def nodes_changed(self) -> None:
        """Another node came or went, or this one has another id."""
        self._moved.set()

    async def run(self) -> None:
        """Moves lines until cancelled."""
        while True:
            await self._moved.wait()
            self._moved = trio.Event()
            self._resources.forget_lines(
                [
                    number
                    for number in self._resources.lines_here()
                    if self.home(number) != self._member.node
                ]
            )
            if not await self._wait_again():
                with trio.move_on_after(AGAIN_S):
                    await self._moved.wait()
                self._moved.set()

    async def _wait_again(self) -> bool:
        """Has sessions wait at their new homes; whether all homes answered."""
        complete = True
        for key, (call, before) in list(self._asked.items()):
            home = self.home(call.number)
            if home == before or key not in self._asked:
                continue
            try:
                await self._queue_at(home, call)
            except Overloaded:
                complete = False
            except ReiletaError as error:  # it may not wait any more
                self.left(*key)
                _log.debug(log_events.LINE_LEFT, session=call.session, error=error.code)
            else:
                if key in self._asked:
                    self._asked[key] = call, home
        return complete


def _weight(node: str, number: int) -> bytes:
    return blake2b(f"{node} {number}".encode(), digest_size=8).digest()
