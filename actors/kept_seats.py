"""Seats and queues of a server without a cluster, kept over its restart.

The same as hosts of a cluster keep for each other (`actors/cluster/soft_state.py`), in PostgreSQL:
the seats, the queue and the invitations of each instance, a moment after they change. Nobody waits
for these writes, so a slow or absent database delays no join. The changes of all instances share
one statement, one at a time. If the server is killed, the last changes may be missing. If it stops
in order, none is: all is written before the first socket is closed.

The next run reads everything before it takes connections. It leaves out what does not count any
more: everything, if no server ran for too long; instances that are gone; sessions that have ended;
users who were suspended, deleted, blocked or kicked. The rules do the rest as the instance starts:
bans, the capacity, the access (`Admission.may_return`, `Admission.resume`). All these instances are
started at once, so that candidates hear of their places, and the others of those who don't come
back. Players have no socket until they do: to the rules they have just lost their connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
import trio

from actors.cluster import wire
from actors.cluster.relay import Nobody
from actors.cluster.soft_state import SoftFound, SoftStates, found_in
from actors.instance.manager import InstanceManager
from actors.instance.messages import Absent, Frozen
from actors.instance.recovery import Member, RecoveryState
from reileta.cluster.bus import BusUnavailable
from reileta.cluster.key_value import Entry, WrongRevision
from reileta.errors import DatabaseFault, DatabaseUnavailable, InstanceNotFound, Overloaded
from reileta.ids import user_ref
from reileta.observability import log_events
from reileta.records import User
from reileta.rules.instance.restart import hold_ms, outdated
from reileta.rules.instance.state import InstanceLimits
from reileta.store import Store
from reileta.store.soft_states import SoftPart
from reileta.store.soft_states import SoftStates as SoftRows

GATHER_S: Final = 0.2
"""Seconds in which changes gather before they are written."""
CALL_S: Final = 30.0
"""Seconds for one write. The next changes gather meanwhile."""
AT_ONCE: Final = 64
"""Instances that share a statement."""
ALIVE_S: Final = 5.0
"""Seconds between two notes that the server runs."""
AGAIN_S: Final = 1.0
"""Seconds until the database is asked again that did not answer."""
FINISH_S: Final = 1.0
"""Seconds for the last writes of a server that stops."""
STARTS: Final = 8
"""Instances that are started at the same time."""

_log = structlog.get_logger()


class KeptSeats:
    """What is kept of the instances of this server. `load` begins; `run` must run from then on."""

    def __init__(
        self,
        store: Store,
        instances: InstanceManager,
        *,
        limits: InstanceLimits,
        now_ms: Callable[[], int],
        admits: Callable[[str], bool],
    ) -> None:
        """`admits`: whether a user (`UserIDAt`) may be here, by the rules about servers and
        clients."""
        self._store = store
        self._instances = instances
        self._limits = limits
        self._now_ms = now_ms
        self._admits = admits
        self._rows = _Rows(store.soft_states)
        self._soft = SoftStates(
            self._rows,
            self._rows,
            gather_s=GATHER_S,
            call_s=CALL_S,
            at_once=AT_ONCE,
            renewed_s=float("inf"),
        )
        self._run = 0
        self._found: dict[str, SoftFound] = {}
        """Of instances that have not started since."""
        self._hold_s = self._found_s = 0.0
        self._held_until = self._found_until = 0.0
        self._running = self._finished = False

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {"found instances": len(self._found), **self._soft.debug_counts()}

    # The start of the server -------------------------------------------------------------------

    async def load(self) -> None:
        """Reads what the last run has kept. Instances begin with it from now on. Raises
        DatabaseUnavailable."""
        run = await self._store.soft_states.begin_run()
        self._run = run.number
        if not outdated(run.away_ms):
            self._found = await self._read()
            self._hold_s = hold_ms(self._limits.grace_ms, run.away_ms) / 1000
            self._found_s = max(self._hold_s, self._limits.queue_grace_ms / 1000)
        await self._store.soft_states.forget_others(self._found)
        self._count_from_now()
        self._instances.keeper = self._keeper
        seats = sum(len(one.seats) for one in self._found.values())
        if self._found:
            _log.info(
                log_events.SEATS_HELD,
                instances=len(self._found),
                seats=seats,
                away_s=run.away_ms / 1000,
                hold_s=self._hold_s,
            )

    def _count_from_now(self) -> None:
        now = trio.current_time()
        self._held_until, self._found_until = now + self._hold_s, now + self._found_s

    async def _read(self) -> dict[str, SoftFound]:
        by_instance: dict[str, dict[str, Entry]] = {}
        for key, entry in (await self._rows.read_all()).items():
            by_instance.setdefault(key.rpartition(".")[0], {})[key] = entry
        found = {
            instance: found_in(instance, entries, self._run)
            for instance, entries in by_instance.items()
        }
        seats = [seat for one in found.values() for seat in one.seats]
        present = await self._present(found)
        sessions = {
            one.id: one.user
            for one in await self._store.soft_states.live_sessions(
                [seat.player.session for seat in seats], self._now_ms()
            )
        }
        kicks = await self._store.moderations.last_kicks_in(found)
        for instance, one in found.items():
            one.seats = [
                self._as_now(seat, present)
                for seat in one.seats
                if self._counts(seat.player.user, present)
                and sessions.get(seat.player.session) == self._ref(seat.player.user)
                and kicks.get((instance, self._ref(seat.player.user)), 0) <= seat.player.joined_at
            ]
            one.frozen = self._frozen(one.frozen, present)
            one.connection = self._rows.connection
        return {id_: one for id_, one in found.items() if one.seats or one.frozen is not None}

    async def _present(self, found: Mapping[str, SoftFound]) -> Mapping[str, User]:
        """The users of this server that are concerned, as far as they exist."""
        users: set[str] = set()
        for one in found.values():
            users.update(seat.player.user for seat in one.seats)
            if one.frozen is not None:
                users.update(candidate.user for _, candidate in one.frozen.candidates)
        refs = map(self._ref, users)
        return await self._store.users.many([one for one in refs if "@" not in one])

    def _counts(self, user: str, present: Mapping[str, User]) -> bool:
        """Whether a user may still be here."""
        ref = self._ref(user)
        if "@" not in ref:
            known = present.get(ref)
            if known is None or known.suspended(self._now_ms()):
                return False
        return self._admits(user)

    def _as_now(self, seat: wire.Seat, present: Mapping[str, User]) -> wire.Seat:
        """The seat with its user as it is now."""
        user = present.get(self._ref(seat.player.user))
        if user is None:
            return seat
        name = user.displayname
        visitor = replace(seat.visitor, displayname=name, admin=user.admin)
        return wire.Seat(visitor, replace(seat.player, displayname=name), [])

    def _frozen(self, frozen: Frozen | None, present: Mapping[str, User]) -> Frozen | None:
        """The queue and the invitations, without users who may not be here any more."""
        if frozen is None:
            return None
        line = []
        for state, one in frozen.candidates:
            if self._counts(one.user, present):
                user = present.get(self._ref(one.user))
                line.append((state, one if user is None else replace(one, admin=user.admin)))
        return replace(frozen, candidates=tuple(line))

    def _ref(self, user: str) -> str:
        """The user as records name it."""
        return user_ref(user, self._instances.address)

    # Instances ---------------------------------------------------------------------------------

    def _keeper(self, recovery: RecoveryState) -> _Kept:
        """As `InstanceManager.keeper`."""
        found, now = self._found.get(recovery.record.id), trio.current_time()
        if found is not None and now < self._found_until:
            left_ms = int((self._held_until - now) * 1000)
            seats = sorted(found.seats, key=lambda one: one.player.joined_at)
            absent = []
            for seat in seats if left_ms > 0 else ():
                session, player = seat.player.session, seat.player
                recovery.seated[session] = Member(seat.visitor, player, Nobody())
                absent.append(Absent(player.id, left_ms, gap=True))
            frozen = found.frozen or Frozen(anew=True)
            recovery.soft = replace(frozen, absent=tuple(absent))
        return _Kept(self, recovery)

    def begun(self, recovery: RecoveryState) -> None:
        """The instance has begun with what was found, and is kept from now on."""
        found = self._found.pop(recovery.record.id, None)
        self._soft.keep(recovery, self._run, found)

    def changed(self, instance: str) -> None:
        """Something of the instance may have changed."""
        self._soft.changed(instance)

    def ended(self, instance: str, *, over: bool) -> None:
        """The instance's actor has ended. `over`: nothing of it is kept."""
        self._soft.leave(instance, over=False)
        if over and not self._finished:
            self._found.pop(instance, None)
            self._rows.forget(instance)

    # While the server runs ---------------------------------------------------------------------

    async def run(self) -> None:
        """Starts the instances that were found, and writes, for ever."""
        if not self._running:  # else it begins again after a crash
            self._running = True
            self._count_from_now()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rows.run)
            nursery.start_soon(self._rows.beat)
            nursery.start_soon(self._soft.run)
            nursery.start_soon(self._start_all)

    async def _start_all(self) -> None:
        limit = trio.Semaphore(STARTS)
        async with trio.open_nursery() as nursery:
            for instance in tuple(self._found):
                nursery.start_soon(self._start, instance, limit)
        await trio.sleep_until(self._found_until)
        for instance in self._found:  # those that could not be started
            self._rows.forget(instance)
        self._found.clear()

    async def _start(self, instance: str, limit: trio.Semaphore) -> None:
        while instance in self._found and trio.current_time() < self._found_until:
            async with limit:
                try:
                    await self._instances.start(instance)
                except InstanceNotFound:
                    return
                except (DatabaseUnavailable, Overloaded):
                    pass
            await trio.sleep(AGAIN_S)

    async def finish(self) -> None:
        """Writes the last changes of a server that is about to close its sockets, if the database
        takes them in `FINISH_S`, and nothing after that."""
        self._finished = True
        with trio.move_on_after(FINISH_S), suppress(DatabaseUnavailable):
            await self._soft.finish()
            await self._store.soft_states.note_alive()


class _Kept:
    """One instance: a `Keeper`."""

    def __init__(self, seats: KeptSeats, recovery: RecoveryState) -> None:
        self._seats = seats
        self._recovery = recovery
        self._begun = False

    def changed(self) -> None:
        if self._begun:
            self._seats.changed(self._recovery.record.id)
        else:
            self._begun = True
            self._seats.begun(self._recovery)

    def ended(self, *, over: bool) -> None:
        self._seats.ended(self._recovery.record.id, over=over)


@dataclass(eq=False)
class _Waiting:
    """A write, and what became of it."""

    part: SoftPart
    done: trio.Event = field(default_factory=trio.Event)
    revision: int = 0
    failed: bool = False


class _Rows:
    """PostgreSQL as a `SoftBucket`. Writes that gather during one share the next.

    It is the way to itself, too: a `SoftMember` and its link. After an outage it counts as another
    connection, so that everything is written anew: a crash of PostgreSQL loses the last writes.
    """

    def __init__(self, rows: SoftRows) -> None:
        self._rows = rows
        self._waiting: dict[str, _Waiting] = {}
        self._forgotten: dict[str, None] = {}
        self._wake = trio.Event()
        self._reading = trio.Lock()
        self._connections = 1
        self._changed = trio.Event()
        self.connection: int | None = 1

    @property
    def bus(self) -> _Rows:
        return self

    def valid(self) -> bool:
        """Revisions and the number of the run keep a server from writing over a later one."""
        return True

    async def changed_from(self, connection: int | None) -> int | None:
        while self.connection == connection:
            await self._changed.wait()
        return self.connection

    def _lost(self, error: DatabaseUnavailable) -> None:
        if isinstance(error, DatabaseFault) and self.connection is not None:
            _log.warning(log_events.SOFT_STATE_REFUSED, reason=str(error))
        self._connect(None)

    def _connect(self, connection: int | None) -> None:
        self.connection = connection
        self._changed.set()
        self._changed = trio.Event()

    async def make(self) -> None:
        """The table exists."""

    async def read(self, key: str, *, connection: int | None = None) -> Entry | None:
        instance, _, part = key.rpartition(".")
        try:
            async with self._reading:
                found = await self._rows.read(instance, int(part))
        except DatabaseUnavailable as error:
            raise BusUnavailable("the database does not answer") from error
        return None if found is None else Entry(found.value, found.revision)

    async def read_all(self, under: str = "") -> dict[str, Entry]:
        """Raises DatabaseUnavailable."""
        return {
            f"{one.instance}.{one.part}": Entry(one.value, one.revision)
            for one in await self._rows.read_all()
            if under in ("", one.instance)
        }

    async def write(
        self, key: str, value: bytes, *, revision: int, ttl_s: int, connection: int
    ) -> int:
        if connection != self.connection:
            raise BusUnavailable("the database did not answer")
        instance, _, part = key.rpartition(".")
        waiting = self._waiting[key] = _Waiting(SoftPart(instance, int(part), revision, value))
        self._wake.set()
        await waiting.done.wait()
        if waiting.failed:
            raise BusUnavailable("the database does not answer")
        if not waiting.revision:
            raise WrongRevision(key)
        return waiting.revision

    def forget(self, instance: str) -> None:
        """Deletes what is kept of the instance, soon."""
        self._forgotten[instance] = None
        self._wake.set()

    async def run(self) -> None:
        """Writes, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            waiting, self._waiting = self._waiting, {}
            forgotten = tuple(self._forgotten)
            parts = [one.part for one in waiting.values() if one.part.instance not in forgotten]
            revisions: dict[tuple[str, int], int] = {}
            failed = True
            try:
                if parts:
                    revisions = await self._rows.write(parts)
                if forgotten:
                    await self._rows.forget(forgotten)
                    for instance in forgotten:
                        self._forgotten.pop(instance, None)
                failed = False
            except DatabaseUnavailable as error:
                self._lost(error)
            finally:
                for one in waiting.values():
                    one.revision = revisions.get((one.part.instance, one.part.part), 0)
                    one.failed = failed and not one.revision
                    one.done.set()

    async def beat(self) -> None:
        """Notes that the server runs, for ever; and that the database answers again."""
        while True:
            try:
                await self._rows.note_alive()
            except DatabaseUnavailable as error:
                self._lost(error)
                await trio.sleep(AGAIN_S)
                continue
            if self.connection is None:
                self._connections += 1
                self._connect(self._connections)
                if self._forgotten:
                    self._wake.set()
            await trio.sleep(ALIVE_S)
