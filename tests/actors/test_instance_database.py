"""An instance and its record: changes, closing, ending, and the database being away."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from reileta.errors import (
    DatabaseUnavailable,
    InstanceInvalid,
    InstanceNotFound,
    NotQueued,
    PermissionDenied,
)
from reileta.records import InstanceChanges
from tests.actors.frames import data, left
from tests.actors.node_harness import ROOM, NodeHarness, principal, settle

OWNER = principal(0)


async def test_a_change_is_written_and_told(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    watcher = await harness.connect(9)
    await watcher.subscribe("update-instance")
    changes = InstanceChanges(title="New", tags=frozenset())
    record = await harness.node.instance_service.update(ROOM, OWNER, changes)
    await settle()
    assert record.title == "New"
    stored = harness.store.instances.records[ROOM]
    # As the rules settle it: no access tag is asked for, so the default one is written.
    assert stored.tags == record.tags == {"avr:public"}
    (update,) = watcher.sink.take()
    assert (update["data"]["title"], update["data"]["connected"]) == ("New", 1)
    with pytest.raises(PermissionDenied):
        await harness.node.instance_service.update(ROOM, principal(1), changes)
    assert one.received() == []


async def test_more_capacity_while_full_lets_more_in(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=2)
    await harness.crowd(1, 2)
    assert harness.node.directory.full() == {ROOM}
    with pytest.raises(InstanceInvalid):
        await harness.node.instance_service.update(ROOM, OWNER, InstanceChanges(capacity=1))
    await harness.node.instance_service.update(ROOM, OWNER, InstanceChanges(capacity=3))
    await harness.joined(3)
    assert harness.node.directory.occupancy(ROOM).connected == 3


async def test_a_change_that_comes_too_late_is_taken_back(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(1)
    instances = harness.store.instances
    two = await harness.connect(2)
    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()

        async def change() -> None:
            with pytest.raises(InstanceInvalid):
                await harness.node.instance_service.update(ROOM, OWNER, InstanceChanges(capacity=1))

        nursery.start_soon(change)
        await settle()
        await two.join()  # meanwhile
        instances.gate.set()
    await settle()
    assert instances.records[ROOM].capacity == 8
    assert instances.writes[-1] == "update capacity description tags title"


async def test_changes_take_effect_in_the_order_in_which_they_came(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(1)
    await settle()
    instances = harness.store.instances
    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()
        for title in "abc":
            nursery.start_soon(
                harness.node.instance_service.update, ROOM, OWNER, InstanceChanges(title=title)
            )
            await settle()
        harness.act(lambda actor: order.append(actor.parts.rules.record.title))
        order: list[str | None] = []
        instances.gate.set()
    assert order == [None]
    assert instances.records[ROOM].title == "c"
    harness.act(lambda actor: order.append(actor.parts.rules.record.title))
    await settle()
    assert order == [None, "c"]


async def test_without_the_database_nothing_changes_and_the_instance_goes_on(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    harness.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await harness.node.instance_service.update(ROOM, OWNER, InstanceChanges(title="New"))
    with pytest.raises(DatabaseUnavailable):
        await harness.node.instance_service.close(ROOM, OWNER)
    one.say(b"1")
    await settle()
    assert two.received() == [data(1)]
    three = await harness.joined(3)
    await three.leave()
    harness.store.instances.away = False
    await harness.node.instance_service.update(ROOM, OWNER, InstanceChanges(title="New"))
    assert harness.store.instances.records[ROOM].title == "New"
    await harness.joined(4)
    await harness.node.instance_service.close(ROOM, OWNER)
    assert harness.store.instances.records == {}


async def test_closing_tells_everyone_inside(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    with pytest.raises(PermissionDenied):
        await harness.node.instance_service.close(ROOM, principal(1))
    await harness.node.instance_service.close(ROOM, OWNER)
    await settle()
    assert one.received() == [left("closed")]
    assert two.received() == [left("closed"), left("closed")]
    assert (one.sink.seats, two.sink.seats) == ({}, {})
    assert harness.node.metrics.instances == harness.node.metrics.players == 0
    with pytest.raises(InstanceNotFound):
        await one.join()
    assert harness.node.sessions.recoveries["s_1.0"].joined_instances == {}


async def test_closing_and_changing_at_once_ends_in_order(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    instances = harness.store.instances
    failed: list[type[Exception]] = []

    async def change() -> None:
        try:
            await harness.node.instance_service.update(ROOM, OWNER, InstanceChanges(title="x"))
        except InstanceNotFound as error:
            failed.append(type(error))

    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()
        nursery.start_soon(harness.node.instance_service.close, ROOM, OWNER)
        await settle()
        nursery.start_soon(change)
        await settle()
        with pytest.raises(InstanceNotFound):
            await (await harness.connect(2)).join()
        instances.gate.set()
    await settle()
    assert failed == [InstanceNotFound]
    assert one.received() == [left("closed")]
    assert harness.node.metrics.actor_crashes == 0


async def test_an_instance_that_stands_empty_ends(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    assert harness.store.instances.empty_since[ROOM] is None
    await one.leave()
    await trio.sleep(30)
    assert harness.store.instances.empty_since[ROOM] is not None
    await one.join()
    await settle()
    await one.leave()
    await trio.sleep(59)
    assert ROOM in harness.store.instances.records
    await trio.sleep(2)
    assert harness.store.instances.records == {}
    assert harness.node.metrics.instances == 0
    with pytest.raises(InstanceNotFound):
        await one.join()


@pytest.mark.parametrize("runs", [False, True])
async def test_an_instance_that_nobody_has_entered_lives_ten_minutes(
    harness: NodeHarness, autojump_clock: MockClock, runs: bool
) -> None:
    """Its maker loads its world for a while; `runs`: someone has tried to enter, and could not."""
    instances = harness.store.instances
    instances.records[ROOM] = replace(instances.records[ROOM], entered=False)
    if runs:
        with pytest.raises(NotQueued):
            await harness.node.instance_service.withdraw(ROOM, principal(1))
        assert harness.node.metrics.instances == 1
    await trio.sleep(599)
    assert ROOM in instances.records
    await trio.sleep(12)
    assert instances.records == {}
    assert harness.node.metrics.instances == 0


async def test_an_instance_that_was_entered_ends_as_soon_as_any_other(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    instances = harness.store.instances
    instances.records[ROOM] = replace(instances.records[ROOM], entered=False)
    one = await harness.joined(1)
    await one.leave()
    await trio.sleep(59)
    assert instances.records[ROOM].entered
    await trio.sleep(2)
    assert instances.records == {}


async def test_that_it_was_entered_is_known_after_a_crash_of_its_actor(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    instances = harness.store.instances
    instances.records[ROOM] = replace(instances.records[ROOM], entered=False)
    one = await harness.joined(1)
    instances.records[ROOM] = replace(instances.records[ROOM], entered=False)  # not written
    await one.leave()
    harness.crash()
    await trio.sleep(63)
    assert instances.records == {}


async def test_a_permanent_one_stays(harness: NodeHarness, autojump_clock: MockClock) -> None:
    harness.room(ROOM, "avr:permanent")
    one = await harness.joined(1)
    await one.leave()
    await trio.sleep(1000)
    assert ROOM in harness.store.instances.records


async def test_a_join_at_the_moment_of_the_end_finds_nothing_or_an_instance(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    await one.leave()
    harness.store.instances.gate = gate = trio.Event()
    await trio.sleep(60.5)  # it ends; its record is about to be deleted

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_not_found, harness)
        await settle()
        gate.set()
    await settle()
    assert harness.leftovers().keys() <= {"sessions", "recoveries", "sockets"}


async def expect_not_found(harness: NodeHarness) -> None:
    two = await harness.connect(2)
    with pytest.raises(InstanceNotFound):
        await two.join()


async def test_one_that_ends_while_the_database_is_away_is_found_by_the_sweep(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    harness.store.instances.away = True
    await one.leave()
    await trio.sleep(100)
    assert harness.node.metrics.instances == 0
    assert harness.store.instances.empty_since[ROOM] is None  # nothing could be noted
    harness.store.instances.away = False
    await trio.sleep(80)
    assert harness.store.instances.records == {}


async def test_one_that_was_given_up_is_found_by_the_sweep(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    await harness.joined(1)
    for _ in range(3):
        harness.crash()
        await trio.sleep(1)
    assert harness.node.metrics.instances == 0
    await trio.sleep(80)
    assert harness.store.instances.records == {}


async def test_the_sweep_lets_those_alone_that_live(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    harness.store.instances.empty_since[ROOM] = 0  # a note that went wrong
    await trio.sleep(1000)
    assert one.received() == []
    assert ROOM in harness.store.instances.records


@pytest.mark.parametrize("step", ["in_use", "mark_empty", "abandoned", "delete_abandoned"])
async def test_one_that_is_entered_during_a_sweep_stays(
    harness: NodeHarness, autojump_clock: MockClock, step: str
) -> None:
    """The sweep pauses after each of its reads, and before each of its writes."""
    instances = harness.store.instances
    instances.empty_since[ROOM] = None if step in ("in_use", "mark_empty") else 0
    reached, gate = trio.Event(), trio.Event()
    real = getattr(instances, step)

    async def paused(*arguments: object) -> object:
        result = await real(*arguments) if step in ("in_use", "abandoned") else None
        reached.set()
        await gate.wait()
        return await real(*arguments) if result is None else result

    setattr(instances, step, paused)
    await reached.wait()
    one = await harness.connect(1)
    outcomes: list[str] = []

    async def join() -> None:
        try:
            await one.join()
            outcomes.append("joined")
        except InstanceNotFound:
            outcomes.append("not found")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join)
        await settle()
        gate.set()
    await settle()
    if step == "delete_abandoned":
        # The sweep was first: nobody is inside of an instance that is gone.
        assert outcomes == ["not found"]
        assert harness.node.metrics.instances == 0
    else:
        assert outcomes == ["joined"]
        assert instances.empty_since[ROOM] is None
        assert ROOM in instances.records


async def test_one_deleted_while_it_started_closes(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.connect(1)
    instances = harness.store.instances
    occupied = instances.occupied

    async def deleted_first(id_: str, since_ms: int | None, *, entered: bool) -> bool:
        await trio.sleep(0.1)  # by then somebody is inside
        instances.records.clear()
        return await occupied(id_, since_ms, entered=entered)

    instances.occupied = deleted_first  # type: ignore[method-assign]
    await one.join()
    await trio.sleep(1)
    assert one.received()[-1] == left("closed")
    assert one.sink.seats == {}
    assert harness.node.metrics.instances == 0
