"""Exchanges facts with the other nodes, over the bus (`reileta/rules/cluster/facts.py`).

What is told here becomes a delta at most every `TOLD_EVERY_S`; a heartbeat goes out once a second.
A node that finds a hole, or has been cut off, asks the node concerned for its whole part. Nothing
waits for an answer: until it is there, the part counts as it was last known.

Bounds: the facts are as many as the users, sessions, instances and candidates of the node; one
request for a part is under way for each node; the bus bounds what waits to be sent, and what it
refuses is found by the next heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

import msgspec
import trio

from actors.elsewhere import lingers
from reileta.cluster.bus import Bus, BusError, BusMessage, Gap
from reileta.cluster.calls import pack, unpacked
from reileta.rules.cluster.facts import Beat, Changes, Delta, FactsMap, OwnFacts, Whole

TOLD_EVERY_S: Final = 0.05
BEAT_S: Final = 1.0
PULL_S: Final = 2.0
"""Seconds for the answer to a request for a part."""
PIECE_BYTES: Final = 512 * 1024
"""The size of a message; less if the bus takes less."""
RESERVE_BYTES: Final = 1024
"""What the form of a message takes at most, besides its facts."""
SMALLEST_BYTES: Final = 1024

FACTS: Final = "facts"
"""The subject of deltas and heartbeats; with a node's id, that of requests for its part."""

Learned: TypeAlias = Callable[[Changes], None]
"""Takes what changed at other nodes."""

_messages: msgspec.msgpack.Decoder[Delta | Beat] = msgspec.msgpack.Decoder(Delta | Beat)
_wholes: Final = msgspec.msgpack.Decoder(Whole)


class ClusterMember(Protocol):
    """This process's part in the cluster (`reileta.cluster.member.Member`)."""

    @property
    def node(self) -> str: ...

    @property
    def bus(self) -> Bus: ...

    @property
    def nodes(self) -> Mapping[str, object]: ...

    def subject(self, *parts: str) -> str: ...


class FactsExchange:
    """The facts of this node and those of the others. `learned` is told what changes at others."""

    def __init__(self, member: ClusterMember, learned: Learned) -> None:
        self._member = member
        self._learned = learned
        self._own = OwnFacts(member.node)
        self._known = FactsMap(lingers)
        self._due = trio.Event()
        self._fallen = trio.Event()
        self._pulling: set[str] = set()
        self.pulls = 0
        """How often a part was asked for."""

    @property
    def known(self) -> FactsMap:
        """The facts of other nodes; only to be read."""
        return self._known

    def tell(self, key: str, value: bytes | None) -> None:
        """Sets or (None) removes a fact of this node."""
        if self._own.put(key, value):
            self._due.set()

    # MemberListener

    def fell(self, was: str) -> None:
        """This process has fallen. Its facts stay the same under its new id as a node."""
        self._own = OwnFacts(self._member.node, self._own.facts)
        self._due.set()
        self._fallen.set()
        self._fallen = trio.Event()
        self._known.gone(was, trio.current_time())  # what it sent may still come back

    def node_gone(self, node: str) -> None:
        self._learn(self._known.gone(node, trio.current_time()))

    def node_seen(self, node: str) -> None:
        if node != self._member.node:
            self._known.see(node)

    def reconnected(self) -> None:
        self._known.doubt()

    # Loops

    async def run(self) -> None:
        """Exchanges facts until cancelled."""
        bus, subject = self._member.bus, self._member.subject
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer)
            async with bus.subscribe(subject(FACTS)) as subscription:
                nursery.start_soon(self._tell)
                nursery.start_soon(self._beat, nursery)
                while True:
                    for item in await subscription.receive():
                        self._receive(item)
                    self._pull_wanted(nursery)

    def _receive(self, item: BusMessage | Gap) -> None:
        if isinstance(item, Gap):
            self._known.doubt()
            return
        match unpacked(item.data, _messages):
            case Delta() as delta if delta.node != self._member.node:
                self._learn(self._known.take(delta))
            case Beat() as beat if beat.node != self._member.node:
                self._known.hear(beat)
            case _:
                pass  # the node's own, or of another version

    async def _tell(self) -> None:
        """Sends deltas, after each a pause in which further changes gather."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            for delta in self._own.deltas(self._limit_bytes()):
                self._publish(delta)
            await trio.sleep(TOLD_EVERY_S)

    async def _beat(self, nursery: trio.Nursery) -> None:
        while True:
            self._publish(self._own.beat())
            live = self._member.nodes.keys()
            self._learn(self._known.follow_time(live, trio.current_time()))
            for node in live - {self._member.node}:
                self._known.see(node)
            self._pull_wanted(nursery)
            await trio.sleep(BEAT_S)

    def _publish(self, message: Delta | Beat) -> None:
        # What is not sent, the others find missing.
        with suppress(BusError):
            self._member.bus.publish(self._member.subject(FACTS), pack(message))

    def _learn(self, changes: Changes) -> None:
        if changes:
            self._learned(changes)

    # The whole part

    async def _answer(self) -> None:
        """Answers requests for this node's part, under its present id."""
        while True:
            fallen = self._fallen
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer_as, self._member.node)
                await fallen.wait()
                nursery.cancel_scope.cancel()

    async def _answer_as(self, node: str) -> None:
        bus = self._member.bus
        async with bus.subscribe(self._member.subject(FACTS, node)) as requests:
            while True:
                for item in await requests.receive():
                    if isinstance(item, BusMessage) and item.reply is not None:
                        with suppress(BusError):
                            for piece in self._own.whole(self._limit_bytes()):
                                bus.publish(item.reply, pack(piece))

    def _pull_wanted(self, nursery: trio.Nursery) -> None:
        for node in self._known.wanted():
            if node not in self._pulling:
                self._pulling.add(node)
                nursery.start_soon(self._pull, node)

    async def _pull(self, node: str) -> None:
        """Asks a node for its part. Without an answer, the next heartbeat asks again."""
        self.pulls += 1
        try:
            with trio.move_on_after(PULL_S), suppress(BusError):
                pieces = await self._member.bus.request_all(
                    self._member.subject(FACTS, node), b"", _is_last
                )
                part = _part_of(node, pieces)
                if part is not None:
                    self._learn(self._known.replace(node, *part))
        finally:
            self._pulling.discard(node)

    def _limit_bytes(self) -> int:
        try:
            limit_bytes = self._member.bus.max_data_bytes
        except BusError:
            limit_bytes = PIECE_BYTES
        return max(SMALLEST_BYTES, min(PIECE_BYTES, limit_bytes) - RESERVE_BYTES)


def _is_last(piece: BusMessage) -> bool:
    whole = unpacked(piece.data, _wholes)
    return whole is None or whole.last


def _part_of(node: str, pieces: list[BusMessage]) -> tuple[int, dict[str, bytes]] | None:
    """The clock and the facts of a node's part; None: the pieces are not those of one."""
    clock = None
    facts: dict[str, bytes] = {}
    for piece in pieces:
        whole = unpacked(piece.data, _wholes)
        if whole is None or whole.node != node or clock not in (None, whole.clock):
            return None
        clock = whole.clock
        facts |= whole.facts
    return None if clock is None else (clock, facts)
