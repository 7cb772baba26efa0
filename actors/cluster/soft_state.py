"""What only the host of an instance knows, kept where the next host finds it if this one dies.

Seats, the queue and invitations go to a bucket of NATS, in memory. They are written a moment after
they change, and nobody waits for it: so the last changes before a death may be missing. Values are
in shards of bounded size; a shard is rewritten when something in it has changed. Each write is a
compare-and-set on the host's own revision, and names the epoch: the next host writes all shards
anew, and the writes of the one before fail from then on. If NATS lost the bucket, or another
connection is used, everything is read and written anew.

Not kept: retained values, which can be large and change often; and how long a seat was in its grace
or a seat was held, since no clock is compared with another one. Both begin anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
import structlog
import trio

from actors.cluster import wire
from actors.instance.messages import Frozen
from actors.instance.recovery import RecoveryState
from reileta.cluster.bus import BusError
from reileta.cluster.calls import pack, unpacked
from reileta.cluster.key_value import BucketGone, BucketRefused, Entry, WrongRevision
from reileta.concurrency import undone_on_failure
from reileta.observability import log_events
from reileta.rules.identity import Visitor
from reileta.rules.instance.candidates import Candidate, State
from reileta.rules.instance.seats import Player

__all__ = ["KEPT_S", "SoftBucket", "SoftFound", "SoftMember", "SoftStates", "found_in"]

GATHER_S: Final = 0.1
"""Seconds in which changes gather before they are written."""
READ_S: Final = 0.3
"""Seconds that a new host waits for what the last one has kept."""
CALL_S: Final = 1.0
"""Seconds for one shard to be written."""
AGAIN_S: Final = 1.0
"""Seconds until a failed write is tried again."""
KEPT_S: Final = 600
"""Seconds after which NATS forgets what nobody has renewed."""
RENEWED_S: Final = 200.0
SHARD_BYTES: Final = 32 * 1024
SHARDS: Final = 64
"""Of one instance. What is beyond is not kept."""
AT_ONCE: Final = 16
"""Instances that are written at the same time."""

_log = structlog.get_logger()


class SeatKept(msgspec.Struct, array_like=True, tag=1):
    """A player inside, without its sockets."""

    seat: wire.Seat


class CandidateKept(msgspec.Struct, array_like=True, tag=2):
    """A candidate; ranks grow along the queue."""

    rank: float
    state: State
    candidate: Candidate


class InvitedKept(msgspec.Struct, array_like=True, tag=3):
    """An invitation."""

    user: str
    how: Literal["by-leader", "by-member"]


Kept: TypeAlias = SeatKept | CandidateKept | InvitedKept


class _Shard(msgspec.Struct, array_like=True):
    epoch: int
    entries: list[Kept]


class _RawShard(msgspec.Struct, array_like=True):
    epoch: int
    entries: list[msgspec.Raw]


_shards: Final = msgspec.msgpack.Decoder(_Shard)
_encode: Final = msgspec.msgpack.Encoder().encode


class SoftBucket(Protocol):
    """A bucket (`reileta.cluster.key_value.KeyValue`)."""

    async def make(self) -> None: ...

    async def read(self, key: str, *, connection: int | None = None) -> Entry | None: ...

    async def read_all(self, under: str = "") -> dict[str, Entry]: ...

    async def write(
        self, key: str, value: bytes, *, revision: int, ttl_s: int, connection: int
    ) -> int: ...


class SoftLink(Protocol):
    """The way to the bucket. Revisions that were read on one connection mean nothing on another."""

    @property
    def connection(self) -> int | None:
        """The number of the present connection; None: there is none."""
        ...

    async def changed_from(self, connection: int | None) -> int | None:
        """Waits until `connection` is not the present connection; the one that is."""
        ...


class SoftMember(Protocol):
    """The process that hosts the instances (`reileta.cluster.member.Member`)."""

    @property
    def bus(self) -> SoftLink: ...

    def valid(self) -> bool:
        """Whether it may write now."""
        ...


@dataclass
class SoftFound:
    """What the last host has kept. `revisions`: of its shards, by number."""

    seats: list[wire.Seat] = field(default_factory=list)
    frozen: Frozen | None = None
    revisions: dict[int, int] = field(default_factory=dict)
    connection: int | None = None


def found_in(instance: str, entries: Mapping[str, Entry], epoch: int) -> SoftFound:
    """What hosts before this epoch have kept of an instance, in the entries of a bucket."""
    found = SoftFound()
    candidates: list[CandidateKept] = []
    invited: dict[str, Literal["by-leader", "by-member"]] = {}
    for key, entry in entries.items():
        number = key.removeprefix(instance + ".")
        if not number.isdigit() or int(number) >= SHARDS:
            continue
        found.revisions[int(number)] = entry.revision
        shard = None if entry.value is None else unpacked(entry.value, _shards)
        if shard is None or shard.epoch >= epoch:
            continue
        for one in shard.entries:
            match one:
                case SeatKept(seat):
                    found.seats.append(seat)
                case CandidateKept():
                    candidates.append(one)
                case InvitedKept(user, how):
                    invited[user] = how
    if candidates or invited:
        candidates.sort(key=lambda one: one.rank)
        line = tuple((one.state, one.candidate) for one in candidates)
        found.frozen = Frozen((), invited, line, anew=True)
    return found


class _Stale(Exception):
    """The instance has a newer host."""


@dataclass(eq=False)
class _KeptShard:
    """A shard of an instance, and its revision on a connection."""

    number: int
    entries: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    dirty: bool = True
    revision: int = 0
    connection: int | None = None

    def write_failed(self) -> None:
        """It is to be written again. It may have been written all the same, so its revision is not
        known any more."""
        self.dirty, self.connection = True, None


class _KeptInstance:
    """What is kept of one instance, by its host."""

    def __init__(self, recovery: RecoveryState, epoch: int, found: SoftFound | None) -> None:
        self.recovery = recovery
        self.id = recovery.record.id
        self.epoch = epoch
        self.over = False
        """Whether the instance has ended: nothing of it is kept."""
        self.shards: list[_KeptShard] = []
        self._where: dict[str, _KeptShard] = {}
        self._encoded: dict[str, tuple[tuple[object, ...], bytes]] = {}
        """The last value of each entry, and of what it was made."""
        self._ranks: dict[str, float] = {}
        self._full = False
        for number, revision in sorted(found.revisions.items()) if found is not None else ():
            while len(self.shards) <= number:
                self._new_shard()
            self.shards[number].revision = revision
            self.shards[number].connection = found.connection  # type: ignore[union-attr]

    def _new_shard(self) -> _KeptShard:
        shard = _KeptShard(len(self.shards))
        self.shards.append(shard)
        return shard

    def gather(self) -> None:
        """Compares what is with what was written."""
        wanted = {} if self.over else self._entries()
        for name in self._where.keys() - wanted.keys():
            shard = self._where.pop(name)
            shard.size -= len(shard.entries.pop(name))
            shard.dirty = True
        for name, value in wanted.items():
            known = self._where.get(name)
            if known is not None:
                if known.entries[name] == value:
                    continue
                known.size -= len(known.entries.pop(name))
                known.dirty = True
            self._put(name, value)

    def _put(self, name: str, value: bytes) -> None:
        self._where.pop(name, None)
        room = (one for one in self.shards if one.size + len(value) <= SHARD_BYTES)
        shard = next(room, None)
        if shard is None:
            if len(self.shards) >= SHARDS or len(value) > SHARD_BYTES:
                if not self._full:
                    self._full = True
                    _log.warning(log_events.SOFT_STATE_FULL, instance=self.id)
                return
            shard = self._new_shard()
        shard.entries[name] = value
        shard.size += len(value)
        shard.dirty = True
        self._where[name] = shard

    def _entries(self) -> dict[str, bytes]:
        entries: dict[str, bytes] = {}
        encoded, self._encoded = self._encoded, {}

        def enter(name: str, made_of: tuple[object, ...], make: Callable[[], Kept]) -> None:
            known = encoded.get(name)
            if known is None or known[0] != made_of:
                known = (made_of, _encode(make()))
            self._encoded[name], entries[name] = known, known[1]

        for session, member in self.recovery.seated.items():
            made_of = (member.visitor, member.player)
            enter("s" + session, made_of, partial(_seat, member.visitor, member.player))
        rules = self.recovery.rules
        if rules is None:
            return entries
        ranks, self._ranks = self._ranks, {}
        last = 0.0
        line = list(rules.candidates.each())
        for place, (state, one) in enumerate(line):
            rank = ranks.get(one.user, 0.0)
            if rank <= last:
                after = ranks.get(line[place + 1][1].user, 0.0) if place + 1 < len(line) else 0.0
                middle = (last + after) / 2
                rank = middle if last < middle < after else last + 1.0
            self._ranks[one.user] = last = rank
            enter("c" + one.user, (rank, state, one), partial(_candidate, rank, state, one))
        for user, how in rules.invited.items():
            enter("i" + user, (how,), partial(InvitedKept, user, how))
        return entries

    def renew(self) -> None:
        """Everything is to be written again."""
        for shard in self.shards:
            shard.dirty = True

    async def write(self, bucket: SoftBucket, connection: int) -> None:
        """Writes what has changed. Raises BusError and _Stale."""
        for shard in self.shards:
            if shard.connection != connection:
                await self._read(bucket, shard, connection)
            if not shard.dirty:
                continue
            entries = [msgspec.Raw(one) for one in shard.entries.values()]
            value = pack(_RawShard(self.epoch, entries))
            shard.dirty = False
            with undone_on_failure(shard.write_failed):
                shard.revision = await bucket.write(
                    f"{self.id}.{shard.number}",
                    value,
                    revision=shard.revision,
                    ttl_s=KEPT_S,
                    connection=connection,
                )

    async def _read(self, bucket: SoftBucket, shard: _KeptShard, connection: int) -> None:
        """Learns the shard's revision on a connection."""
        entry = await bucket.read(f"{self.id}.{shard.number}", connection=connection)
        shard.revision, shard.dirty = 0, True
        if entry is not None:
            shard.revision = entry.revision
            found = None if entry.value is None else unpacked(entry.value, _shards)
            if found is not None and found.epoch > self.epoch:
                raise _Stale
        shard.connection = connection


class SoftStates:
    """What is kept of the instances of this node. `run` must run beside its use."""

    def __init__(
        self,
        member: SoftMember,
        bucket: SoftBucket,
        *,
        gather_s: float = GATHER_S,
        call_s: float = CALL_S,
        at_once: int = AT_ONCE,
        renewed_s: float = RENEWED_S,
    ) -> None:
        """The numbers are instead of `GATHER_S`, `CALL_S`, `AT_ONCE` and `RENEWED_S`."""
        self._member = member
        self._bucket = bucket
        self._gather_s, self._call_s, self._at_once = gather_s, call_s, at_once
        self._renewed_s = renewed_s
        self._writing = trio.Lock()
        self._finished = False
        self._kept: dict[str, _KeptInstance] = {}
        self._changed: dict[_KeptInstance, None] = {}
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._refused = False

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"kept instances": len(self._kept)}

    async def read(self, instance: str, epoch: int) -> SoftFound:
        """Reads the state that an earlier host kept; empty if NATS does not answer in `READ_S`."""
        found, connection = SoftFound(), self._member.bus.connection
        entries: dict[str, Entry] = {}
        with trio.move_on_after(READ_S):
            try:
                entries = await self._bucket.read_all(instance)
            except BusError:
                entries = {}
        if connection is None or connection != self._member.bus.connection:
            return found
        found = found_in(instance, entries, epoch)
        found.connection = connection
        return found

    def keep(self, recovery: RecoveryState, epoch: int, found: SoftFound | None) -> None:
        """Keeps the state of an instance of this node from now on."""
        kept = self._kept[recovery.record.id] = _KeptInstance(recovery, epoch, found)
        self._write_soon(kept)

    def changed(self, instance: str) -> None:
        """Something may have changed."""
        kept = self._kept.get(instance)
        if kept is not None:
            self._write_soon(kept)

    def leave(self, instance: str, *, over: bool) -> None:
        """This node does not host the instance any more. `over`: nobody will."""
        kept = self._kept.pop(instance, None)
        if kept is None:
            return
        if over and kept.shards:
            kept.over = True
            self._write_soon(kept)
        else:
            self._changed.pop(kept, None)

    def _write_soon(self, kept: _KeptInstance) -> None:
        self._changed[kept] = None
        self._wake.set()

    async def run(self) -> None:
        """Writes, for ever."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._renew)
            for kept in self._kept.values():  # of before a crash
                self._write_soon(kept)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await trio.sleep(self._gather_s)
                await self._write_changed()

    async def finish(self) -> None:
        """Writes what has changed, and nothing that changes later."""
        try:
            await self._write_changed()
        finally:
            self._finished = True

    async def _write_changed(self) -> None:
        async with self._writing:
            changed, self._changed = self._changed, {}
            await self._write_all(changed)

    async def _renew(self) -> None:
        """Writes everything again: before NATS forgets it, and after each reconnect."""
        bus = self._member.bus
        while True:
            connection = bus.connection
            with trio.move_on_after(self._renewed_s):
                await bus.changed_from(connection)
            for kept in self._kept.values():
                kept.renew()
                self._write_soon(kept)

    async def _write_all(self, changed: Iterable[_KeptInstance]) -> None:
        limit = trio.Semaphore(self._at_once)

        async def one(kept: _KeptInstance) -> None:
            async with limit:
                await self._write(kept)

        async with trio.open_nursery() as nursery:
            for kept in changed:
                nursery.start_soon(one, kept)

    async def _write(self, kept: _KeptInstance) -> None:
        if self._finished:
            return
        connection = self._member.bus.connection
        if connection is None or not self._member.valid():
            self._try_again(kept)
            return
        if kept.recovery.rules is None:
            return  # its actor says when it has begun
        kept.gather()
        with trio.move_on_after(self._call_s) as scope:
            try:
                await kept.write(self._bucket, connection)
            except _Stale:
                self._kept.pop(kept.id, None)
                return
            except BucketGone:
                if await self._make():
                    self._write_soon(kept)
                else:
                    self._try_again(kept)
            except (WrongRevision, BusError) as error:
                self._note(error)
                self._try_again(kept)
        if scope.cancelled_caught:
            self._try_again(kept)

    async def _make(self) -> bool:
        try:
            await self._bucket.make()
        except BusError as error:
            self._note(error)
            return False
        return True

    def _note(self, error: BusError) -> None:
        """Logs once that NATS does not take it."""
        if isinstance(error, BucketRefused) and not self._refused:
            self._refused = True
            _log.warning(log_events.SOFT_STATE_REFUSED, reason=str(error))

    def _try_again(self, kept: _KeptInstance) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._write_later, kept)

    async def _write_later(self, kept: _KeptInstance) -> None:
        await trio.sleep(AGAIN_S)
        if self._kept.get(kept.id) is kept or kept.over:
            self._write_soon(kept)


def _seat(visitor: Visitor, player: Player) -> SeatKept:
    return SeatKept(wire.Seat(replace(visitor, friends=frozenset()), player, []))


def _candidate(rank: float, state: State, one: Candidate) -> CandidateKept:
    """The candidate as it is kept: its times mean nothing to another host."""
    return CandidateKept(rank, state, replace(one, absent_until=None, held_until=None))
