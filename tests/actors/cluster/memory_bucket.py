"""A bucket of JetStream in memory, for several nodes in one process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import trio

from reileta.cluster.bus import BusUnavailable
from reileta.cluster.key_value import BucketGone, Entry, WrongRevision
from tests.reileta.cluster.memory_bus import MemoryBus


@dataclass
class MemoryEntries:
    """What NATS has.

    Attributes:
        there: whether the bucket exists.
        writes: the size of each value that was written.
        gate: what a write waits for, once it has been accepted.
    """

    there: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    revisions: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    writes: list[int] = field(default_factory=list)
    answers: bool = True

    def lose(self) -> None:
        """NATS starts again without its data, and numbers its writes anew."""
        self.there, self.entries, self.revisions = False, {}, itertools.count(1)


@dataclass
class MemoryBucket:
    """The bucket, as one node reaches it: a `SoftBucket`."""

    nats: MemoryEntries
    bus: MemoryBus

    async def _reach(self, connection: int | None) -> None:
        await trio.lowlevel.checkpoint()
        if self.bus.connection is None or connection not in (None, self.bus.connection):
            raise BusUnavailable("not connected")

    async def make(self) -> None:
        await self._reach(None)
        self.nats.there = True

    async def read(self, key: str, *, connection: int | None = None) -> Entry | None:
        await self._reach(connection)
        if not self.nats.there:
            raise BucketGone("seats")
        return self.nats.entries.get(key)

    async def read_all(self, under: str = "") -> dict[str, Entry]:
        await self._reach(None)
        if not self.nats.there:
            raise BucketGone("seats")
        return {key: one for key, one in self.nats.entries.items() if key.startswith(f"{under}.")}

    async def write(
        self, key: str, value: bytes, *, revision: int, ttl_s: int, connection: int
    ) -> int:
        await self._reach(connection)
        if not self.nats.there:
            raise BucketGone("seats")
        known = self.nats.entries.get(key)
        if revision != (0 if known is None else known.revision):
            raise WrongRevision(key)
        number = next(self.nats.revisions)
        self.nats.entries[key] = Entry(value, number)
        self.nats.writes.append(len(value))
        if not self.nats.answers:
            raise BusUnavailable("the answer was lost")
        return number
