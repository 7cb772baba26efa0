"""Players of an instance at several nodes: they are inside together, whichever node hosts it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.elsewhere import Occupancy, occupancy_fact
from actors.instance_service import ModerationRequest
from reileta.errors import AlreadyCandidate, InstanceFull, NotAllowed, NotInInstance
from reileta.records import InstanceChanges
from reileta.rules.cluster.facts import Change
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, account, user_at
from tests.actors.sinks import FakeSink

pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b", "c") as opened:
        opened.prefer = "a"
        yield opened


async def test_players_join_through_any_node(cluster: Cluster, autojump_clock: MockClock) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.connect(2)
    player = await two.join()
    await trio.sleep(0.1)
    assert cluster.places[ROOM] == ("a", 1)
    (welcome,) = two.sink.take()
    assert (welcome["command"], welcome["state"]) == ("instance-join", 1)
    assert welcome["data"]["player"] == player
    assert len(welcome["data"]["players"]) == 2
    (joined,) = one.sink.take()
    assert joined["command"] == "instance-joined"
    assert joined["data"]["player"] == player


async def test_data_goes_both_ways_and_not_back_to_its_sender(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    clients = (one, two, three)
    for client in clients:
        client.sink.take()
    for sender in clients:
        sender.say(b'"hello"')
        await trio.sleep(0.1)
        for client in clients:
            received = client.sink.take()
            if client is sender:
                assert received == []
            else:
                (message,) = received
                assert message["command"] == "instance-data"
                assert message["data"]["data"] == "hello"
                assert message["data"]["player"] == sender.sink.seats[ROOM].player


async def test_a_drain_is_published_once_however_many_gateways_and_players(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    one = await cluster["a"].harness.joined(1)
    for number in (2, 3, 4):
        await cluster["b"].harness.joined(number)
        await cluster["c"].harness.joined(number + 3)
    await trio.sleep(0.1)
    cluster.nats.published.clear()
    one.say(b'"hello"')
    one.say(b'"world"')
    await trio.sleep(0.1)
    sent = [subject for name, subject, _ in cluster.nats.published if ".i." in subject]
    assert len(sent) == 1


async def test_nothing_is_published_if_all_players_are_local(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["a"].harness.joined(2)
    one.say(b'"hello"')
    await trio.sleep(0.1)
    assert len(two.sink.take()) == 1
    assert cluster.nats.published == []


async def test_an_answer_keeps_its_place_among_the_data(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    two.say(b"1", state=b'"x"')
    await trio.sleep(0.1)
    (answer,) = two.sink.take()
    assert (answer["command"], answer["state"], answer["data"]) == ("instance-data", "x", {})
    assert len(one.sink.take()) >= 1


async def test_a_player_leaves_after_its_last_data(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    one.sink.take()
    for number in range(20):
        two.say(b"%d" % number)
    await two.leave()
    await trio.sleep(0.1)
    received = one.sink.take()
    assert [each["data"].get("data") for each in received[:20]] == list(range(20))
    assert received[20]["command"] == "instance-left"
    answers = two.sink.take()
    assert [each["command"] for each in answers] == ["instance-leave"]
    assert ROOM not in two.sink.seats
    with pytest.raises(NotInInstance):
        await two.leave()


async def test_the_last_to_leave_a_gateway_ends_its_link(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await two.leave()
    await trio.sleep(20)
    assert cluster["b"].relay.debug_counts()["remote instances"] == 0
    assert not [one for one in cluster.nats.subscriptions if ".i." in one.pattern]


async def test_a_lost_socket_starts_the_grace_and_a_new_one_ends_it(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.connect(2)
    player = await two.join()
    two.lose()
    await trio.sleep(5)
    again = await cluster["c"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(30)
    commands = [each["command"] for each in one.sink.take()]
    assert "instance-left" not in commands


async def test_a_player_who_stays_away_leaves(cluster: Cluster, autojump_clock: MockClock) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    one.sink.take()
    two.lose()
    await trio.sleep(15)
    (left,) = one.sink.take()
    assert (left["command"], left["data"]["reason"]) == ("instance-left", "disconnected")
    assert not cluster["b"].relay.remotes or not cluster["b"].relay.remotes[ROOM].seats()


async def test_sockets_of_one_session_at_two_gateways_are_one_player(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.connect(2)
    other = await cluster["c"].harness.connect(2)
    assert await two.join() == await other.join()
    await trio.sleep(0.1)
    two.sink.take(), other.sink.take()
    await two.leave()
    await trio.sleep(0.1)
    assert [each["command"] for each in other.sink.take()] == ["instance-left"]
    assert ROOM not in other.sink.seats
    with pytest.raises(NotInInstance):
        await other.leave()


async def test_a_refusal_reaches_the_other_node_as_it_is(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=1)
    await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.connect(2)
    with pytest.raises(InstanceFull):
        await two.join()
    await trio.sleep(10)
    assert cluster["b"].relay.debug_counts()["remote instances"] == 0
    assert ROOM not in two.sink.seats


async def test_an_observer_gets_the_data_of_an_instance_at_another_node(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    admin = await cluster["b"].harness.connect(9, admin=True)
    await admin.subscribe("instance-data", target=ROOM)
    await trio.sleep(2)
    admin.sink.take()
    for sender in (one, two):
        sender.say(b'"seen"')
        await trio.sleep(0.1)
    received = [each for each in admin.sink.take() if each["command"] == "instance-data"]
    assert [each["data"]["data"] for each in received] == ["seen", "seen"]
    await two.leave()
    one.say(b'"alone"')
    await trio.sleep(3)
    received = [each for each in admin.sink.take() if each["command"] == "instance-data"]
    assert [each["data"]["data"] for each in received] == ["alone"]
    await admin.unsubscribe("instance-data", target=ROOM)
    await trio.sleep(2)
    one.say(b'"unseen"')
    await trio.sleep(1)
    assert admin.sink.take() == []


async def test_an_observer_where_nobody_is_inside_gets_the_data(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    directory = cluster["b"].harness.node.directory
    key, fact = occupancy_fact(ROOM, Occupancy(connected=1))
    directory.learn([Change("a", key, None, fact)])
    admin = await cluster["b"].harness.connect(9, admin=True)
    await admin.subscribe("instance-data")
    await trio.sleep(3)
    admin.sink.take()
    one.say(b'"seen"')
    await trio.sleep(0.1)
    received = [each for each in admin.sink.take() if each["command"] == "instance-data"]
    assert [each["data"]["data"] for each in received] == ["seen"]


async def test_players_and_queue_are_read_from_any_node(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    node = cluster["b"].harness.node
    key, fact = occupancy_fact(ROOM, Occupancy(connected=1))
    node.directory.learn([Change("a", key, None, fact)])
    players = await node.instance_service.players(ROOM)
    assert [(player.id, role) for player, role in players] == [
        (one.sink.seats[ROOM].player, "master")
    ]
    snapshot = await node.instance_service.queue(ROOM, None)
    assert snapshot.waiting == 0


async def test_hosts_moderate_from_any_node(cluster: Cluster, autojump_clock: MockClock) -> None:
    one = await cluster["a"].harness.joined(1)
    owner = await cluster["b"].harness.joined(0)
    three = await cluster["c"].harness.joined(3)
    for client in (one, owner, three):
        client.sink.take()
    service = cluster["b"].harness.node.instance_service
    for action in ("mute", "kick"):
        request = ModerationRequest(user_at(3), action, "rude")
        await service.moderate(
            ROOM, owner.principal, request, sink=owner.sink, state=b'"%b"' % action.encode()
        )
    await trio.sleep(0.1)
    assert [each["state"] for each in owner.sink.take() if "state" in each] == ["mute", "kick"]
    told = [(each["command"], each["data"].get("reason")) for each in three.sink.take()]
    assert told == [("instance-moderated", "rude"), ("instance-left", "kicked")]
    assert ROOM not in three.sink.seats
    with pytest.raises(NotAllowed):
        await service.bans(ROOM, three.principal)
    changes = InstanceChanges(title="Elsewhere")
    record = await service.update(ROOM, owner.principal, changes)
    assert record.title == "Elsewhere"
    assert cluster.store.instances.records[ROOM].title == "Elsewhere"


async def test_an_admin_moderates_by_a_socket_of_a_node_where_nobody_is_inside(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    three = await cluster["b"].harness.joined(3)
    admin = await cluster["c"].harness.connect(4, admin=True)
    service = cluster["c"].harness.node.instance_service
    for action in ("warn", "mute", "kick"):
        await service.moderate(
            ROOM,
            admin.principal,
            ModerationRequest(user_at(3), action),
            sink=admin.sink,
            state=b'"%b"' % action.encode(),
        )
    # Without a state, no answer is wanted.
    await service.moderate(
        ROOM, admin.principal, ModerationRequest(user_at(1), "mute"), sink=admin.sink
    )
    await trio.sleep(0.1)
    answers = [(each["command"], each.get("state")) for each in admin.sink.take()]
    assert answers == [("instance-moderate", one) for one in ("warn", "mute", "kick")]
    assert ROOM not in three.sink.seats


async def test_users_wait_in_the_queue_of_an_instance_at_another_node(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=1)
    await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.connect(2)
    service = cluster["b"].harness.node.instance_service
    entry = await service.candidate(ROOM, two.principal)
    assert (entry.state, entry.position) == ("waiting", 1)
    with pytest.raises(AlreadyCandidate):
        await service.candidate(ROOM, two.principal)
    await service.withdraw(ROOM, two.principal)


async def test_a_signal_from_a_node_where_nobody_is_inside_arrives(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    node = cluster["b"].harness.node
    key, fact = occupancy_fact(ROOM, Occupancy(connected=1))
    node.directory.learn([Change("a", key, None, fact)])
    await node.owner_changed(ROOM, account(1).id)
    await trio.sleep(1)
    recovery = cluster["a"].relay.hosted[ROOM].recovery
    assert recovery is not None
    assert recovery.record.owner == account(1).id


async def test_bytes_between_nodes_do_not_depend_on_the_players_of_a_gateway(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    cluster["a"].harness.room(capacity=100)
    one = await cluster["a"].harness.joined(1)
    sent: list[int] = []
    number = 2
    for players in (2, 40):
        while number < players + 2:
            await cluster["b"].harness.joined(number)
            number += 1
        await trio.sleep(1)
        cluster.nats.published.clear()
        for key in range(20):
            one.say(b'"%b"' % (b"x" * 300), key=f"k{key % 3}")
        await trio.sleep(0.1)
        sent.append(sum(size for _, subject, size in cluster.nats.published if ".i." in subject))
    assert 20 * 300 < sent[0] < 20 * 300 * 2
    assert abs(sent[1] - sent[0]) <= sent[0] / 20


class SlowSink(FakeSink):
    """A socket whose client is there, and answers only just in time."""

    async def responds(self) -> bool:
        await trio.sleep(1)
        return True


async def test_a_refusal_that_takes_long_reaches_the_other_node_too(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """Before it refuses, the host asks whether the user's earlier socket is still there."""
    cluster["a"].harness.room(capacity=1)
    first = await cluster["b"].harness.joined(1, sink=SlowSink())
    again = await cluster["c"].harness.connect(1, session=1)
    for _ in range(2):
        with pytest.raises(InstanceFull):
            await again.join()
    await first.leave()
    await again.join()  # an attempt of its own, for which the last refusal does not count
