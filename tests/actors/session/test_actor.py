"""A session as an actor: its sockets, its players, and the races between it and instances."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from actors.instance_service import ModerationRequest
from actors.session.messages import Attach, Join, SessionMessage, UserChanged
from reileta.errors import (
    CredentialInvalid,
    InstanceNotFound,
    NotAllowed,
    NotInInstance,
    Overloaded,
)
from tests.actors.frames import ROLES, data, frame, join, joined, left, update
from tests.actors.node_harness import ROOM, Client, NodeHarness, account, principal, settle, user_at
from tests.actors.sinks import FakeSink


async def test_a_socket_is_told_whom_it_speaks_for(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    who = principal(1)
    session, sink = await harness.node.sessions.live(who), FakeSink()
    await session.ask(Attach(sink, who.token_hash, b'"a"'))
    await settle()
    answer, event, update = sink.take()
    assert (answer["command"], answer["state"]) == ("authenticate", "a")
    assert (event["command"], "state" in event) == ("authenticated", False)
    assert answer["data"] == event["data"]
    assert event["data"]["session"] == "s_1.0"
    assert event["data"]["user"]["username"] == "user1"
    assert (update["command"], update["subgroup"]) == ("update-user", account(1).id)
    await session.ask(Attach(sink, b"another token"))
    await settle()
    assert sink.received() == [frame("authenticated")]  # the same socket is no second one
    session.signal(cast(SessionMessage, UserChanged(account(1))))
    harness.node.sessions.end_token(who.token_hash)
    await settle()
    assert sink.closed is None
    harness.node.sessions.end_token(b"another token")
    await settle()
    assert sink.closed == (4000, "the credential is no longer valid")


async def test_others_are_told_when_the_first_socket_comes_and_the_last_goes(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    watcher, stranger = await harness.connect(9, admin=True), await harness.connect(8)
    for each in (watcher, stranger):
        await each.subscribe("update-user", target=account(1).id)
    assert harness.node.directory.status(account(1)) == "offline"
    one = await harness.connect(1)
    assert watcher.received() == [update("user", "U1")]
    two = await harness.connect(1, session=1)
    assert harness.node.directory.status(account(1)) == "online"
    one.lose()
    one.lose()  # said twice, it counts once
    await settle()
    assert watcher.received() == []
    assert harness.node.directory.status(account(1)) == "online"
    two.lose()
    await settle()
    assert watcher.received() == [update("user", "U1")]
    assert harness.node.directory.status(account(1)) == "offline"
    assert stranger.received() == [], "who may not see the status learns nothing of it"


async def test_a_killed_token_closes_its_own_sockets_alone(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.connect(1, token=1), await harness.connect(1, token=2)
    await one.join()
    await other.join()
    await settle()
    one.sink.take()
    harness.node.sessions.end_token(one.principal.token_hash)
    await settle()
    assert one.received() == [frame("unauthenticated")]
    assert one.sink.closed == (4000, "the credential is no longer valid")
    assert other.sink.closed is None
    await trio.sleep(60)
    assert harness.node.directory.occupancy(ROOM).connected == 1  # by the socket that is left


async def test_the_end_of_a_session_closes_its_sockets_and_its_players_leave(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    two = await harness.connect(1)
    harness.node.sessions.end("s_1.0")
    await settle()
    for client in (one, two):
        assert client.received() == [frame("unauthenticated")]
        assert client.sink.closed == (4000, "the credential is no longer valid")
    assert other.received(but=ROLES) == [left("left")]  # at once, without a grace
    assert one.session.stopped
    assert harness.node.directory.status(account(1)) == "offline"


async def test_one_in_its_grace_leaves_with_its_session(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    one.lose()
    await settle()
    harness.node.sessions.end("s_1.0")
    await settle()
    assert other.received(but=ROLES) == [left("left")]


async def test_who_is_attached_after_the_end_is_refused(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    first, second = principal(1), principal(2)  # authenticated a moment ago
    harness.node.sessions.end(first.session_id)
    harness.node.sessions.end_token(second.token_hash)
    for who in (first, second):
        session = await harness.node.sessions.live(who)
        with pytest.raises(CredentialInvalid):
            await session.ask(Attach(FakeSink(), who.token_hash))
    await harness.connect(2, token=1)  # another token of that session is as good as before
    await trio.sleep(200)
    assert harness.leftovers().keys() == {"sessions", "recoveries", "sockets"}


async def test_an_idle_session_is_put_away_and_starts_anew(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    one.lose()
    await trio.sleep(39)
    assert (
        "s_1.0" in harness.node.sessions.recoveries
    )  # its player had a grace of 10 s, and then it rested
    await trio.sleep(2)
    assert one.session.stopped
    assert harness.leftovers().keys() <= {"instances", "occupancies"}
    again = await harness.connect(1)
    await again.join()
    await settle()
    assert again.received() == [join("U1", state=1)]


async def test_a_session_that_nobody_attached_to_is_put_away(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    session = await harness.node.sessions.live(principal(1))
    await trio.sleep(31)
    assert session.stopped
    assert harness.leftovers() == {}


async def test_a_socket_that_comes_back_keeps_the_session(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.connect(1)
    one.lose()
    await trio.sleep(29)
    again = await harness.connect(1)
    assert again.session is one.session
    await trio.sleep(60)
    assert not again.session.stopped


async def test_a_socket_that_goes_while_its_join_is_under_way_leaves_no_seat(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.connect(1), await harness.joined(2)
    instances = harness.store.instances
    other = ROOM[:-1] + "2"
    harness.room(other)
    async with trio.open_nursery() as nursery:
        instances.gate = trio.Event()  # the instance is not started yet
        nursery.start_soon(one.join, other)
        await settle()
        one.lose()
        nursery.cancel_scope.cancel()
    instances.gate.set()
    await settle()
    assert harness.node.directory.occupancy(other).connected == 1
    await trio.sleep(11)
    assert harness.node.directory.occupancy(other).connected == 0
    assert one.sink.seats == {}
    with pytest.raises(NotInInstance):  # and one that comes after it is no join at all
        await one.join()
    assert two.received() == []


async def kick_and(harness: NodeHarness, client: Client, then: Any) -> None:
    harness.act(lambda actor: actor.moderate(user_at(client.principal.user.number), "kick"))
    await then()


async def test_news_of_a_lost_seat_that_are_older_than_the_return_change_nothing(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    # The kick waits in the instance's mailbox in front of the join, which the session awaits: so
    # SeatLost is in the session's mailbox before the session hears that it is inside again.
    await kick_and(harness, one, one.join)
    await settle()
    assert one.received() == [left("kicked"), join("U2", "U1", state=1)]
    player = one.sink.seats[ROOM].player
    place = harness.node.sessions.recoveries["s_1.0"].joined_instances[ROOM]
    assert place.player == player
    one.lose()
    await trio.sleep(11)
    assert other.received(but=ROLES) == [left("kicked"), joined("U1"), left("disconnected")]
    assert harness.node.directory.occupancy(ROOM).connected == 1


async def test_an_instance_is_left_by_its_name_too(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    name = harness.store.instances.records[ROOM].name
    with pytest.raises(NotInInstance):
        await one.leave("no-such-name")
    await one.leave(name)
    await settle()
    assert one.sink.seats == {}
    with pytest.raises(NotInInstance):
        await one.leave(name)


async def test_leaving_and_coming_back_by_two_sockets_at_once(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.joined(1), await harness.connect(1)
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.leave)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(two.join)
        await settle()
        assert (
            ROOM in harness.node.sessions.recoveries["s_1.0"].joined_instances or not two.sink.seats
        )
        one, two = (two, one) if two.sink.seats else (one, two)
        if not one.sink.seats:
            await one.join()
    one.lose()
    two.lose()
    await trio.sleep(200)
    assert harness.leftovers() == {}


async def test_a_lost_socket_is_not_the_one_that_came_back(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    again = await harness.connect(1)
    await again.join()
    one.lose()
    await trio.sleep(60)
    assert other.received() == []
    assert again.sink.seats[ROOM].player
    assert one.sink.seats == {}


async def test_a_join_that_is_refused_leaves_no_place(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:invite_only")
    one = await harness.connect(1)
    with pytest.raises(Exception, match="not allowed"):
        await one.join()
    one.lose()
    await trio.sleep(31)
    assert one.session.stopped


async def test_a_join_that_took_too_long_is_taken_back(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.connect(1), await harness.joined(2)
    harness.act(lambda _: trio.sleep(11))
    with pytest.raises(Overloaded):
        await one.join()
    await trio.sleep(2)
    assert one.sink.seats == {}
    assert harness.node.sessions.recoveries["s_1.0"].joined_instances == {}
    await trio.sleep(10)
    assert other.received() == [joined("U1"), left("disconnected")]


async def test_a_leave_that_takes_too_long_is_refused(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    harness.act(lambda _: trio.sleep(11))
    with pytest.raises(Overloaded):
        await one.leave()
    await trio.sleep(2)
    assert harness.node.directory.occupancy(ROOM).connected == 0
    assert harness.node.sessions.recoveries["s_1.0"].joined_instances == {}


class Boom(Exception):
    """What a session's handler raises."""


async def test_a_crash_leaves_sockets_and_places(
    harness: NodeHarness, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    one.session.tell(cast(SessionMessage, None))
    await trio.sleep(1)
    assert harness.node.metrics.actor_crashes == 1
    assert one.sink.closed is None
    other.say(b"1")
    await settle()
    assert one.received() == [data(1)]
    two = await harness.connect(1)
    assert two.session is one.session
    assert await two.join() == player
    one.lose()
    two.lose()
    await trio.sleep(11)
    assert other.received(but=ROLES) == [left("disconnected")]


async def test_a_session_that_is_given_up_lets_everything_go(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, other = await harness.crowd(1, 2)
    player = one.sink.seats[ROOM].player
    await one.subscribe("update-user")
    for _ in range(3):
        one.session.tell(cast(SessionMessage, None))
        await trio.sleep(1)
    assert one.sink.closed == (1013, "the session failed")
    assert harness.node.directory.status(account(1)) == "offline"
    one.lose()  # nobody hears that any more
    again = await harness.connect(1)
    assert again.session is not one.session
    assert await again.join() == player  # within its grace
    again.lose()
    await trio.sleep(11)
    assert other.received(but=ROLES) == [left("disconnected")]
    other.lose()
    await trio.sleep(200)
    assert harness.leftovers() == {}


async def test_a_full_mailbox_is_the_senders_to_hear_of(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    refused = harness.node.metrics.mailbox_refused
    for _ in range(1024):
        one.session.tell(Join(one.sink, ROOM, None))
    with pytest.raises(Overloaded):
        one.session.tell(Join(one.sink, ROOM, None))
    assert harness.node.metrics.mailbox_refused == refused + 1
    await settle()
    one.lose()  # which is never refused
    await trio.sleep(11)
    assert harness.node.directory.occupancy(ROOM).connected == 0


async def test_who_is_an_admin_no_longer_is_one_nowhere_at_once(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room()
    watcher = await harness.joined(2)
    one = await harness.joined(1, admin=True)
    await one.subscribe("instance-data")
    watcher.sink.take()
    harness.node.changed("user", account(1))
    await settle()
    roles = [told["data"] for told in watcher.sink.take() if told["command"] == "instance-role"]
    assert roles == [{"user": user_at(1), "role": "normal"}]
    with pytest.raises(NotAllowed):
        await harness.node.instance_service.moderate(
            ROOM, one.principal, ModerationRequest(user_at(2), "kick"), sink=one.sink
        )
    await one.leave()
    watcher.say(b"1")
    await settle()
    assert data(1) not in one.received(but=ROLES)
    await harness.change_user(account(1, admin=True))
    again = await harness.joined(1, session=1)
    assert again.principal.user == account(1)  # as it was authenticated, before
    await harness.node.instance_service.moderate(
        ROOM, again.principal, ModerationRequest(user_at(2), "kick"), sink=again.sink
    )


async def test_a_candidate_that_is_an_admin_no_longer_loses_the_seat_held_for_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(access="avr:private")
    await harness.joined(0)
    one = await harness.connect(1, admin=True)
    entry = await harness.node.instance_service.candidate(ROOM, one.principal)
    assert entry.state == "admitted"
    harness.node.changed("user", account(1))
    await settle()
    assert (await harness.node.instance_service.queue(ROOM, principal(0))).entries == ()
    with pytest.raises(InstanceNotFound):  # which is private
        await one.join()
