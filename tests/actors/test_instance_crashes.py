"""A crash of an instance: who was inside stays, under the same id, and nobody else notices."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from actors.delivery.batch import Batch
from actors.instance.frames import InstanceFrames
from actors.membership import AddMember, RemoveMember
from actors.runtime.errors import ActorCrashed
from actors.session.messages import Join
from reileta.errors import Overloaded
from reileta.records import InstanceRecord
from reileta.rules.identity import Visitor
from tests.actors.frames import ROLES, data, failed, join, joined, leave, left, restored
from tests.actors.node_harness import ROOM, NodeHarness, fail, open_harness, settle, user_at
from tests.actors.probe import Boom

OTHER = ROOM[:-1] + "2"


async def test_players_stay_with_their_ids_and_are_told_of_all(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, three = await harness.crowd(1, 2, 3)
    players = [client.sink.seats[ROOM].player for client in (one, two, three)]
    one.say(b"1", key="k")
    await settle()
    for client in (one, two, three):
        client.sink.take()
    harness.crash()
    await trio.sleep(1)
    for client, player in zip((one, two, three), players, strict=True):
        (restored,) = client.sink.take()
        assert "state" not in restored
        assert restored["command"] == "instance-restored"
        assert restored["subgroup"] == ROOM
        assert restored["data"]["player"] == player == client.sink.seats[ROOM].player
        assert [one["player"] for one in restored["data"]["players"]] == players
        assert restored["data"]["retained"] == []
    one.say(b"2")
    await settle()
    assert (two.received(), three.received()) == ([data(2)], [data(2)])
    assert harness.node.directory.occupancy(ROOM).connected == 3


async def test_siblings_notice_nothing(harness: NodeHarness, autojump_clock: MockClock) -> None:
    harness.room(OTHER)
    one = await harness.joined(1)
    other, friend = await harness.connect(2), await harness.connect(3)
    await other.join(OTHER)
    await friend.join(OTHER)
    await settle()
    other.sink.take()
    friend.sink.take()
    harness.crash()
    other.say(b"1", instance=OTHER)
    await trio.sleep(1)
    assert (other.received(), friend.received()) == ([], [data(1)])
    assert one.received() == [restored("U1")]


async def test_what_was_handled_before_the_crash_is_said(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, three = await harness.crowd(1, 2, 3)
    four = await harness.connect(4)
    visitor = Visitor("s_4.0", user_at(4), "U4")
    one.say(b"1", state=b"5")  # all in one drain
    harness.instance.tell(RemoveMember("s_2.0", two.sink, b"2"))
    harness.instance.tell(AddMember(visitor, four.sink, four.session, b"1"))
    harness.crash()
    await trio.sleep(1)
    assert one.received() == [data(state=5), left("left"), joined("U4"), restored("U1", "U3", "U4")]
    assert two.received() == [data(1), leave(state=2)]
    assert three.received() == [data(1), left("left"), joined("U4"), restored("U1", "U3", "U4")]
    assert four.received() == [join("U1", "U3", "U4", state=1), restored("U1", "U3", "U4")]


async def test_the_message_at_fault_is_answered_and_so_are_requests(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    seat = one.sink.seats[ROOM]
    seat.send_data(one.sink, cast(bytes, None), None, None, None, b"4")
    await trio.sleep(1)
    assert one.received() == [failed("data", 16, state=4), restored("U1")]
    with pytest.raises(ActorCrashed):
        await harness.instance.ask(RemoveMember(cast(str, []), one.sink, None))


async def test_the_third_crash_in_ten_seconds_is_the_end(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    for _ in range(3):
        harness.crash()
        await trio.sleep(1)
    assert one.received() == [restored("U1", "U2"), restored("U1", "U2"), left("closed")]
    last = two.sink.take()[-1]
    assert last["data"]["note"] == "the instance failed"
    assert (one.sink.seats, two.sink.seats) == ({}, {})
    assert harness.node.directory.occupancy(ROOM).connected == harness.node.metrics.players == 0
    # The sessions know it as well: they hold on to nothing, and may come again.
    assert harness.node.sessions.recoveries["s_1.0"].joined_instances == {}
    assert await one.join() != player
    await settle()
    assert one.received() == [join("U1", state=1)]


async def test_crashes_far_apart_are_forgiven(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    for _ in range(6):
        harness.crash()
        await trio.sleep(11)
    assert one.received() == [restored("U1")] * 6


async def test_one_in_its_grace_has_it_after_the_crash_as_well(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    one.lose()
    await settle()
    harness.crash()
    await trio.sleep(5)
    again = await harness.connect(1)
    assert await again.join() == player
    again.lose()
    await trio.sleep(11)
    assert two.received(but=ROLES) == [restored("U1", "U2"), left("disconnected")]


async def test_a_socket_lost_during_the_crash_is_lost(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    harness.crash()
    one.lose()
    await trio.sleep(12)
    assert two.received(but=ROLES) == [restored("U1", "U2"), left("disconnected")]


async def test_a_restart_does_without_the_database(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    harness.store.instances.away = True
    harness.crash()
    await trio.sleep(1)
    one.say(b"1")
    await settle()
    assert two.received() == [restored("U1", "U2"), data(1)]


async def test_players_hear_of_the_restart_before_the_database_answers_anything_else(
    harness: NodeHarness, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await harness.joined(1)

    async def never(*_: Any, **__: Any) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(harness.store.instances, "occupied", never)
    harness.crash()
    await trio.sleep(1)
    assert one.received() == [restored("U1")]


async def test_an_instance_that_was_deleted_meanwhile_is_closed(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    harness.store.instances.records.clear()
    harness.crash()
    await trio.sleep(1)
    assert one.received()[-1] == left("closed")
    assert harness.node.metrics.instances == 0


async def test_more_inside_than_the_database_says_is_no_second_crash(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    records: dict[str, InstanceRecord] = harness.store.instances.records
    harness.room(capacity=1)
    assert records[ROOM].capacity == 1
    harness.crash()
    await trio.sleep(1)
    assert (one.received(), two.received()) == ([restored("U1", "U2")],) * 2
    assert harness.node.directory.full() == {ROOM}


async def test_an_empty_instance_ends_after_a_crash_as_well(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    await one.leave()
    await settle()
    harness.crash()
    await trio.sleep(62)
    assert harness.store.instances.records == {}
    assert harness.node.metrics.instances == 0


async def test_a_join_that_crashes_the_instance_leaves_no_place_behind(
    harness: NodeHarness, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await harness.joined(1), await harness.connect(2)
    with monkeypatch.context() as patch:
        patch.setattr("actors.instance.frames.InstanceFrames.welcome", fail_with_arguments)
        with pytest.raises(Overloaded):
            await two.join()
    await trio.sleep(1)
    assert ROOM not in harness.node.sessions.recoveries["s_2.0"].joined_instances
    await trio.sleep(15)
    assert harness.node.directory.occupancy(ROOM).connected == 1
    assert one.received()[-1] == left("disconnected")
    await two.session.ask(Join(two.sink, ROOM, b"1"))


def fail_with_arguments(*_: object) -> None:
    fail(None)


async def test_a_crash_between_seat_and_socket_restarts_once_without_a_grace(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """The master has a seat and no socket yet; without a grace, the restart takes the seat."""
    welcome_parts = InstanceFrames.welcome_parts
    failures = iter([Boom()])

    def fail_once(*args: Any) -> tuple[Batch, ...]:
        for failure in failures:
            raise failure
        return welcome_parts(*args)

    monkeypatch.setattr(InstanceFrames, "welcome_parts", fail_once)
    async with open_harness(monkeypatch, seat_grace_s=0) as harness:
        one = await harness.connect(1)
        with pytest.raises(ActorCrashed):
            await one.join()
        await trio.sleep(1)
        assert (harness.node.metrics.actor_crashes, harness.node.metrics.actor_restarts) == (1, 1)
        await harness.joined(2)
        assert harness.node.directory.occupancy(ROOM).master == user_at(2)
