"""The hub: who subscribed to what, and what each is told of it."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import MockClock

from actors.hub.actor import SUBSCRIPTIONS
from actors.hub.messages import AddSocket, HubMessage, Publish, UpdateViewer
from actors.session.messages import UserChanged
from reileta.errors import EventUnknown, PermissionDenied
from reileta.protocol import events
from reileta.rules.identity import Viewer
from tests.actors.frames import data, join, joined, leave, left, update
from tests.actors.node_harness import ROOM, Client, NodeHarness, account, settle

OTHER = ROOM[:-1] + "2"

ALL_EVENTS = tuple(
    value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)
)


def publish(harness: NodeHarness, event: str, id_: str, data: bytes = b'{"reason":"x"}') -> None:
    harness.node.hub.tell(Publish(event, id_, lambda _: data))


async def test_events_reach_those_who_want_them_of_one_object_or_of_all(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, every, none = [await harness.connect(number) for number in (1, 2, 3)]
    await one.subscribe("update-world", target="w_1")
    await every.subscribe("update-world", "update-user")
    await every.subscribe("update-world", target="w_1")  # is not told twice
    publish(harness, "update-world", "w_1")
    publish(harness, "update-world", "w_2")
    publish(harness, "update-server", "x")
    await settle()
    assert one.sink.take() == [
        {"command": "update-world", "subgroup": "w_1", "data": {"reason": "x"}}
    ]
    assert every.received() == [update("world", reason="x"), update("world", reason="x")]
    assert none.received() == []
    await one.unsubscribe("update-world", target="w_1")
    await every.unsubscribe("update-world")
    await none.unsubscribe("update-world")
    publish(harness, "update-world", "w_1")
    publish(harness, "update-world", "w_2")
    await settle()
    assert one.received() == []
    assert every.received() == [update("world", reason="x")]  # of w_1: that subscription is another


async def test_only_the_newest_update_of_a_drain_goes_out(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.connect(1)
    await one.subscribe("update-world", "instance-left")
    for number in range(3):
        publish(harness, "update-world", "w_1", b'{"reason":"%d"}' % number)
        publish(harness, "update-world", "w_2", b'{"reason":"b%d"}' % number)
        publish(harness, "instance-left", "i_1", b'{"reason":"%d"}' % number)
    await settle()
    assert one.received() == [
        left("0"),
        left("1"),
        left("2"),
        update("world", reason="2"),
        update("world", reason="b2"),
    ]


async def test_what_strangers_do_not_see_they_are_not_told_of(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    user = account(1).id
    clients = [await harness.connect(1), await harness.connect(2, admin=True)]
    clients += [await harness.connect(number) for number in (3, 4, 5)]
    harness.node.hub.signal(UpdateViewer(Viewer(account(3).id, False, {user: 5})))
    for client in clients:
        await client.subscribe("update-user", target=user)

    async def heard(*published: frozenset[str] | None) -> list[bool]:
        for among in published:
            render = lambda _: b'{"reason":"x"}'  # noqa: E731
            harness.node.hub.tell(Publish("update-user", user, render, among=among))
        await settle()
        return [bool(client.received()) for client in clients]

    concerned = frozenset({account(4).id})
    # Itself, an admin, a friend, one who is concerned, a stranger.
    assert await heard(concerned) == [True, True, True, True, False]
    assert await heard(frozenset()) == [True, True, True, False, False]
    assert await heard(None) == [True] * 5
    assert await heard(None, frozenset()) == [True] * 5, "one drain, and so one event"


async def test_a_users_own_sockets_hear_of_it_without_asking(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, other = [
        await harness.connect(1),
        await harness.connect(1, 1),
        await harness.connect(2),
    ]
    harness.node.changed("user", account(1))
    await settle()
    assert (one.received(), two.received(), other.received()) == (
        [update("user", "U1")],
        [update("user", "U1")],
        [],
    )
    await one.subscribe("update-user", target=account(1).id)
    await other.subscribe("update-user")
    harness.node.changed("user", account(1))
    await settle()
    (mine,), (theirs,) = one.sink.take(), other.sink.take()
    assert mine["data"]["status"] == "online"
    assert "status" not in theirs["data"]
    assert "following" not in theirs["data"]


async def test_what_one_may_not_see_is_not_told(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    harness.room(OTHER, access="avr:invite_only")
    clients = [
        await harness.connect(0),
        await harness.connect(1),
        await harness.connect(2, admin=True),
    ]
    owner, stranger, admin = clients
    for client in clients:
        await client.subscribe("update-instance", "instance-joined", "instance-left")
    one = await harness.connect(0, session=1)
    await one.join(OTHER)
    await one.leave(OTHER)
    await settle()
    assert owner.received() == admin.received()
    assert stranger.received() == []
    for client in clients:
        client.sink.take()
    await one.join(OTHER)
    await settle()
    assert owner.received() == [joined("U0"), update("instance")]
    assert stranger.received() == []


async def test_those_inside_are_told_once(harness: NodeHarness, autojump_clock: MockClock) -> None:
    one, outside = await harness.joined(1), await harness.connect(2)
    for client in (one, outside):
        await client.subscribe("instance-joined", "instance-left", "update-instance", target=ROOM)
    three = await harness.joined(3)
    assert one.received() == [joined("U3"), update("instance")]
    assert outside.received() == [joined("U3"), update("instance")]
    await three.subscribe("instance-left")
    await three.leave()
    await settle()
    assert one.received() == outside.received() == [left("left"), update("instance")]
    assert three.received() == [leave(state=2)]


async def admin_watching(harness: NodeHarness, target: str | None = None) -> Client:
    admin = await harness.connect(9, admin=True)
    await admin.subscribe(events.INSTANCE_DATA, target=target)
    return admin


@pytest.mark.parametrize("target", [None, ROOM])
async def test_admins_may_watch_data_unseen(
    harness: NodeHarness, autojump_clock: MockClock, target: str | None
) -> None:
    one, two = await harness.crowd(1, 2)
    admin = await admin_watching(harness, target)
    one.say(b"1")
    one.say(b"2", to=(two.sink.seats[ROOM].player,))
    await two.leave()
    await settle()
    assert admin.received() == [data(1)]
    assert harness.node.directory.occupancy(ROOM).connected == 1
    await admin.unsubscribe(events.INSTANCE_DATA, target=target)
    one.say(b"3")
    await settle()
    assert admin.received() == []


@pytest.mark.parametrize("target", [None, ROOM])
async def test_a_watcher_may_come_before_the_instance_and_outlives_its_crash(
    harness: NodeHarness, autojump_clock: MockClock, target: str | None
) -> None:
    admin = await admin_watching(harness, target)
    one = await harness.joined(1)
    one.say(b"1")
    await settle()
    harness.crash()
    await trio.sleep(1)
    one.say(b"2")
    await settle()
    assert admin.received() == [data(1), data(2)]


async def test_a_watcher_inside_hears_once_and_goes_on_when_it_leaves(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, admin = await harness.joined(1), await admin_watching(harness)
    await admin.join()
    one.say(b"1")
    await settle()
    assert admin.received() == [join("U1", "U9", state=1), data(1)]
    await admin.subscribe(events.INSTANCE_DATA, target=ROOM)
    one.say(b"2")
    await admin.leave()
    one.say(b"3")
    await settle()
    assert admin.received() == [data(2), leave(state=2), data(3)]
    await admin.unsubscribe(events.INSTANCE_DATA)  # the other subscription goes on
    one.say(b"4")
    await settle()
    assert admin.received() == [data(4)]
    admin.lose()
    await settle()
    one.say(b"5")
    await settle()
    assert admin.received() == []
    assert "watchers" not in harness.leftovers()


async def test_others_may_not_watch_data(harness: NodeHarness, autojump_clock: MockClock) -> None:
    one, spy = await harness.joined(1), await harness.connect(2)
    with pytest.raises(PermissionDenied):
        await spy.subscribe(events.INSTANCE_DATA)
    await spy.subscribe(*ALL_EVENTS)
    one.say(b"1")
    await settle()
    assert spy.received() == []


async def test_who_is_no_admin_any_more_watches_no_more(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, admin = await harness.joined(1), await admin_watching(harness)
    await admin.subscribe("instance-joined")
    harness.node.changed("user", account(9))
    await settle()
    admin.sink.take()
    one.say(b"1")
    await harness.joined(2)
    assert admin.received() == [joined("U2")]  # the other subscriptions stay
    admin.session.signal(UserChanged(account(9, admin=True)))
    await settle()
    await admin.subscribe(events.INSTANCE_DATA)
    one.say(b"2")
    await settle()
    assert admin.received() == [data(2)]


async def test_subscriptions_have_a_limit(harness: NodeHarness, autojump_clock: MockClock) -> None:
    one = await harness.connect(1)
    for number in range(SUBSCRIPTIONS):
        await one.subscribe("update-world", target=f"w_{number}")
    await one.subscribe("update-world", target="w_0")  # is there already
    with pytest.raises(EventUnknown):
        await one.subscribe("update-world")
    await one.unsubscribe("update-world", target="w_0")
    await one.subscribe("update-world")


async def test_a_crash_forgets_no_subscription(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.connect(1)
    await one.subscribe("update-world")
    harness.node.hub.tell(cast(HubMessage, None))
    await trio.sleep(1)
    assert harness.node.metrics.actor_restarts == 1
    publish(harness, "update-world", "w_1")
    await settle()
    assert one.received() == [update("world", reason="x")]


async def test_nothing_is_left_of_a_socket_that_is_gone(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.connect(1, admin=True)
    await one.subscribe(*ALL_EVENTS)
    await one.subscribe(*ALL_EVENTS, target=ROOM)
    hub = harness.node.hub
    hub.signal(AddSocket(one.sink, Viewer(account(1).id, True)))  # said twice
    one.lose()
    await settle()
    await one.subscribe("update-world")  # too late
    listeners = harness.listeners
    assert (listeners.of, listeners.by_topic, listeners.by_user) == ({}, {}, {})
    publish(harness, "update-world", "w_1")
    await settle()
    assert one.received() == []
