"""What of an instance is written down; with the actor: test_instance_database.py."""

from __future__ import annotations

from typing import cast

import outcome
import pytest
import trio

from actors.instance.persistence import Persistence
from actors.instance.recovery import RecoveryState
from actors.runtime.jobs import LIMIT, SerialJobs
from reileta.errors import DatabaseUnavailable, Overloaded
from reileta.records import Instance, InstanceChanges
from reileta.store import Store
from tests.actors.helpers import HeldWork
from tests.actors.nodes import EPOCH_MS, ROOM, FakeStore

RECORD = Instance(ROOM, "hall", None, None, "w_1", "u_1", 4, frozenset({"avr:public"}), 0, 0)


class Desk:
    """A keeper whose writes are done when it is told to."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.store.instances.records[ROOM] = RECORD
        self.context = HeldWork()
        self.vanished = 0
        self.jobs = SerialJobs(self.context)
        self.persistence = Persistence(
            RecoveryState(RECORD), cast(Store, self.store), self.jobs, self.count_vanished
        )

    def count_vanished(self) -> None:
        self.vanished += 1

    async def work(self) -> list[str]:
        """Does all that waits; what was written."""
        self.store.instances.writes.clear()
        while self.context:
            await self.context.finish()
        return self.store.instances.writes


async def test_only_the_newest_note_is_written() -> None:
    instance_service = Desk()
    since: list[int | None] = [EPOCH_MS]
    instance_service.persistence.note(lambda: since[-1])
    for one in (None, EPOCH_MS + 1, None):  # while the first is being written
        since.append(one)
        instance_service.persistence.note(lambda: since[-1])
    assert await instance_service.work() == ["empty", "occupied"]
    instance_service.persistence.note(lambda: None)
    assert await instance_service.work() == []  # it is known already


async def test_a_note_that_failed_is_made_up_for_by_the_next() -> None:
    instance_service = Desk()
    instance_service.store.instances.away = True
    instance_service.persistence.note(lambda: None)
    assert await instance_service.work() == []
    instance_service.store.instances.away = False
    instance_service.persistence.note(lambda: None)
    assert await instance_service.work() == ["occupied"]


async def test_a_note_finds_out_that_the_record_is_gone() -> None:
    instance_service = Desk()
    instance_service.store.instances.records.clear()
    instance_service.persistence.note(lambda: None)
    await instance_service.work()
    assert instance_service.vanished == 1


async def test_a_change_is_written_as_it_is_planned_and_can_be_taken_back() -> None:
    instance_service = Desk()
    outcomes: list[outcome.Outcome[object]] = []
    changes = InstanceChanges(title="asked", tags=frozenset())
    planned = Instance(ROOM, "hall", "planned", None, "w_1", "u_1", 9, RECORD.tags, 0, 0)
    instance_service.persistence.change(planned, changes, outcomes.append)
    instance_service.persistence.restore(lambda: RECORD)
    instance_service.persistence.delete(outcomes.append)
    assert await instance_service.work() == [
        "update tags title",
        "update capacity description tags title",
        "delete",
    ]
    written = outcomes[0].unwrap()
    assert isinstance(written, Instance)
    assert (written.title, written.capacity, written.tags) == ("planned", 4, RECORD.tags)
    assert outcomes[1].unwrap() is True


async def test_changes_that_can_not_be_written_fail_alone() -> None:
    instance_service = Desk()
    outcomes: list[outcome.Outcome[object]] = []
    instance_service.store.instances.away = True
    instance_service.persistence.change(RECORD, InstanceChanges(title="x"), outcomes.append)
    await instance_service.work()
    with pytest.raises(DatabaseUnavailable):
        outcomes[0].unwrap()
    for _ in range(LIMIT):
        instance_service.persistence.change(RECORD, InstanceChanges(title="x"), outcomes.append)
    with pytest.raises(Overloaded):
        instance_service.persistence.change(RECORD, InstanceChanges(title="x"), outcomes.append)
    await trio.lowlevel.checkpoint()
