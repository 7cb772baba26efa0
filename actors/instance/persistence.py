"""What of an instance is in the database, and stays there (DESIGN §4).

Its writes go through a `SerialJobs`: they take effect in the order of the instance's decisions.
What fails because the database is away fails alone; the instance goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import outcome

from actors.instance.recovery import RecoveryState
from actors.runtime.jobs import SerialJobs
from reileta.errors import DatabaseUnavailable, InstanceNotFound
from reileta.records import UNSET, Instance, InstanceChanges, Unset
from reileta.store import Store


class Persistence:
    """One incarnation's way to the record. `vanished` is called when it turns out to be gone."""

    def __init__(
        self, recovery: RecoveryState, store: Store, jobs: SerialJobs, vanished: Callable[[], None]
    ) -> None:
        self._recovery = recovery
        self._id = recovery.record.id
        self._store = store
        self._jobs = jobs
        self._vanished = vanished
        self._noted: int | Unset | None = UNSET
        self._noting = False

    async def load(self) -> bool:
        """Reads the record, its bans and moderators into the roster; whether there is a record.

        After a crash, what was last known serves while the database is away, or has none.

        Raises:
            InstanceNotFound, DatabaseUnavailable: at the first start.
        """
        recovery = self._recovery
        first = recovery.fanout is None
        try:
            record = await self._store.instances.get(self._id)
            if record is None:
                if first:
                    raise InstanceNotFound
                return False
            bans = tuple(await self._store.bans.of(self._id))
            moderators = tuple(await self._store.moderators.of(self._id))
        except DatabaseUnavailable:
            if first:
                raise
        else:
            # A lower capacity may have been written down that could not take effect any more.
            capacity = max(record.capacity, len(recovery.seated))
            recovery.record = replace(record, capacity=capacity)
            recovery.bans, recovery.moderators = bans, moderators
        return True

    def change(
        self,
        planned: Instance,
        changes: InstanceChanges,
        then: Callable[[outcome.Outcome[object]], None],
    ) -> None:
        """Writes what changes as it is planned, for the rules may settle on another value than the
        one that was asked for."""
        fields = {name: getattr(planned, name) for name in changes.given()}
        self._jobs.ensure_room()
        self._jobs.add(lambda: self._store.instances.update(self._id, **fields), then)

    def restore(self, record: Callable[[], Instance]) -> None:
        """Writes the record as it is in force, after a change that could not take effect."""

        async def write() -> Instance:
            now = record()
            return await self._store.instances.update(
                self._id,
                title=now.title,
                description=now.description,
                capacity=now.capacity,
                tags=now.tags,
            )

        self._jobs.add(write, lambda _: None)

    def delete(self, then: Callable[[outcome.Outcome[object]], None]) -> None:
        self._jobs.add(lambda: self._store.instances.delete(self._id), then)

    def note(self, empty_since: Callable[[], int | None]) -> None:
        """Notes since when nobody is inside (ms), or that someone is (None): the newest, one note
        at a time. A note that fails is made up for by the next one, or by the node's sweep."""
        since = empty_since()
        if self._noting or since == self._noted:
            return
        self._noting = True

        def noted(result: outcome.Outcome[object]) -> None:
            self._noting = False
            if isinstance(result, outcome.Error):
                return
            self._noted = since
            if isinstance(result, outcome.Value) and result.value is False:
                self._vanished()
            else:
                self.note(empty_since)

        self._jobs.add(lambda: self._store.instances.occupied(self._id, since), noted)
