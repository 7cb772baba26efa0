"""NATS as a witness of nodes' lives: a record for each node, in one bucket.

The rules of the records are those of `reileta/rules/cluster/lease.py`. A record says more than the
lease needs: where the node is, and how busy, for placement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from reileta.cluster.bus import Bus
from reileta.cluster.key_value import Bucket, BucketGone, Entry, KeyValue, WrongRevision
from reileta.rules.cluster.lease import Bury, ReadRecord, Record, RecordState, WriteRecord

__all__ = ["About", "NatsWitness", "SeenRecord"]

UP_S: Final = 60
"""Seconds after which NATS removes the record of a node that wrote no more. Only against rubbish:
no rule depends on it."""
BURIED_S: Final = 3600
_ODD_BEAT: Final = 2**62
"""The beat of a record that can't be read: no node takes it for its own."""


class About(msgspec.Struct, frozen=True):
    """What a node says of itself.

    `url`: where clients reach it, if they can. `name`: what operators call it. `load`, `lag_ms`,
    `instances`, `capacity`: as in `reileta.rules.cluster.placement.Candidate`.
    """

    version: str
    roles: tuple[str, ...] = ()
    url: str | None = None
    draining: bool = False
    load: float = 0.0
    lag_ms: int = 0
    instances: int = 0
    capacity: int = 0
    name: str = ""
    players: int = 0


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record's JSON. Versions may add fields; unknown ones are ignored."""

    beat: int
    state: RecordState
    by: str | None = None
    about: About | None = None


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """Another node's record. `about`: None if it is buried."""

    record: Record
    about: About | None


class NatsWitness:
    """The records of a cluster's nodes. Methods raise BusUnavailable, and BucketRefused if NATS is
    not set up as it must be. If NATS has lost the bucket, they make it again."""

    def __init__(self, bus: Bus, cluster: str, *, replicas: int = 1) -> None:
        """`cluster`: its name, of letters, digits, `_` and `-`."""
        self._records = KeyValue(
            bus, Bucket(f"avr_{cluster}_nodes", replicas, republish=f"avr.{cluster}.kv")
        )

    async def read(self, node: str, request: ReadRecord) -> Record | None:
        """The node's own record, as the leader has it."""
        try:
            entry = await self._records.read(node, connection=request.connection)
        except BucketGone:
            await self._records.make()
            return None
        return None if entry is None else _seen(entry).record

    async def write(self, node: str, request: WriteRecord, about: About) -> int | None:
        """Writes the node's own record; its new revision, or None if it was refused."""
        value = _Value(request.beat, "up", about=about)
        return await self._put(node, value, request.revision, UP_S, request.connection)

    async def look(self) -> dict[str, SeenRecord]:
        """All records; they may be a moment old."""
        try:
            entries = await self._records.read_all()
        except BucketGone:
            await self._records.make()
            return {}
        return {node: _seen(entry) for node, entry in entries.items()}

    async def bury(self, step: Bury, *, by: str) -> bool:
        """Writes the record of a node that is taken over; False: it was refused."""
        value = _Value(0, "buried", by=by)
        written = await self._put(step.node, value, step.revision, BURIED_S, step.connection)
        return written is not None

    async def remove(self, node: str, *, connection: int) -> None:
        """Deletes the record of a node that has stopped, if it is still there."""
        try:
            entry = await self._records.read(node, connection=connection)
            if entry is not None and entry.value is not None:
                await self._records.delete(node, revision=entry.revision, connection=connection)
        except (BucketGone, WrongRevision):
            return

    async def _put(
        self, node: str, value: _Value, revision: int, ttl_s: int, connection: int
    ) -> int | None:
        try:
            return await self._records.write(
                node,
                msgspec.json.encode(value),
                revision=revision,
                ttl_s=ttl_s,
                connection=connection,
            )
        except WrongRevision:
            return None
        except BucketGone:
            # The write is refused: the revision is of data that is lost. The next read shows that.
            await self._records.make()
            return None


def _seen(entry: Entry) -> SeenRecord:
    """A record that was deleted, or that can't be read, is one that is up and that no node takes
    for its own: others wait before they bury it."""
    try:
        value = msgspec.json.decode(entry.value or b"", type=_Value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return SeenRecord(Record(entry.revision, _ODD_BEAT, "up"), None)
    return SeenRecord(Record(entry.revision, value.beat, value.state), value.about)
