"""An instance as an actor: coming, going, speaking, and what each one inside is told."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import trio
from trio.testing import MockClock

from reileta.errors import (
    Banned,
    InstanceFull,
    InstanceNotFound,
    NotAllowed,
    NotInInstance,
    Overloaded,
)
from reileta.protocol.frames import payload_of
from reileta.records import Ban
from tests.actors.frames import ROLES, data, failed, join, joined, leave, left, moderated
from tests.actors.node_harness import EPOCH_MS, ROOM, Client, NodeHarness, account, settle, user_at
from tests.actors.sinks import SlowSink


async def test_joiners_are_told_of_all_and_all_of_joiners(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.connect(1), await harness.connect(2)
    player = await one.join()
    await settle()
    (welcome,) = one.sink.take()
    assert welcome == {
        "state": 1,
        "command": "instance-join",
        "subgroup": ROOM,
        "data": {
            "instance": ROOM,
            "player": player,
            "role": "master",
            "players": [
                {
                    "player": player,
                    "user": user_at(1),
                    "displayname": "U1",
                    "role": "master",
                    "joined_at": harness.node.clock.now_ms(),
                }
            ],
            "retained": [],
        },
    }
    await two.join(state=None)
    await settle()
    assert (one.received(), two.received()) == ([joined("U2")], [])


async def test_what_a_player_says_reaches_all_others_byte_for_byte(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, three = await harness.crowd(1, 2, 3)
    said = b'{ "x" : 1.50,\t"y":"\xc3\xa9\\u00e9" }'
    one.say(said)
    two.say(b"2", state=b'"mine"')
    one.say(b"3", key="k", at=1.5)
    await settle()
    raw = payload_of(three.sink.frames[0])
    player = one.sink.seats[ROOM].player
    assert raw == (
        b'{"command":"instance-data","subgroup":"%b","data":{"player":"%b","data":%b}}'
        % (ROOM.encode(), player.encode(), said)
    )
    assert msgspec.json.decode(payload_of(three.sink.frames[2]))["data"] == {
        "player": player,
        "key": "k",
        "at": 1.5,
        "data": 3,
    }
    spoken = data({"x": 1.5, "y": "éé"})
    assert three.received() == [spoken, data(2), data(3)]
    assert one.received() == [data(2)]
    assert two.received() == [spoken, data(state="mine"), data(3)]


async def test_one_drain_is_one_write_to_each(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    writes = two.sink.writes
    for number in range(50):
        one.say(b"%d" % number)
    await settle()
    assert two.sink.writes == writes + 1
    assert two.received() == [data(number) for number in range(50)]


async def test_a_joiner_gets_nothing_from_before_and_everything_after(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    two = await harness.connect(2)
    async with trio.open_nursery() as nursery:
        one.say(b'"before"')
        nursery.start_soon(two.join)
        await settle()
        one.say(b'"after"')
    await settle()
    assert two.received() == [join("U1", "U2", state=1), data("after")]
    assert one.received() == [joined("U2")]


async def test_a_leaver_has_its_answer_and_no_event_of_its_own(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    await one.leave()
    await settle()
    assert one.sink.take() == [
        {
            "state": 2,
            "command": "instance-leave",
            "subgroup": ROOM,
            "data": {"instance": ROOM, "player": player},
        }
    ]
    assert two.received(but=ROLES) == [left("left")]
    assert ROOM not in one.sink.seats
    two.say(b"1")
    await settle()
    assert one.received() == []
    with pytest.raises(NotInInstance):
        await one.leave()


async def test_two_sockets_of_a_session_are_one_player(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    other = await harness.joined(9)
    one, two = await harness.joined(1), await harness.connect(1)
    player = one.sink.seats[ROOM].player
    assert await two.join() == player
    await settle()
    assert (one.received(), two.received()) == ([], [join("U9", "U1", state=1)])
    assert other.received() == [joined("U1")]
    other.say(b"1")
    one.say(b"2")  # its own socket has no need of it
    await settle()
    assert (one.received(), two.received(), other.received()) == ([data(1)], [data(1)], [data(2)])
    one.lose()
    await trio.sleep(60)
    assert (two.received(), other.received()) == ([], [])
    await two.leave()
    await settle()
    assert other.received() == [left("left")]


async def test_a_session_leaves_with_all_its_sockets(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.joined(1), await harness.joined(1)
    await two.leave()
    await settle()
    assert (one.received(), two.received()) == ([left("left")], [leave(state=2)])
    assert (one.sink.seats, two.sink.seats) == ({}, {})


async def test_coming_back_within_the_grace_is_seen_by_nobody(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    one.lose()
    await trio.sleep(9)
    assert harness.node.directory.occupancy(ROOM).connected == 2
    again = await harness.connect(1)
    assert await again.join() == player
    await trio.sleep(60)
    assert again.received() == [join("U1", "U2", state=1)]
    assert other.received() == []
    again.say(b"1")
    await settle()
    assert other.received() == [data(1)]


async def test_who_does_not_come_back_has_left(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    one.lose()
    await trio.sleep(10.1)
    assert other.received(but=ROLES) == [left("disconnected")]
    again = await harness.connect(1)
    assert await again.join() != player


async def test_many_who_join_at_once_never_exceed_the_capacity(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(capacity=5)
    clients = [await harness.connect(number) for number in range(1, 31)]
    full = 0

    async def join(number: int) -> None:
        nonlocal full
        try:
            await clients[number].join()
        except InstanceFull:
            full += 1
        assert harness.node.directory.occupancy(ROOM).connected <= 5

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(join, number)
    await settle()
    assert full == 25
    assert sum(ROOM in client.sink.seats for client in clients) == 5
    assert harness.node.directory.full() == {ROOM}
    inside = next(client for client in clients if ROOM in client.sink.seats)
    await inside.leave()
    await settle()
    assert harness.node.directory.full() == frozenset()


async def test_a_message_can_be_for_some_alone(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, three = await harness.crowd(1, 2, 3)
    players = {client.sink.seats[ROOM].player for client in (one, three)}
    one.say(b"1", to=(*players, "p_nobody"), key="k")
    await settle()
    assert (one.received(), two.received(), three.received()) == ([], [], [data(1)])
    late = await harness.connect(4)
    await late.join()
    await settle()
    assert late.sink.take()[0]["data"]["retained"] == []


async def test_keyed_values_are_kept_for_those_who_come_and_never_roll_back(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    one.say(b"10", key="a", at=10)
    one.say(b"9", key="a", at=9, state=b"7")
    one.say(b"11", key="b")
    one.say(b"12", key="b")
    await settle()
    assert one.received() == [data(state=7)]
    assert two.received() == [data(10), data(11), data(12)]
    late = await harness.connect(3)
    await late.join()
    await settle()
    assert late.sink.take()[0]["data"]["retained"] == [
        {"player": player, "key": "a", "data": 10, "at": 10.0},
        {"player": player, "key": "b", "data": 12},
    ]
    await one.leave()
    later = await harness.connect(4)
    await later.join()
    await settle()
    assert later.sink.take()[0]["data"]["retained"] == []


async def test_wrong_messages_are_answered_with_or_without_state(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    one.say(b"1", key="")
    one.say(b"1", key="k" * 65, state=b"5")
    one.say(b"1", to=("p",) * 65)
    await settle()
    assert one.received() == [
        failed("data", 119),
        failed("data", 119, state=5),
        failed("data", 119),
    ]
    assert two.received() == []


async def test_who_is_no_longer_inside_is_told_so(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    seat = one.sink.seats[ROOM]
    await one.leave()
    one.sink.seats[ROOM] = seat  # its message was on the way
    one.say(b"1", state=b"3")
    await settle()
    assert one.received() == [leave(state=2), failed("data", 39, state=3)]
    assert two.received(but=ROLES) == [left("left")]


async def test_the_muted_are_refused_and_heard_again_when_unmuted(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    harness.act(lambda actor: actor.moderate(user_at(1), "mute"))
    one.say(b"1", state=b"1")
    harness.act(lambda actor: actor.moderate(user_at(1), "unmute"))
    one.say(b"2")
    await settle()
    assert one.received() == [moderated("rude"), failed("data", 49, state=1), moderated()]
    assert two.received() == [data(2)]


async def test_who_is_kicked_is_told_why_and_may_come_back(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    harness.act(lambda actor: actor.moderate(user_at(1), "kick"))
    await settle()
    assert one.sink.take()[0]["data"] == {
        "player": player,
        "user": user_at(1),
        "reason": "kicked",
        "note": "rude",
    }
    assert two.sink.take()[0]["data"] == {
        "player": player,
        "user": user_at(1),
        "reason": "kicked",
    }
    assert await one.join() != player


async def test_the_banned_the_uninvited_and_the_late_are_refused(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.store.instances.bans[ROOM] = [
        Ban(ROOM, user_at(1).partition("@")[0], None, None, user_at(0), EPOCH_MS)
    ]
    one = await harness.connect(1)
    with pytest.raises(Banned):
        await one.join()
    private = ROOM[:-1] + "2"
    harness.room(private, access="avr:private")
    two = await harness.connect(2)
    with pytest.raises(InstanceNotFound):  # one may not know of it
        await two.join(private)
    friends = ROOM[:-1] + "3"
    harness.room(friends, access="avr:friends_only")
    with pytest.raises(NotAllowed):
        await two.join(friends)
    owner = await harness.connect(0)
    await owner.join("room-002@" + harness.node.address)
    await settle()
    assert owner.received() == [join("U0", state=1)]
    assert one.received() == two.received() == []


async def test_the_longest_inside_is_the_master_and_updates_say_so(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    watcher = await harness.connect(9)
    await watcher.subscribe("update-instance", target=ROOM)
    one = await harness.joined(1)
    await harness.joined(2)
    assert [
        (message["data"]["connected"], message["data"]["master"]) for message in watcher.sink.take()
    ] == [(0, None), (1, user_at(1)), (2, user_at(1))]
    await one.leave()
    await settle()
    (update,) = watcher.sink.take()
    assert (update["command"], update["subgroup"]) == ("update-instance", ROOM)
    assert (update["data"]["connected"], update["data"]["master"]) == (1, user_at(2))
    assert harness.node.directory.occupancy(ROOM).master == user_at(2)


async def test_one_inside_may_ask_for_all_again_unless_it_is_slow(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    sink = SlowSink()
    one = await harness.connect(1, sink=sink)
    sink.read()
    await one.join()
    await settle()
    with pytest.raises(Overloaded):
        await one.join()
    sink.read()
    await one.join(state=b"8")
    await settle()
    sink.read()
    assert one.received()[-2:] == [join("U1", state=1), join("U1", state=8)]


# Names -------------------------------------------------------------------------------------------


def names(client: Client) -> list[tuple[str, str]]:
    """The player and the new name of each `player-updated`."""
    updates = [one for one in client.sink.take() if one["command"] == "player-updated"]
    return [(one["data"]["user"], one["data"]["displayname"]) for one in updates]


async def test_those_inside_and_those_who_come_later_learn_a_new_name(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, twin, two = (
        await harness.joined(1), await harness.joined(1, session=1), await harness.joined(2),
    )  # fmt: skip
    watcher = await harness.connect(3)
    await watcher.subscribe("player-updated", target=ROOM)
    for client in (one, twin, two, watcher):
        client.sink.take()
    await harness.change_user(replace(account(1), displayname="Zoe", updated_at=EPOCH_MS + 1))
    for client in (one, twin, two, watcher):
        assert names(client) == [(user_at(1), "Zoe")] * 2, client.sink
    late = await harness.connect(4)
    await late.join()
    await settle()
    players = late.sink.take()[-1]["data"]["players"]
    assert [one["displayname"] for one in players] == ["Zoe", "Zoe", "U2", "U4"]
    listed = await harness.node.instance_service.players(ROOM)
    assert [player.displayname for player, _ in listed] == ["Zoe", "Zoe", "U2", "U4"]
    # The name of all other events, and after a crash of the actor.
    harness.crash()
    await trio.sleep(1)
    restored = [one for one in two.sink.take() if one["command"] == "instance-restored"]
    assert [one["displayname"] for one in restored[-1]["data"]["players"]][:2] == ["Zoe", "Zoe"]


async def test_a_player_in_its_grace_is_renamed_and_no_other_change_is_told(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    await harness.change_user(replace(account(1), description="new", updated_at=EPOCH_MS + 1))
    assert names(two) == []
    one.lose()
    await settle()
    await harness.change_user(replace(account(1), displayname="Zoe", updated_at=EPOCH_MS + 2))
    assert names(two) == [(user_at(1), "Zoe")]
