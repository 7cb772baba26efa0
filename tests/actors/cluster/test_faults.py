"""What players notice when messages between nodes are lost, nodes die, and the bus goes away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.cluster.wire import Figures, GetFigures
from actors.instance.messages import GetPlayers
from reileta.cluster.bus import BusMessage
from reileta.errors import InstanceFull, NotInInstance, Overloaded
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, Client, user_at

pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b", "c") as opened:
        opened.prefer = "a"
        yield opened


def data_of(messages: list[dict[str, Any]]) -> list[Any]:
    """The data of players in the messages."""
    return [one["data"]["data"] for one in messages if one["command"] == "instance-data"]


def commands_of(client: Client) -> list[str]:
    """The commands of the messages since the last time, without data."""
    commands = [one["command"] for one in client.sink.take()]
    return [one for one in commands if one != "instance-data"]


class Losing:
    """Loses the messages of a subject whose places are given, counted from 0."""

    def __init__(self, part: str, *places: int, bus: str = "") -> None:
        self.part, self.places, self.bus = part, places, bus
        self.seen = 0

    def __call__(self, bus: str, message: BusMessage) -> bool:
        if self.part not in message.subject or self.bus not in ("", bus):
            return False
        self.seen += 1
        return self.seen - 1 in self.places


@pytest.mark.parametrize("places", [(0,), (2, 3), (4,), (0, 1, 2, 3, 4)])
async def test_lost_frames_are_made_up_for_in_order(
    cluster: Cluster, places: tuple[int, ...], autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    cluster.nats.loses = Losing(".i.", *places)
    for number in range(5):
        one.say(b"%d" % number)
        await trio.sleep(0.01)
    await trio.sleep(3)  # a beat shows a loss at the tail
    received = two.sink.take()
    assert data_of(received) == [0, 1, 2, 3, 4]
    assert {each["command"] for each in received} == {"instance-data"}


@pytest.mark.parametrize("places", [(0,), (2, 3), (4,), (0, 1, 2, 3, 4)])
async def test_lost_data_on_its_way_to_the_host_is_made_up_for_in_order(
    cluster: Cluster, places: tuple[int, ...], autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    one.sink.take()
    cluster.nats.loses = Losing(".in", *places)
    for number in range(5):
        two.say(b"%d" % number, state=b"%d" % number)
        await trio.sleep(0.01)
    await trio.sleep(3)
    assert data_of(one.sink.take()) == [0, 1, 2, 3, 4]
    assert [each["state"] for each in two.sink.take()] == [0, 1, 2, 3, 4]


async def test_what_the_host_has_forgotten_ends_in_a_snapshot(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    one.say(b'"kept"', key="k")
    await trio.sleep(0.1)
    two.sink.take(), three.sink.take()
    cluster["b"].bus.cut()
    one.say(b'"missed"')
    await trio.sleep(5)  # the host keeps 3 s
    one.say(b'"last"', key="k")
    await trio.sleep(0.1)
    cluster["b"].bus.mend()
    cluster["b"].relay.reconnected()
    await trio.sleep(1)
    messages = two.sink.take()
    assert [each["command"] for each in messages] == ["instance-paused", "instance-restored"]
    restored = messages[1]["data"]
    assert restored["player"] == two.sink.seats[ROOM].player
    assert [each["data"] for each in restored["retained"]] == ["last"]
    assert data_of(three.sink.take()) == ["missed", "last"]
    one.say(b'"after"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["after"]


async def test_a_short_loss_of_the_bus_loses_nothing(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    cluster["b"].bus.cut()
    one.say(b'"first"')
    two.say(b'"mine"')
    await trio.sleep(1.5)
    with pytest.raises(Overloaded):
        two.say(b'"refused"')
    one.sink.take()
    cluster["b"].bus.mend()
    cluster["b"].relay.reconnected()
    await trio.sleep(1)
    messages = two.sink.take()
    assert data_of(messages) == ["first"]
    assert [each["command"] for each in messages] == [
        "instance-paused",
        "instance-data",
        "instance-resumed",
    ]
    assert data_of(one.sink.take()) == ["mine"]
    two.say(b'"again"')
    await trio.sleep(0.1)
    assert data_of(one.sink.take()) == ["again"]


async def test_the_players_of_a_gateway_that_is_gone_keep_their_seats_for_the_grace(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.connect(2)
    stays_away = await cluster["b"].harness.joined(3)
    player = await two.join()
    lost = stays_away.sink.seats[ROOM].player
    await trio.sleep(0.1)
    one.sink.take()
    cluster.kill("b")
    await trio.sleep(5)
    again = await cluster["c"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(30)
    left = [each["data"]["player"] for each in one.sink.take()]
    assert left == [lost]


async def test_a_host_that_dies_is_replaced_and_players_keep_their_ids(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    four = await cluster["c"].harness.joined(4)
    ids = [each.sink.seats[ROOM].player for each in (two, three, four)]
    await trio.sleep(0.1)
    for each in (two, three, four):
        each.sink.take()
    cluster.prefer = "b"
    cluster.kill("a")
    await trio.sleep(2)
    assert cluster.places[ROOM] == ("b", 3)
    for each in (two, three, four):
        messages = each.sink.take()
        assert messages[-1]["command"] == "instance-restored"
        players = [one["player"] for one in messages[-1]["data"]["players"]]
        assert sorted(players) == sorted(ids)
    assert [each.sink.seats[ROOM].player for each in (two, three, four)] == ids
    for sender, receiver in ((two, three), (three, two), (four, three)):
        sender.say(b'"here"')
        await trio.sleep(0.1)
        assert data_of(receiver.sink.take()) == ["here"]
        for each in (two, three, four):
            each.sink.take()
    await three.leave()
    await trio.sleep(0.1)
    assert commands_of(two) == ["instance-left"]
    assert commands_of(four) == ["instance-left"]


async def test_a_host_without_players_of_its_own_takes_over(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    cluster.prefer = "c"
    cluster.kill("a")
    await trio.sleep(2)
    assert cluster.places[ROOM] == ("c", 3)
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    assert two.sink.seats[ROOM].player == player


async def test_a_gateway_that_the_new_host_did_not_hear_of_returns_late(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    ids = [each.sink.seats[ROOM].player for each in (two, three)]
    two.sink.take(), three.sink.take()
    cluster.prefer = "b"
    cluster["c"].bus.cut()
    cluster.kill("a")
    await trio.sleep(1)
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    cluster["c"].bus.mend()
    cluster["c"].relay.reconnected()
    await trio.sleep(3)
    assert commands_of(two) == []  # it was in its grace
    assert commands_of(three) == ["instance-paused", "instance-restored"]
    assert [each.sink.seats[ROOM].player for each in (two, three)] == ids
    three.say(b'"back"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["back"]


async def test_a_session_that_ended_meanwhile_does_not_come_back(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    cluster.prefer = "b"
    cluster.kill("a")
    three.harness.node.sessions.end(three.principal.session_id)
    await trio.sleep(2)
    restored = two.sink.take()[-1]
    assert restored["command"] in ("instance-restored", "instance-left")
    await trio.sleep(1)
    instance = cluster["b"].harness.instance
    players = await instance.ask(GetPlayers(None))
    assert [player.session for player, _ in players] == [two.principal.session_id]


async def test_an_instance_that_is_gone_closes_for_its_players(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    cluster.store.instances.records.clear()
    cluster.kill("a")
    await trio.sleep(2)
    messages = two.sink.take()
    assert [each["command"] for each in messages] == ["instance-paused", "instance-left"]
    assert messages[1]["data"]["reason"] == "closed"
    assert ROOM not in two.sink.seats
    with pytest.raises(NotInInstance):
        await two.leave()
    await trio.sleep(10)
    assert cluster["b"].relay.debug_counts()["remote instances"] == 0


async def test_a_join_waits_for_the_new_host(cluster: Cluster, autojump_clock: MockClock) -> None:
    await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.connect(3)
    cluster.prefer = "b"
    cluster["a"].bus.cut()
    cluster["a"].member.alive = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(three.join)
        await trio.sleep(1)
        cluster.kill("a")
    await trio.sleep(0.1)
    assert three.sink.take()[0]["command"] == "instance-join"


async def test_a_join_is_refused_when_no_host_is_found_in_time(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.connect(3)
    cluster["a"].bus.cut()
    began = trio.current_time()
    with pytest.raises(Overloaded):
        await three.join()
    assert 3 < trio.current_time() - began < 6
    assert ROOM not in three.sink.seats


async def test_a_large_snapshot_goes_to_its_gateway_alone_and_keeps_the_order(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_cluster(monkeypatch, "a", "b", "c", max_data_bytes=64 * 1024) as cluster:
        cluster.prefer = "a"
        await cluster["c"].harness.joined(9)
        one, *others = [await cluster["a"].harness.joined(number) for number in range(1, 4)]
        for number in range(12):
            one.say(b'"%b"' % (b"x" * 5000), key=f"k{number}")
            for other in others:
                other.say(b'"%b"' % (b"y" * 5000), key=f"k{number}")
            await trio.sleep(0.01)
        cluster.nats.published.clear()
        two = await cluster["b"].harness.connect(20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.join)
            for number in range(3):
                one.say(b"%d" % number)
                await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        fans = sum(size for _, subject, size in cluster.nats.published if ".i." in subject)
        assert fans < 20_000
        assert max(size for _, _, size in cluster.nats.published) <= 64 * 1024
        joined = two.sink.frames
        assert len(joined) >= 5  # the fragments of the answer
        one.say(b'"after"')
        await trio.sleep(0.1)
        assert b'"after"' in two.sink.frames[-1]


async def test_players_of_a_node_that_fell_are_the_same_at_the_new_host(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """The process goes on as another node; its sockets stay open, and it may host again."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    ids = [each.sink.seats[ROOM].player for each in (one, two)]
    await trio.sleep(0.1)
    one.sink.take(), two.sink.take()
    cluster.prefer = "b"
    cluster.fall("a", "a2")
    await trio.sleep(3)
    assert cluster.places[ROOM][0] == "b"
    for client in (one, two):
        assert commands_of(client)[-1] == "instance-restored"
    assert [each.sink.seats[ROOM].player for each in (one, two)] == ids
    one.say(b'"still here"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["still here"]
    two.say(b'"me too"')
    await trio.sleep(0.1)
    assert data_of(one.sink.take()) == ["me too"]
    await one.leave()
    await trio.sleep(0.1)
    assert commands_of(two)[0] == "instance-left"


async def test_data_that_a_fallen_host_never_relayed_is_refused(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """Each has one answer: what came before the suspension, during it, and just before the fall."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(0.1)
    one.sink.take(), two.sink.take()
    cluster.prefer = "b"
    one.say(b'"accepted"', state=b"1")
    cluster["a"].member.alive = False
    await trio.sleep(0.1)
    one.say(b'"refused"', state=b"2")
    await trio.sleep(0.1)
    one.say(b'"waits"', state=b"3")
    assert one.sink.take() == []
    cluster["a"].member.alive = True
    cluster.fall("a", "a2")
    await trio.sleep(3)
    answers = [each for each in one.sink.take() if "state" in each]
    assert sorted(each["state"] for each in answers) == [1, 2, 3]
    assert {each["error"]["code"] for each in answers} == {122}
    assert data_of(two.sink.take()) == []


async def test_a_gateway_that_fell_goes_on_with_the_same_host(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    await trio.sleep(0.1)
    one.sink.take(), two.sink.take()
    cluster.fall("b", "b2")
    await trio.sleep(3)
    assert commands_of(two)[-1] == "instance-restored"
    assert two.sink.seats[ROOM].player == player
    assert "instance-left" not in commands_of(one)
    two.say(b'"back"')
    await trio.sleep(0.1)
    assert data_of(one.sink.take()) == ["back"]


@pytest.mark.parametrize("paused_s", [1, 15])
async def test_players_of_a_gateway_that_was_paused_and_given_up_are_told(
    cluster: Cluster, paused_s: int, autojump_clock: MockClock
) -> None:
    """What the host said of them meanwhile arrives before the node knows that it fell."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    await trio.sleep(0.1)
    one.sink.take(), two.sink.take()
    cluster["b"].member.alive = False
    cluster["a"].relay.node_gone("b")
    one.say(b'"meanwhile"')
    await trio.sleep(paused_s)
    assert b'"meanwhile"' not in b"".join(two.sink.frames)
    cluster["b"].member.alive = True
    cluster.fall("b", "b2")
    await trio.sleep(3)
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    assert two.sink.seats[ROOM].player == player
    gone_and_back = ["instance-left", "instance-joined"]
    assert commands_of(one) == (gone_and_back if paused_s > 10 else [])
    two.say(b'"back"')
    await trio.sleep(0.1)
    assert data_of(one.sink.take()) == ["back"]


def gap_of(client: Client) -> bool:
    """Whether the answer to the last join says that messages may be missing."""
    answers = [one for one in client.sink.take() if one["command"] == "instance-join"]
    return bool(answers[-1]["data"].get("gap", False))


@pytest.mark.parametrize("under_way", [True, False])
async def test_frames_on_their_way_to_a_socket_that_closes_are_a_gap(
    cluster: Cluster, under_way: bool, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    await trio.sleep(0.1)
    if under_way:
        cluster.nats.hold()
    one.say(b'"meanwhile"')
    await trio.sleep(0.1)
    two.lose()
    await trio.sleep(0.1)
    if under_way:
        cluster.nats.release()
    await trio.sleep(0.1)
    again = await cluster["c"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(0.1)
    assert gap_of(again) is under_way


@pytest.mark.parametrize("late_s", [0.0, 2.0], ids=["at once", "late"])
@pytest.mark.parametrize("read_s", [-0.5, 0.5, 1.5])
@pytest.mark.parametrize("told", ["to the client", "of its end"])
async def test_what_a_client_that_vanished_may_not_have_read_is_a_gap(
    cluster: Cluster, late_s: float, read_s: float, told: str, autojump_clock: MockClock
) -> None:
    """Whichever message was late: the one to the client, or the one that it has vanished."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    await trio.sleep(5)

    async def late() -> None:
        await trio.sleep(late_s)
        cluster.nats.release()
        await trio.sleep(0.1)

    if told == "to the client":
        cluster.nats.hold()
    one.say(b'"meanwhile"')
    if told == "to the client":
        await late()
    await trio.sleep(0.1)
    two.sink.vanished_at = trio.current_time() + read_s - 0.1
    await trio.sleep(3)
    if told == "of its end":
        cluster.nats.hold()
    two.lose()
    if told == "of its end":
        await late()
    await trio.sleep(0.1)
    again = await cluster["c"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(0.1)
    assert gap_of(again) is (read_s < 1)


@pytest.mark.parametrize("spoke", [True, False])
async def test_a_client_that_vanished_long_after_its_instance_moved_has_no_gap(
    cluster: Cluster, spoke: bool, autojump_clock: MockClock
) -> None:
    """The stream of the new host begins anew."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["c"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    one.say(b'"before"')
    await trio.sleep(0.1)
    await cluster["a"].handover.run()
    await trio.sleep(5)
    assert cluster.places[ROOM][0] == "b"
    two.sink.vanished_at = trio.current_time()
    await trio.sleep(2)
    if spoke:
        one.say(b'"after"')
        await trio.sleep(0.1)
    two.lose()
    await trio.sleep(0.1)
    again = await cluster["b"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(0.1)
    assert gap_of(again) is spoke


async def test_what_a_dead_gateway_was_sent_before_its_death_is_known_is_a_gap(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    await trio.sleep(0.1)
    cluster["b"].bus.cut()
    one.say(b'"meanwhile"')
    await trio.sleep(0.1)
    again = await cluster["c"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(0.1)
    assert gap_of(again)


async def test_a_gateway_that_was_suspended_gets_all_it_missed(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(0.1)
    two.sink.take()
    cluster["b"].member.alive = False
    one.say(b'"meanwhile"')
    await trio.sleep(0.5)
    assert two.sink.take() == []
    cluster["b"].member.alive = True
    await trio.sleep(0.5)
    assert data_of(two.sink.take()) == ["meanwhile"]


async def test_a_socket_that_closes_while_its_instance_moves_is_lost(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    cluster.prefer = "b"
    cluster.kill("a")
    two.lose()
    three.lose()
    await trio.sleep(3)
    players = await cluster["b"].harness.instance.ask(GetPlayers(None))
    assert len(players) == 2  # in their grace
    await trio.sleep(20)
    assert await cluster["b"].harness.node.instance_service.players(ROOM) == ()


async def test_a_full_room_stays_full_while_its_host_changes(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=2)
    await cluster["b"].harness.joined(2)
    await cluster["c"].harness.joined(3)
    late = await cluster["b"].harness.connect(4)
    cluster.prefer = "b"
    cluster.kill("a")
    with pytest.raises(InstanceFull):
        await late.join()


async def test_a_kick_that_its_gateway_had_not_heard_of_is_in_force_at_the_new_host(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    two.sink.take(), three.sink.take()
    cluster.prefer = "b"
    cluster.kicks = {user_at(3): two.harness.clock.now_ms() + 1}
    cluster.kill("a")
    await trio.sleep(2)
    messages = three.sink.take()
    assert [each["command"] for each in messages] == ["instance-paused", "instance-left"]
    assert messages[1]["data"]["reason"] == "kicked"
    assert ROOM not in three.sink.seats
    assert len(two.sink.take()[-1]["data"]["players"]) == 1
    await three.join()  # a kick is no ban


async def test_players_of_the_dead_host_itself_come_back_as_the_same_players(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    one = await cluster["a"].harness.joined(1)
    gone = await cluster["a"].harness.joined(4)
    left = await cluster["a"].harness.joined(5)
    two = await cluster["b"].harness.joined(2)
    player, lost = one.sink.seats[ROOM].player, gone.sink.seats[ROOM].player
    await left.leave()
    await trio.sleep(1)
    two.sink.take()
    cluster.prefer = "b"
    cluster.kill("a")
    await trio.sleep(3)
    restored = two.sink.take()[-1]
    assert len(restored["data"]["players"]) == 3
    again = await cluster["c"].harness.connect(1)
    assert await again.join() == player
    await trio.sleep(20)
    told = [each["data"]["player"] for each in two.sink.take() if "player" in each["data"]]
    assert told == [lost]


async def test_a_kick_is_in_force_for_a_gateway_that_tells_of_its_players_late(
    cluster: Cluster,
    autojump_clock: MockClock,
) -> None:
    """It was cut off when the host kicked its player and died, and when the next one asked."""
    two = await cluster["b"].harness.joined(2)
    three, four = [await cluster["c"].harness.joined(number) for number in (3, 4)]
    player = four.sink.seats[ROOM].player
    cluster["c"].bus.cut()
    cluster.prefer = "b"
    cluster.kicks = {user_at(3): two.harness.clock.now_ms() + 1}
    cluster.kill("a")
    await trio.sleep(2)
    cluster["c"].bus.mend()
    cluster["c"].relay.reconnected()
    await trio.sleep(2)
    reasons = [one["data"].get("reason") for one in three.sink.take()]
    assert reasons[-1] == "kicked"
    assert ROOM not in three.sink.seats
    assert four.sink.seats[ROOM].player == player
    players = await two.harness.node.instance_service.players(ROOM)
    assert {one.user for one, _ in players} == {user_at(2), user_at(4)}


@pytest.mark.parametrize("host_dies", [False, True])
@pytest.mark.parametrize("back", ["b", "c", None])
async def test_one_session_in_its_grace_at_two_gateways_is_one_player(
    cluster: Cluster, host_dies: bool, back: str | None, autojump_clock: MockClock
) -> None:
    one = await cluster["b"].harness.joined(1)
    two, other = [await cluster[node].harness.connect(2) for node in ("b", "c")]
    player = await two.join()
    assert await other.join() == player
    one.sink.take()
    two.lose()
    other.lose()
    await trio.sleep(1)
    if host_dies:
        cluster.prefer = "c"
        cluster.kill("a")
        await trio.sleep(3)
    if back is not None:
        again = await cluster[back].harness.connect(2)
        assert await again.join() == player
    await trio.sleep(15)
    left = [each["data"] for each in one.sink.take() if each["command"] == "instance-left"]
    assert [each["player"] for each in left] == ([] if back else [player])
    players = await one.harness.node.instance_service.players(ROOM)
    assert len(players) == (2 if back else 1)


async def test_players_who_return_late_are_not_told_of_those_in_their_snapshot(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    late = [await cluster["c"].harness.joined(number) for number in (3, 4)]
    two.sink.take()
    cluster.prefer = "b"
    cluster["c"].bus.cut()
    cluster.kill("a")
    await trio.sleep(15)  # their grace is over
    for client in (two, *late):
        client.sink.take()
    cluster["c"].bus.mend()
    cluster["c"].relay.reconnected()
    await trio.sleep(3)
    assert sorted(commands_of(two)) == ["instance-joined"] * 2
    for client in late:
        (restored,) = client.sink.take()
        assert restored["command"] == "instance-restored"
        assert len(restored["data"]["players"]) == 3


async def test_a_client_that_leaves_a_silent_node_is_told_of_a_gap(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    """Its node does not answer, and has not been given up yet."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    player = two.sink.seats[ROOM].player
    await trio.sleep(0.1)
    cluster.nats.loses = lambda bus, _: bus == "b"  # it is paused: it hears nothing
    one.say(b'"meanwhile"')
    await trio.sleep(0.1)
    again = await cluster["c"].harness.connect(2)
    assert await again.join() == player
    await trio.sleep(0.1)
    (joined,) = again.sink.take()  # once, although the host has waited for the silent node
    assert joined["command"] == "instance-join"
    assert joined["data"]["gap"]


async def test_a_node_tells_what_its_relay_has_met(
    cluster: Cluster, autojump_clock: trio.testing.MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    await cluster["b"].harness.joined(2)
    cluster.nats.loses = Losing(".i.", 0)
    for _ in range(2):
        one.say(b"1")
        await trio.sleep(0.1)
    figures = await cluster["a"].calls.call("b", "figures", GetFigures(), Figures, 1)
    assert figures == Figures(gaps=1, replays=1)


async def test_a_process_that_fell_and_hosts_again_hears_gateways(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster.fall("a", "a2")
    cluster.prefer = "a2"
    await trio.sleep(1)
    here = await cluster["a2"].harness.joined(1)
    there = await cluster["b"].harness.joined(2)
    assert cluster.places[ROOM][0] == "a2"
    there.say(b'"heard"')
    await trio.sleep(0.1)
    assert data_of(here.sink.take()) == ["heard"]
