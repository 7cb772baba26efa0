"""Sessions that come back, and sessions of the same user, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from actors.membership import SocketLost
from actors.runtime.errors import ActorStopped
from reileta.errors import InstanceFull
from tests.actors.frames import ROLES, data, joined, left
from tests.actors.node_harness import ROOM, NodeHarness, settle
from tests.actors.sinks import FakeSink


def silent() -> FakeSink:
    sink = FakeSink("silent")
    sink.silent = True
    return sink


async def test_300_players_come_back_and_each_gets_what_it_missed(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=400)
    speaker = await harness.joined(0)
    away = [await harness.joined(number) for number in range(1, 301)]
    for each in away:
        each.lose()
    await settle()
    for number in range(50):
        speaker.say(b'"%d %b"' % (number, b"x" * 1000))
        speaker.say(b"%d" % number, key="k")
    await settle()
    for number in range(1, 301):
        back = await harness.connect(number)
        await back.join()
        told = [one["data"] for one in back.sink.take() if one["command"] == "instance-data"]
        assert [one["data"].split()[0] for one in told] == [str(number) for number in range(50)]
    inside = harness.node.directory.occupancy(ROOM)
    assert inside.connected == 301


async def test_data_that_waited_when_the_instance_crashed_is_refused(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    (one,) = await harness.crowd(1)
    one.sink.take()
    harness.crash()
    one.say(b"1", state=b"7")
    await settle()
    one.say(b"2", state=b"8")
    await trio.sleep(1)  # until it runs again
    told = [each for each in one.sink.take() if "state" in each]
    answers = {each["state"]: each.get("error", {}).get("code") for each in told}
    assert answers == {7: 122, 8: None}


async def test_messages_outlive_a_crash_of_the_instance(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    two.lose()
    await settle()
    one.say(b"1")
    await settle()
    harness.crash()
    await settle()
    one.say(b"2")
    await settle()
    back = await harness.connect(2)
    await back.join()
    answer = next(each for each in back.sink.take() if each["command"] == "instance-join")
    assert "gap" not in answer["data"]


@pytest.mark.parametrize("speaker", [1, 2], ids=["another", "itself"])
async def test_what_others_say_while_a_socket_is_lost_in_the_same_drain_is_a_gap(
    harness: NodeHarness, autojump_clock: MockClock, speaker: int
) -> None:
    """It is written to a socket that is closed, and nothing else tells of it."""
    one, two = await harness.crowd(1, 2)
    (one if speaker == 1 else two).say(b"1")
    # The session's actor tells it too, perhaps only in the next drain.
    harness.instance.signal(SocketLost(two.principal.session_id, two.sink))
    two.lose()
    await settle()
    back = await harness.connect(2)
    await back.join()
    answer = next(each for each in back.sink.take() if each["command"] == "instance-join")
    assert answer["data"].get("gap", False) is (speaker == 1)


async def test_a_session_that_leaves_or_stays_away_too_long_is_owed_nothing(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    two.lose()
    await settle()
    one.say(b"1")
    await trio.sleep(11)
    back = await harness.joined(2)
    back.sink.take()
    one.say(b"2")
    await settle()
    assert back.received() == [data(2)]


async def test_a_closed_socket_frees_its_seat_within_two_seconds(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    two.sink.left = True
    two.lose()
    await trio.sleep(1)
    assert one.received(but=ROLES) == []
    await trio.sleep(1)
    assert one.received(but=ROLES) == [left("disconnected")]


async def test_a_full_instance_asks_a_users_other_client_before_it_refuses(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=2)
    one = await harness.joined(1)
    await harness.joined(2, sink=silent())
    one.sink.take()
    again = await harness.connect(2, session=1)
    began = trio.current_time()
    await again.join()
    assert 0.9 < trio.current_time() - began < 1.1
    assert one.received(but=ROLES) == [joined("U2"), left("disconnected")]
    third = await harness.connect(2, session=2)
    began = trio.current_time()
    with pytest.raises(InstanceFull):
        await third.join()
    assert trio.current_time() == began, "the other one answers"
    assert one.received(but=ROLES) == []


async def test_a_player_gives_way_only_if_its_user_is_still_there(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    await harness.joined(2, sink=silent())
    one.sink.take()
    again = await harness.joined(2, session=1)
    await again.leave()
    await trio.sleep(2)
    assert one.received(but=ROLES) == [joined("U2"), left("left")]


async def test_a_session_that_came_back_meanwhile_does_not_give_way(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    ghost = await harness.joined(2, sink=silent())
    await harness.joined(2, session=1)
    one.sink.take()
    await trio.sleep(0.3)
    ghost.lose()
    back = await harness.connect(2)
    await back.join()
    await trio.sleep(20)
    assert one.received(but=ROLES) == []


async def test_a_join_that_waits_for_an_answer_ends_with_its_instance(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=1)
    await harness.joined(2, sink=silent())
    again = await harness.connect(2, session=1)
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(ActorStopped):
                await again.join()

        nursery.start_soon(refused)
        await trio.sleep(0.5)
        harness.crash()
