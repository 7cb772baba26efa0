"""Reads and writes an instance's rows in the database.

One `SerialJobs` does all writes of an instance, in the order of its decisions. A write that fails
because the database is down fails alone, and the instance keeps running.

**The record.** A change of it, or the end of the instance, takes effect after the commit.
`note_empty` writes since when the instance is empty, so that the node's sweep finds it after a
crash.

**Moderation** (bans, mutes, moderators, the moderation log) takes effect at once; its requester is
answered after the commit. Writes that gather during a transaction share the next one, in order.
If the database is down, the requester gets the error, and the write is tried again until it
succeeds: so memory and database agree in the end, even if nobody asks again.
A request is answered with the first error of any of its writes. If the record is gone, the actor
gets `RecordGone`, and closes the instance.
In a cluster, a request has a deed. If it comes again, its answer is looked up before anything is
decided: so it is carried out once, also if the host that did it has died since.

Pending writes outlive a crash in `RecoveryState.moderation_writes`. Overflow policy: `ensure_room`
refuses requests while `MODERATION_LIMIT` writes are pending; decisions of the rules themselves,
such as the end of a ban or a mute, are always taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias, cast

import outcome

from actors.instance.messages import RecordGone, RetryWrites
from actors.instance.parts import InstanceParts
from actors.instance.recovery import PendingWrite, RecoveryState, WhenDurable
from actors.runtime import SerialJobs
from reileta.errors import DatabaseUnavailable, InstanceNotFound, Overloaded, ReiletaError
from reileta.ids import user_ref
from reileta.records import (
    UNSET,
    Ban,
    Deed,
    InstanceChanges,
    InstanceRecord,
    LiftBan,
    LiftMute,
    Moderation,
    ModerationWrite,
    ModeratorAddition,
    ModeratorRemoval,
    MuteRecord,
    Unset,
)
from reileta.rules.instance.events import (
    BannedUser,
    InstanceEvent,
    Muted,
    RoleChanged,
    Unbanned,
    Unmuted,
)
from reileta.store import Store

MODERATION_LIMIT: Final = 1024
RETRY_S: Final = 2.0
"""How long after a failure the pending writes are tried again, unless a new one comes before."""

Then: TypeAlias = Callable[[outcome.Outcome[object]], None]


async def load(recovery: RecoveryState, store: Store) -> bool:
    """Reads record, bans, mutes and moderators into the recovery state; returns whether there is
    a record.

    After a crash the state keeps its last values if the database is down or has no record.

    Raises:
        InstanceNotFound, DatabaseUnavailable: at the first start.
    """
    first = recovery.fanout is None
    id_ = recovery.record.id
    try:
        record = await store.instances.get(id_)
        if record is None:
            if first:
                raise InstanceNotFound
            return False
        bans = tuple(await store.bans.of(id_))
        mutes = tuple(await store.mutes.of(id_))
        moderators = tuple(await store.moderators.of(id_))
    except DatabaseUnavailable:
        if first:
            raise
    else:
        # A lower capacity may have been written that could no longer take effect.
        capacity = record.capacity if first else max(record.capacity, len(recovery.seated))
        entered = record.entered or (recovery.rules is not None and recovery.rules.entered)
        recovery.record = replace(record, capacity=capacity, entered=entered)
        recovery.bans, recovery.mutes, recovery.moderators = bans, mutes, moderators
    return True


class Persistence:
    """The writes of one incarnation of an instance."""

    def __init__(self, parts: InstanceParts) -> None:
        self._parts = parts
        self._id = parts.id
        self._writes = parts.config.writes(parts.recovery)
        self._jobs = SerialJobs(parts.context)
        self._noted: tuple[int | None, bool] | Unset = UNSET
        self._noting = False
        self._pending = parts.recovery.moderation_writes
        self._writing = False
        self._batch = 0  # how many of the pending writes the transaction at work has

    # The record --------------------------------------------------------------------------------

    def update(
        self,
        planned: InstanceRecord,
        changes: InstanceChanges,
        then: Then,
        deed: Deed | None = None,
    ) -> None:
        """Writes the fields that change, with the values of `planned`.

        The rules may plan another value than the requested one. Raises Overloaded.
        """
        fields = {name: getattr(planned, name) for name in changes.given()}
        self._jobs.ensure_room()
        self._jobs.add(lambda: self._writes.update(_id_of(deed), **fields), then)

    def restore(self) -> None:
        """Writes the record in force, after an update that could not take effect."""

        async def write() -> InstanceRecord:
            record = self._parts.rules.record
            return await self._writes.update(
                title=record.title,
                description=record.description,
                capacity=record.capacity,
                tags=record.tags,
            )

        self._jobs.add(write, _ignore)

    def delete(self, then: Then | None = None, deed: Deed | None = None) -> None:
        """Deletes the record."""
        self._jobs.add(lambda: self._writes.delete(_id_of(deed)), then or _ignore)

    def look_up(self, deed: Deed, then: Callable[[outcome.Outcome[bytes | None]], None]) -> None:
        """Reads the answer of a deed that may be done, after the writes that are under way. Raises
        Overloaded."""
        self._jobs.ensure_room()
        self._jobs.add(lambda: self._writes.answer(deed.id), then)

    def note_empty(self, then: Callable[[bool], None]) -> None:
        """Writes since when the instance is empty, or that somebody is inside, if that changed;
        and whether anybody ever was.

        One such write waits or runs at most. `then(exists)` is called after each successful one,
        with whether the record still exists; the caller notes again. A failed write is repeated
        with the next change, or made up for by the sweep of the node.
        """
        rules = self._parts.rules
        since, entered = state = rules.empty_since, rules.entered
        if self._noting or state == self._noted:
            return
        self._noting = True

        def noted(result: outcome.Outcome[bool]) -> None:
            self._noting = False
            if isinstance(result, outcome.Value):
                self._noted = state
                then(result.value)

        self._jobs.add(lambda: self._writes.occupied(since, entered=entered), noted)

    # Moderation --------------------------------------------------------------------------------

    def record(self, event: InstanceEvent) -> None:
        """Writes the event, if it is of a kind that is durable."""
        match event:
            case BannedUser(ban):
                self.add(
                    Ban(
                        ban.instance_id,
                        self._ref(ban.user),
                        ban.until,
                        ban.reason,
                        self._ref(ban.by),
                        ban.created_at,
                    )
                )
            case Unbanned(user):
                self.add(LiftBan(self._id, self._ref(user)))
            case Muted(user, until, reason, by, created_at):
                muted, muter = self._ref(user), self._ref(by)
                self.add(MuteRecord(self._id, muted, until, reason, muter, created_at))
            case Unmuted(user):
                self.add(LiftMute(self._id, self._ref(user)))
            case RoleChanged(user, by=by):
                stored = self._ref(user)
                if user in self._parts.rules.roles.moderators:
                    now = self._parts.now()
                    self.add(ModeratorAddition(self._id, stored, self._ref(by), now))
                else:
                    self.add(ModeratorRemoval(self._id, stored))

    def ensure_room(self) -> None:
        """Raises:
        Overloaded: as many moderation writes are pending as may be.
        """
        if len(self._pending) >= MODERATION_LIMIT:
            raise Overloaded

    def add(self, write: ModerationWrite) -> None:
        """Writes a decision that is in force already."""
        self._pending.append(PendingWrite(write))
        self.write_pending()

    @property
    def idle(self) -> bool:
        """Whether nothing is to be written, nor being written."""
        return not self._pending and not len(self._jobs)

    @property
    def pending(self) -> int:
        """The number of moderation writes that are not known to be durable."""
        return len(self._pending)

    def when_durable(self, writes: int, then: WhenDurable) -> None:
        """Calls `then(None)` once all decisions until now are durable, or `then(why they are not)`
        after the first attempt. `writes`: how many of the newest pending ones belong to it."""
        if self._pending:
            self._pending[-1].then.append((then, writes))
        else:
            then(None)

    def when_deed_durable(self, deed: Deed, then: WhenDurable) -> bool:
        """As `when_durable`, for a moderation that came with that deed; False: none is pending."""
        for pending in self._pending:
            if isinstance(pending.write, Moderation) and pending.write.deed == deed.id:
                pending.then.append((then, 1))
                self.write_pending()
                return True
        return False

    def resume(self) -> None:
        """Writes what was pending at a crash. Its requesters have been answered by the crash."""
        for pending in self._pending:
            pending.then.clear()
        self.write_pending()

    def write_pending(self) -> None:
        """Starts a transaction with the pending writes, unless one is at work."""
        if self._pending and not self._writing:
            self._writing = True
            self._jobs.add(self._write, self._written)

    async def _write(self) -> dict[int, ReiletaError]:
        self._batch = len(self._pending)
        return await self._writes.moderate([pending.write for pending in self._pending])

    def _written(self, result: outcome.Outcome[dict[int, ReiletaError]]) -> None:
        self._writing = False
        batch = self._pending[: self._batch]
        if isinstance(result, outcome.Error):
            error = cast(ReiletaError, result.error)  # the only errors that work can end with
            for pending in batch:
                waiting, pending.then = pending.then, []
                for then, _ in waiting:
                    then(error)
            self._parts.context.after(RETRY_S, RetryWrites())
            return
        refused = result.unwrap()
        del self._pending[: self._batch]
        for index, pending in enumerate(batch):
            for then, writes in pending.then:
                own = range(index + 1 - writes, index + 1)
                then(next((refused[one] for one in own if one in refused), None))
        if any(isinstance(error, InstanceNotFound) for error in refused.values()):
            self._parts.context.after(0, RecordGone())
        self.write_pending()

    def _ref(self, user: str) -> str:
        """The user as records name it."""
        return user_ref(user, self._parts.config.address)


def _id_of(deed: Deed | None) -> str | None:
    return None if deed is None else deed.id


def _ignore(_: object) -> None:
    """The outcome does not matter."""
