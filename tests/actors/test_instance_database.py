"""An instance and its record: changes, closing, ending, and the database being away."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from reileta.errors import (
    DatabaseUnavailable,
    InstanceInvalid,
    InstanceNotFound,
    PermissionDenied,
)
from reileta.records import InstanceChanges
from tests.actors.nodes import ROOM, World, principal, settle

OWNER = principal(0)


async def test_a_change_is_written_and_told(world: World, autojump_clock: MockClock) -> None:
    one = await world.joined(1)
    watcher = await world.connect(9)
    await watcher.subscribe("update-instance")
    changes = InstanceChanges(title="New", tags=frozenset())
    record = await world.node.instance_service.update(ROOM, OWNER, changes)
    await settle()
    assert record.title == "New"
    stored = world.store.instances.records[ROOM]
    # As the rules settle it: no access tag is asked for, so the default one is written.
    assert stored.tags == record.tags == {"avr:public"}
    (update,) = watcher.sink.take()
    assert (update["data"]["title"], update["data"]["connected"]) == ("New", 1)
    with pytest.raises(PermissionDenied):
        await world.node.instance_service.update(ROOM, principal(1), changes)
    assert one.said() == []


async def test_more_capacity_while_full_lets_more_in(
    world: World, autojump_clock: MockClock
) -> None:
    world.room(capacity=2)
    await world.crowd(1, 2)
    assert world.node.directory.full() == {ROOM}
    with pytest.raises(InstanceInvalid):
        await world.node.instance_service.update(ROOM, OWNER, InstanceChanges(capacity=1))
    await world.node.instance_service.update(ROOM, OWNER, InstanceChanges(capacity=3))
    await world.joined(3)
    assert world.node.directory.occupancy(ROOM).connected == 3


async def test_a_change_that_comes_too_late_is_taken_back(
    world: World, autojump_clock: MockClock
) -> None:
    await world.joined(1)
    instances = world.store.instances
    two = await world.connect(2)
    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()

        async def change() -> None:
            with pytest.raises(InstanceInvalid):
                await world.node.instance_service.update(ROOM, OWNER, InstanceChanges(capacity=1))

        nursery.start_soon(change)
        await settle()
        await two.join()  # meanwhile
        instances.gate.set()
    await settle()
    assert instances.records[ROOM].capacity == 8
    assert instances.writes[-1] == "update capacity description tags title"


async def test_changes_take_effect_in_the_order_in_which_they_came(
    world: World, autojump_clock: MockClock
) -> None:
    await world.joined(1)
    await settle()
    instances = world.store.instances
    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()
        for title in "abc":
            nursery.start_soon(
                world.node.instance_service.update, ROOM, OWNER, InstanceChanges(title=title)
            )
            await settle()
        world.act(lambda actor: order.append(actor.parts.rules.record.title))
        order: list[str | None] = []
        instances.gate.set()
    assert order == [None]
    assert instances.records[ROOM].title == "c"
    world.act(lambda actor: order.append(actor.parts.rules.record.title))
    await settle()
    assert order == [None, "c"]


async def test_without_the_database_nothing_changes_and_the_instance_goes_on(
    world: World, autojump_clock: MockClock
) -> None:
    one, two = await world.crowd(1, 2)
    world.store.instances.away = True
    with pytest.raises(DatabaseUnavailable):
        await world.node.instance_service.update(ROOM, OWNER, InstanceChanges(title="New"))
    with pytest.raises(DatabaseUnavailable):
        await world.node.instance_service.close(ROOM, OWNER)
    one.say(b"1")
    await settle()
    assert two.said() == ["data 1"]
    three = await world.joined(3)
    await three.leave()
    world.store.instances.away = False
    await world.node.instance_service.update(ROOM, OWNER, InstanceChanges(title="New"))
    assert world.store.instances.records[ROOM].title == "New"
    await world.joined(4)
    await world.node.instance_service.close(ROOM, OWNER)
    assert world.store.instances.records == {}


async def test_closing_tells_everyone_inside(world: World, autojump_clock: MockClock) -> None:
    one, two = await world.crowd(1, 2)
    with pytest.raises(PermissionDenied):
        await world.node.instance_service.close(ROOM, principal(1))
    await world.node.instance_service.close(ROOM, OWNER)
    await settle()
    assert one.said() == ["left closed"]
    assert two.said() == ["left closed", "left closed"]
    assert (one.sink.seats, two.sink.seats) == ({}, {})
    assert world.node.metrics.instances == world.node.metrics.players == 0
    with pytest.raises(InstanceNotFound):
        await one.join()
    assert world.node.sessions.recoveries["s_1.0"].joined_instances == {}


async def test_closing_and_changing_at_once_ends_in_order(
    world: World, autojump_clock: MockClock
) -> None:
    one = await world.joined(1)
    instances = world.store.instances
    failed: list[type[Exception]] = []

    async def change() -> None:
        try:
            await world.node.instance_service.update(ROOM, OWNER, InstanceChanges(title="x"))
        except InstanceNotFound as error:
            failed.append(type(error))

    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()
        nursery.start_soon(world.node.instance_service.close, ROOM, OWNER)
        await settle()
        nursery.start_soon(change)
        await settle()
        with pytest.raises(InstanceNotFound):
            await (await world.connect(2)).join()
        instances.gate.set()
    await settle()
    assert failed == [InstanceNotFound]
    assert one.said() == ["left closed"]
    assert world.node.metrics.actor_crashes == 0


async def test_an_instance_that_stands_empty_ends(world: World, autojump_clock: MockClock) -> None:
    one = await world.joined(1)
    assert world.store.instances.empty_since[ROOM] is None
    await one.leave()
    await trio.sleep(30)
    assert world.store.instances.empty_since[ROOM] is not None
    await one.join()
    await settle()
    await one.leave()
    await trio.sleep(59)
    assert ROOM in world.store.instances.records
    await trio.sleep(2)
    assert world.store.instances.records == {}
    assert world.node.metrics.instances == 0
    with pytest.raises(InstanceNotFound):
        await one.join()


async def test_a_permanent_one_stays(world: World, autojump_clock: MockClock) -> None:
    world.room(ROOM, "avr:permanent")
    one = await world.joined(1)
    await one.leave()
    await trio.sleep(1000)
    assert ROOM in world.store.instances.records


async def test_a_join_at_the_moment_of_the_end_finds_nothing_or_an_instance(
    world: World, autojump_clock: MockClock
) -> None:
    one = await world.joined(1)
    await one.leave()
    world.store.instances.gate = gate = trio.Event()
    await trio.sleep(60.5)  # it ends; its record is about to be deleted

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_not_found, world)
        await settle()
        gate.set()
    await settle()
    assert world.leftovers().keys() <= {"sessions", "recoveries", "sockets"}


async def expect_not_found(world: World) -> None:
    two = await world.connect(2)
    with pytest.raises(InstanceNotFound):
        await two.join()


async def test_one_that_ends_while_the_database_is_away_is_found_by_the_sweep(
    world: World, autojump_clock: MockClock
) -> None:
    one = await world.joined(1)
    world.store.instances.away = True
    await one.leave()
    await trio.sleep(100)
    assert world.node.metrics.instances == 0
    assert world.store.instances.empty_since[ROOM] is None  # nothing could be noted
    world.store.instances.away = False
    await trio.sleep(80)
    assert world.store.instances.records == {}


async def test_one_that_was_given_up_is_found_by_the_sweep(
    world: World, autojump_clock: MockClock
) -> None:
    await world.joined(1)
    for _ in range(3):
        world.crash()
        await trio.sleep(1)
    assert world.node.metrics.instances == 0
    await trio.sleep(80)
    assert world.store.instances.records == {}


async def test_the_sweep_lets_those_alone_that_live(
    world: World, autojump_clock: MockClock
) -> None:
    one = await world.joined(1)
    world.store.instances.empty_since[ROOM] = 0  # a note that went wrong
    await trio.sleep(1000)
    assert one.said() == []
    assert ROOM in world.store.instances.records


async def test_one_deleted_while_it_started_closes(world: World, autojump_clock: MockClock) -> None:
    one = await world.connect(1)
    instances = world.store.instances
    occupied = instances.occupied

    async def deleted_first(id_: str, since_ms: int | None) -> bool:
        await trio.sleep(0.1)  # by then somebody is inside
        instances.records.clear()
        return await occupied(id_, since_ms)

    instances.occupied = deleted_first  # type: ignore[method-assign]
    await one.join()
    await trio.sleep(1)
    assert one.said()[-1] == "left closed"
    assert one.sink.seats == {}
    assert world.node.metrics.instances == 0
