"""Facts: a map that all nodes of a cluster have, of which each node writes a part of its own.

A *fact* is a key and a value of a node, such as that a user has a socket there. A node tells the
others each change once (`Delta`), and once a second how its part should look (`Beat`). Messages can
get lost. A node that missed one sees a hole in the clock, or another digest, and then asks for the
whole part (`Whole`):

    OwnFacts    put → deltas → (sent to all)            PeerFacts.take: applied, or a hole
                      beat   → (sent to all)            PeerFacts.hear: equal, or out of date
                      whole  → (sent to one)            PeerFacts.replace: equal again

So all nodes agree one heartbeat and one answer after the last loss. Messages of one node arrive in
their order or not at all; nothing is assumed of messages of two nodes. The clock of a part counts
its deltas; a node that falls goes on under another id, so that a clock never goes back.

When a node is gone, its facts fall: most at once, and those that *linger* after `LINGER_S`, because
they will soon be another node's, such as the sockets of users who connect again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, TypeAlias, TypeVar

import msgspec

__all__ = [
    "Beat",
    "Change",
    "Delta",
    "FactsMap",
    "OwnFacts",
    "Whole",
]

V = TypeVar("V", bytes, bytes | None)

LINGER_S: Final = 5.0
"""Seconds for which facts of a node that is gone count, if they linger."""
UNSEEN_S: Final = 10.0
"""Seconds after which a node is gone of which there are facts, but no lease."""
GONE: Final = 1024
"""Nodes that are remembered as gone, so that a late message brings no fact back."""
LATER: Final = 256
"""Deltas that are kept while the whole part is asked for."""
_ENTRY_BYTES: Final = 16
"""Counted for each fact of a message, besides its key and value."""


class Delta(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """Facts of a node that changed. `clock` is one more than that of the delta before."""

    node: str
    clock: int
    sets: dict[str, bytes]
    dels: list[str]


class Beat(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """How a node's part looks after the delta of that clock."""

    node: str
    clock: int
    digest: int


class Whole(msgspec.Struct, frozen=True, array_like=True, tag="w"):
    """A node's part, or a piece of it. All pieces have the clock of the part."""

    node: str
    clock: int
    facts: dict[str, bytes]
    last: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A fact of a node changed; None: there is none."""

    node: str
    key: str
    before: bytes | None
    after: bytes | None


Changes: TypeAlias = list[Change]


class _Part:
    """Facts with their digest, which does not depend on the order in which they came."""

    def __init__(self, facts: Mapping[str, bytes] | None = None) -> None:
        self.facts: dict[str, bytes] = {}
        self.digest = 0
        for key, value in (facts or {}).items():
            self.set(key, value)

    def set(self, key: str, value: bytes | None) -> bytes | None:
        """Sets or (None) removes a fact; returns the one before."""
        before = self.facts.pop(key, None)
        if before is not None:
            self.digest ^= _digest(key, before)
        if value is not None:
            self.digest ^= _digest(key, value)
            self.facts[key] = value
        return before


def _digest(key: str, value: bytes) -> int:
    text = key.encode()
    hashed = blake2b(len(text).to_bytes(4, "big") + text + value, digest_size=8)
    return int.from_bytes(hashed.digest(), "big")


class OwnFacts:
    """The facts that a node writes."""

    def __init__(self, node: str, facts: Mapping[str, bytes] | None = None) -> None:
        self.node = node
        self.clock = 0
        self._told = _Part()
        self._waiting: dict[str, bytes | None] = dict(facts or {})

    def __len__(self) -> int:
        return len(self._told.facts)

    @property
    def facts(self) -> dict[str, bytes]:
        """All facts as they are now, told or not."""
        facts = dict(self._told.facts)
        for key, value in self._waiting.items():
            if value is None:
                facts.pop(key, None)
            else:
                facts[key] = value
        return facts

    def put(self, key: str, value: bytes | None) -> bool:
        """Sets or (None) removes a fact; whether there is something to tell."""
        if self._told.facts.get(key) == value:
            self._waiting.pop(key, None)
        else:
            self._waiting[key] = value
        return bool(self._waiting)

    def deltas(self, limit_bytes: int) -> list[Delta]:
        """What changed since the last call, in messages of about that size at most."""
        waiting, self._waiting = self._waiting, {}
        deltas = []
        for some in _pieces(waiting.items(), limit_bytes):
            self.clock += 1
            sets = {key: value for key, value in some if value is not None}
            dels = [key for key, value in some if value is None]
            for key, value in some:
                self._told.set(key, value)
            deltas.append(Delta(self.node, self.clock, sets, dels))
        return deltas

    def beat(self) -> Beat:
        """The heartbeat after the deltas so far."""
        return Beat(self.node, self.clock, self._told.digest)

    def whole(self, limit_bytes: int) -> list[Whole]:
        """All that was told, in messages of about that size at most; at least one."""
        pieces = [dict(some) for some in _pieces(self._told.facts.items(), limit_bytes)] or [{}]
        return [
            Whole(self.node, self.clock, piece, last=number == len(pieces))
            for number, piece in enumerate(pieces, 1)
        ]


def _pieces(facts: Iterable[tuple[str, V]], limit_bytes: int) -> Iterator[list[tuple[str, V]]]:
    some: list[tuple[str, V]] = []
    size = 0
    for key, value in facts:
        bytes_ = len(key) * 4 + len(value or b"") + _ENTRY_BYTES
        if some and size + bytes_ > limit_bytes:
            yield some
            some, size = [], 0
        some.append((key, value))
        size += bytes_
    if some:
        yield some


@dataclass(slots=True)
class _Peer:
    """What is known of another node's part."""

    part: _Part = field(default_factory=_Part)
    clock: int = 0
    wanted: bool = False
    """Whether the whole part must be asked for."""
    later: dict[int, Delta] = field(default_factory=dict)
    """Deltas after a hole, by their clock."""
    unseen_since_s: float | None = None
    """Since when the node has no lease."""
    falls_at_s: float | None = None
    """When its last facts fall; None: it is not gone."""


class FactsMap:
    """What one node knows of the parts of the others.

    Args:
        lingers: whether a fact outlives its node by `LINGER_S`, by its key.
    """

    def __init__(self, lingers: Callable[[str], bool] = lambda _: False) -> None:
        self._lingers = lingers
        self._peers: dict[str, _Peer] = {}
        self._gone: dict[str, None] = {}

    def __len__(self) -> int:
        """How many facts of others are known."""
        return sum(len(peer.part.facts) for peer in self._peers.values())

    def facts_of(self, node: str) -> Mapping[str, bytes]:
        """The facts of a node, as far as they are known."""
        peer = self._peers.get(node)
        return {} if peer is None else peer.part.facts

    def nodes(self) -> tuple[str, ...]:
        """The nodes of which facts are known."""
        return tuple(self._peers)

    def wanted(self) -> tuple[str, ...]:
        """The nodes whose whole part must be asked for."""
        return tuple(node for node, peer in self._peers.items() if peer.wanted)

    # Messages

    def see(self, node: str) -> None:
        """There is such a node; its part must be asked for if nothing is known of it."""
        if node not in self._peers:
            peer = self._peer(node)
            if peer is not None:
                peer.wanted = True

    def take(self, delta: Delta) -> Changes:
        """Applies a delta, or finds that one before it is missing."""
        peer = self._peer(delta.node)
        if peer is None or delta.clock <= peer.clock:
            return []
        if delta.clock == peer.clock + 1:
            changes = self._apply(peer, delta)
            return changes + self._catch_up(peer)
        peer.wanted = True
        if len(peer.later) < LATER:
            peer.later[delta.clock] = delta
        return []

    def hear(self, beat: Beat) -> None:
        """Compares what is known with what a node says of its part."""
        peer = self._peer(beat.node)
        if peer is None or beat.clock < peer.clock:
            return
        if beat.clock > peer.clock or beat.digest != peer.part.digest:
            peer.wanted = True

    def replace(self, node: str, clock: int, facts: Mapping[str, bytes]) -> Changes:
        """The whole part of a node, as it was asked for."""
        peer = self._peer(node)
        if peer is None or clock < peer.clock:
            return []  # a delta was faster; the next beat says whether something is missing
        before = peer.part.facts
        peer.part, peer.clock, peer.wanted = _Part(facts), clock, False
        changes = [
            Change(node, key, before.get(key), facts.get(key))
            for key in (*facts, *(key for key in before if key not in facts))
            if before.get(key) != facts.get(key)
        ]
        return changes + self._catch_up(peer)

    def doubt(self) -> None:
        """Messages may be missing: all parts must be asked for."""
        for peer in self._peers.values():
            if peer.falls_at_s is None:
                peer.wanted = True

    # Nodes that go

    def gone(self, node: str, now_s: float) -> Changes:
        """A node has fallen or stopped: its facts fall, and it is never heard again."""
        self._gone.pop(node, None)
        self._gone[node] = None
        if len(self._gone) > GONE:
            del self._gone[next(iter(self._gone))]
        peer = self._peers.get(node)
        if peer is None or peer.falls_at_s is not None:
            return []
        peer.falls_at_s, peer.wanted = now_s + LINGER_S, False
        peer.later.clear()
        return self._fall(node, peer, [key for key in peer.part.facts if not self._lingers(key)])

    def follow_time(self, live: Collection[str], now_s: float) -> Changes:
        """Drops what has lingered long enough, and nodes that have had no lease for long. `live`
        are the nodes that have one."""
        changes: Changes = []
        for node, peer in list(self._peers.items()):
            if peer.falls_at_s is not None:
                if peer.falls_at_s <= now_s:
                    changes += self._fall(node, peer, list(peer.part.facts))
                    del self._peers[node]
            elif node in live:
                peer.unseen_since_s = None
            elif peer.unseen_since_s is None:
                peer.unseen_since_s = now_s
            elif now_s - peer.unseen_since_s >= UNSEEN_S:
                changes += self.gone(node, now_s)
        return changes

    def _fall(self, node: str, peer: _Peer, keys: Iterable[str]) -> Changes:
        return [Change(node, key, peer.part.set(key, None), None) for key in keys]

    def _peer(self, node: str) -> _Peer | None:
        if node in self._gone:
            return None
        return self._peers.setdefault(node, _Peer())

    def _apply(self, peer: _Peer, delta: Delta) -> Changes:
        peer.clock = delta.clock
        changed: dict[str, bytes | None] = {**dict.fromkeys(delta.dels), **delta.sets}
        changes = []
        for key, after in changed.items():
            before = peer.part.set(key, after)
            if before != after:
                changes.append(Change(delta.node, key, before, after))
        return changes

    def _catch_up(self, peer: _Peer) -> Changes:
        """Applies the deltas that came too early."""
        changes: Changes = []
        while (delta := peer.later.pop(peer.clock + 1, None)) is not None:
            changes += self._apply(peer, delta)
        for clock in [clock for clock in peer.later if clock <= peer.clock]:
            del peer.later[clock]
        return changes
