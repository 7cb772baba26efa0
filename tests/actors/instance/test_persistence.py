"""What an instance writes; with its actor: test_instance_database.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import outcome
import pytest
import trio

from actors.delivery.fanout import Fanout
from actors.directory import Directory
from actors.hub.messages import HubMessage
from actors.instance.config import InstanceConfig
from actors.instance.messages import InstanceMessage, RecordGone, RetryWrites
from actors.instance.parts import InstanceParts
from actors.instance.persistence import MODERATION_LIMIT, RETRY_S, Persistence
from actors.instance.recovery import RecoveryState
from actors.runtime import Context, Message, Ref
from actors.runtime.jobs import LIMIT
from actors.server import LiveServer
from reileta.errors import (
    DatabaseUnavailable,
    InstanceNotFound,
    InvalidInput,
    Overloaded,
    ReiletaError,
)
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.records import (
    Ban,
    InstanceChanges,
    InstanceRecord,
    LiftBan,
    ModerationWrite,
    ModeratorRemoval,
)
from reileta.rules.instance.events import BannedUser, Joined, Unbanned
from reileta.store import Store
from tests.actors.node_harness import FakeDatabase, TrioClock
from tests.actors.probe import HeldWork
from tests.reileta.instances import HOME, filled, room, user, visitor


class HeldContext(HeldWork):
    """Its timers never fire."""

    oldest_at = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[tuple[float, Message]] = []

    def after(self, delay_s: float, message: Message) -> None:
        self.timers.append((delay_s, message))


class FakeDeeds:
    """`store.deeds`, which may refuse some."""

    def __init__(self, store: FakeDatabase) -> None:
        self._store = store
        self.written: list[list[ModerationWrite]] = []
        self.refused: dict[int, ReiletaError] = {}

    async def write(self, moderation_writes: Sequence[ModerationWrite]) -> dict[int, ReiletaError]:
        await self._store.instances.reach()
        self.written.append(list(moderation_writes))
        return self.refused


class Harness:
    """The persistence of an instance, whose work is done when a test says so."""

    def __init__(self) -> None:
        self.rules = room()
        self.store = FakeDatabase()
        self.store.instances.records["i_1"] = self.rules.record
        self.moderation_writes = FakeDeeds(self.store)
        self.store.moderation_writes = self.moderation_writes  # type: ignore[assignment]
        self.recovery = RecoveryState(self.rules.record)
        self.answers: list[tuple[str, type[Exception] | None]] = []
        self.noted: list[bool] = []
        self.start()

    def start(self) -> None:
        """A fresh incarnation."""
        self.context = HeldContext()
        directory = Directory(Metrics())
        config = InstanceConfig(
            store=cast(Store, self.store),
            clock=TrioClock(),
            server=LiveServer(HOME, secure=True, public_key=""),
            limits=self.rules.limits,
            directory=directory,
            metrics=Metrics(),
            activity=ActivityLog(TrioClock()),
            hub=cast(Ref[HubMessage], None),
        )
        context = cast(Context[InstanceMessage], self.context)
        parts = InstanceParts.make(config, context, self.recovery, self.rules, Fanout())
        self.persistence = Persistence(parts)

    def note(self) -> None:
        """Notes until there is nothing new, as the actor does."""

        def noted(exists: bool) -> None:
            self.noted.append(exists)
            if exists:
                self.note()

        self.persistence.note_empty(noted)

    def when_durable(self, name: str, writes: int = 1) -> None:
        self.persistence.when_durable(
            writes,
            lambda error: self.answers.append((name, None if error is None else type(error))),
        )

    async def work(self) -> list[str]:
        """Does all work that waits; returns what was written to the record."""
        self.store.instances.writes.clear()
        while self.context:
            await self.context.finish()
        return self.store.instances.writes


def deed(number: int) -> ModerationWrite:
    return ModeratorRemoval("i_1", f"u_{number}")


async def test_only_the_newest_note_is_written() -> None:
    harness = Harness()
    harness.note()
    (player,) = filled(harness.rules, 1)  # while the first is being written
    harness.note()
    harness.rules.leave(player.session, 5)
    harness.note()
    filled(harness.rules, 2)
    harness.note()
    assert await harness.work() == ["empty", "occupied"]
    harness.note()
    assert await harness.work() == []  # it is known already


async def test_a_note_that_failed_is_made_up_for_by_the_next() -> None:
    harness = Harness()
    harness.store.instances.away = True
    harness.note()
    assert await harness.work() == []
    harness.store.instances.away = False
    harness.note()
    assert await harness.work() == ["empty"]


async def test_a_note_finds_out_that_the_record_is_gone() -> None:
    harness = Harness()
    harness.store.instances.records.clear()
    harness.note()
    await harness.work()
    assert harness.noted == [False]


async def test_a_change_is_written_as_it_is_planned_and_can_be_taken_back() -> None:
    harness = Harness()
    record = harness.rules.record
    outcomes: list[outcome.Outcome[object]] = []
    changes = InstanceChanges(title="asked", tags=frozenset())
    planned = InstanceRecord("i_1", "room", "planned", None, "w_1", "u_1", 9, record.tags, 0, 0)
    harness.persistence.update(planned, changes, outcomes.append)
    harness.persistence.restore()
    harness.persistence.delete(outcomes.append)
    assert await harness.work() == [
        "update tags title",
        "update capacity description tags title",
        "delete",
    ]
    written = outcomes[0].unwrap()
    assert isinstance(written, InstanceRecord)
    assert (written.title, written.capacity, written.tags) == ("planned", 4, record.tags)
    assert outcomes[1].unwrap() is True


async def test_changes_that_can_not_be_written_fail_alone() -> None:
    harness = Harness()
    outcomes: list[outcome.Outcome[object]] = []
    harness.store.instances.away = True
    changes = InstanceChanges(title="x")
    harness.persistence.update(harness.rules.record, changes, outcomes.append)
    await harness.work()
    with pytest.raises(DatabaseUnavailable):
        outcomes[0].unwrap()
    for _ in range(LIMIT):
        harness.persistence.update(harness.rules.record, changes, outcomes.append)
    with pytest.raises(Overloaded):
        harness.persistence.update(harness.rules.record, changes, outcomes.append)
    await trio.lowlevel.checkpoint()


async def test_events_that_last_are_written_with_bare_ids() -> None:
    harness = Harness()
    player, _ = harness.rules.join(visitor(1), 0)
    harness.persistence.record(Joined(player, "master"))
    harness.persistence.record(BannedUser(Ban("i_1", user(2), 9, "spam", user(0), 5), True))
    harness.persistence.record(Unbanned(user(2), None))
    await harness.work()
    one, two = user(2).partition("@")[0], user(0).partition("@")[0]
    assert harness.moderation_writes.written == [
        [Ban("i_1", one, 9, "spam", two, 5), LiftBan("i_1", one)],
    ]


async def test_moderation_that_gathers_goes_together_and_each_is_answered() -> None:
    harness = Harness()
    for number in range(3):
        harness.persistence.add(deed(number))
        harness.when_durable(f"{number}")
    assert len(harness.context) == 1
    await harness.context.finish()
    assert harness.moderation_writes.written == [[deed(0), deed(1), deed(2)]]
    assert harness.answers == [("0", None), ("1", None), ("2", None)]
    assert (len(harness.context), harness.recovery.moderation_writes) == (0, [])
    harness.when_durable("nothing to wait for")
    assert harness.answers[-1] == ("nothing to wait for", None)


async def test_moderation_that_the_database_missed_is_written_later_in_order() -> None:
    harness = Harness()
    harness.store.instances.away = True
    harness.persistence.add(deed(0))
    harness.when_durable("0")
    await harness.context.finish()
    assert harness.answers == [("0", DatabaseUnavailable)]
    assert harness.context.timers == [(RETRY_S, RetryWrites())]
    harness.store.instances.away = False
    harness.persistence.add(deed(1))  # there is something new: it waits no longer
    harness.when_durable("1")
    await harness.context.finish()
    assert harness.moderation_writes.written == [[deed(0), deed(1)]]
    assert harness.answers[1:] == [("1", None)]
    harness.persistence.write_pending()  # the retry that was ordered finds nothing
    assert len(harness.context) == 0


async def test_moderation_that_is_refused_is_dropped_and_its_requester_answered() -> None:
    harness = Harness()
    harness.moderation_writes.refused = {0: InstanceNotFound()}
    for number in range(2):
        harness.persistence.add(deed(number))
        harness.when_durable(f"{number}")
    await harness.context.finish()
    assert harness.answers == [("0", InstanceNotFound), ("1", None)]
    assert harness.recovery.moderation_writes == []
    assert harness.context.timers == [(0, RecordGone())]


@pytest.mark.parametrize("refused", [1, 2, 3])
async def test_a_request_is_answered_with_the_error_of_any_of_its_writes(refused: int) -> None:
    harness = Harness()
    harness.moderation_writes.refused = {refused: InvalidInput()}
    harness.persistence.add(deed(0))
    harness.when_durable("before")
    for number in (1, 2, 3):
        harness.persistence.add(deed(number))
    harness.when_durable("three", 3)
    harness.when_durable("none of its own", 0)
    await harness.context.finish()
    assert harness.answers == [("before", None), ("three", InvalidInput), ("none of its own", None)]
    assert harness.context.timers == []


async def test_the_next_incarnation_writes_what_is_pending_and_answers_nobody() -> None:
    harness = Harness()
    harness.persistence.add(deed(0))
    harness.when_durable("0")
    harness.start()  # it crashed
    harness.persistence.resume()
    await harness.context.finish()
    assert (harness.moderation_writes.written, harness.answers) == ([[deed(0)]], [])


async def test_pending_moderation_is_bounded() -> None:
    harness = Harness()
    for number in range(MODERATION_LIMIT):
        harness.persistence.ensure_room()
        harness.persistence.add(deed(number))
    with pytest.raises(Overloaded):
        harness.persistence.ensure_room()
