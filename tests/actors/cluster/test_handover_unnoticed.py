"""Players notice nothing of a hand-over: all comes once, in order, also what is said meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from actors.instance.messages import GetPlayers
from reileta.cluster.bus import BusMessage
from reileta.protocol import events
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.cluster.test_faults import Losing, commands_of, data_of
from tests.actors.node_harness import ROOM, Client, user_at


@asynccontextmanager
async def three_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Cluster, list[Client]]]:
    """The room is at `a`, is to go to `b`, and has a player at each node."""
    async with open_cluster(monkeypatch, "a", "b", "c") as cluster:
        cluster.prefer = "a"
        cluster["a"].member.unseen.add("c")
        clients = [await cluster[node].harness.joined(number) for number, node in enumerate("abc")]
        await trio.sleep(1)
        for client in clients:
            client.sink.take()
        yield cluster, clients


def speak(clients: list[Client], said: int) -> int:
    """Each says the next number, without a key and with one; returns it."""
    for number, client in enumerate(clients):
        client.say(b"[%d,%d]" % (number, said))
        client.say(b"[%d,%d]" % (number, said), key="k")
    return said + 1


def assert_unnoticed(clients: list[Client], said: int) -> None:
    """Each has got all of the others, twice each, and nothing else."""
    for number, client in enumerate(clients):
        received = client.sink.take()
        assert {each["command"] for each in received} == {"instance-data"}
        for other in range(len(clients)):
            of_other = [said for sender, said in data_of(received) if sender == other]
            wanted = [] if other == number else [each // 2 for each in range(2 * said)]
            assert of_other == wanted


Step = Callable[[Cluster], None]


def nothing(cluster: Cluster) -> None:
    """Everything arrives."""


def lose_fan(cluster: Cluster) -> None:
    cluster.nats.loses = Losing(".i.", 1, 2, bus="c")


def lose_tail(cluster: Cluster) -> None:
    cluster.nats.loses = Losing(".i.", *range(2, 12), bus="c")


def lose_in(cluster: Cluster) -> None:
    cluster.nats.loses = Losing(".in", 0, 2, 3)


def lose_reseat(cluster: Cluster) -> None:
    """The first calls to the third node, and what it answers, are lost."""
    cluster.nats.loses = Losing("n.c.rpc", 0)


def lose_adopt(cluster: Cluster) -> None:
    cluster.nats.loses = Losing("n.b.rpc", 1)


@pytest.mark.parametrize("fault", [nothing, lose_fan, lose_tail, lose_in, lose_reseat, lose_adopt])
async def test_what_is_said_during_a_hand_over_comes_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, fault: Step
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        said = speak(clients, 0)
        fault(cluster)
        moving = True

        async def keep_speaking() -> None:
            nonlocal said
            while moving:
                said = speak(clients, said)
                await trio.sleep(0.003)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_speaking)
            await trio.sleep(0.01)
            await cluster["a"].handover.run()
            await trio.sleep(0.01)
            moving = False
        await trio.sleep(4)
        assert cluster.places[ROOM] == ("b", 2)
        assert_unnoticed(clients, said)
        said = speak(clients, said)
        await trio.sleep(2)
        for client in clients:
            assert len(data_of(client.sink.take())) == 4


async def test_an_instance_that_can_not_move_passes_on_what_it_was_told(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        said = speak(clients, 0)
        cluster.database_away = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster["a"].handover.run)
            for _ in range(20):
                said = speak(clients, said)
                await trio.lowlevel.checkpoint()
        await trio.sleep(3)
        assert cluster.places[ROOM] == ("a", 1)
        assert_unnoticed(clients, said)


async def test_requests_during_a_hand_over_wait_for_the_new_host(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        late = [await cluster[node].harness.connect(9 + n) for n, node in enumerate("abc")]
        gate = trio.Event()
        move = cluster["a"].handover._leases.move  # noqa: SLF001

        async def slow(*args: object) -> object:
            await gate.wait()
            return await move(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(cluster["a"].handover._leases, "move", slow)  # noqa: SLF001
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster["a"].handover.run)
            await trio.sleep(0.1)
            for client in late:
                nursery.start_soon(client.join)
            nursery.start_soon(clients[0].leave)
            await trio.sleep(0.1)
            assert [client.sink.take() for client in (*clients, *late)] == [[]] * 6
            gate.set()
        await trio.sleep(1)
        for client in late:
            assert commands_of(client)[0] == "instance-join"
        for client in clients[1:]:
            told = commands_of(client)
            # The one who left was the master.
            assert sorted(set(told)) == ["instance-joined", "instance-left", "instance-role"]
            assert len(told) == 5
        players = await cluster["b"].harness.instance.ask(GetPlayers(None))
        assert len(players) == 5


async def test_a_player_in_its_grace_gets_what_it_missed_from_both_hosts(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        player = clients[2].sink.seats[ROOM].player
        clients[2].lose()
        await trio.sleep(0.1)
        clients[0].say(b'"before"')
        await trio.sleep(3)
        await cluster["a"].handover.run()
        clients[0].say(b'"after"')
        await trio.sleep(3)
        again = await cluster["a"].harness.connect(2)
        assert await again.join() == player
        await trio.sleep(0.1)
        received = again.sink.take()
        assert "gap" not in received[0]["data"]
        assert data_of(received) == ["before", "after"]
        assert data_of(clients[1].sink.take()) == ["before", "after"]


async def test_a_grace_period_goes_on_at_the_new_host(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        clients[2].lose()
        await trio.sleep(8)
        await cluster["a"].handover.run()
        await trio.sleep(1)
        assert commands_of(clients[1]) == []
        await trio.sleep(1.5)
        assert commands_of(clients[1]) == [events.INSTANCE_LEFT]


async def test_a_socket_that_closes_during_a_hand_over_is_lost_at_the_new_host(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        players = [client.sink.seats[ROOM].player for client in clients]

        def lose() -> None:
            for client in clients:
                client.lose()

        cluster.on_move = lose
        await cluster["a"].handover.run()
        await trio.sleep(1)
        for number, node in enumerate("cab"):
            again = await cluster[node].harness.connect(number)
            assert await again.join() == players[number]
            again.lose()
        await trio.sleep(20)
        assert await cluster["b"].harness.node.instance_service.players(ROOM) == ()


async def test_the_master_stays_the_master(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        service = cluster["a"].harness.node.instance_service
        await service.transfer_master(ROOM, clients[0].principal, user_at(2))
        await trio.sleep(1)
        for client in clients:
            client.sink.take()
        await cluster["a"].handover.run()
        await trio.sleep(1)
        players = await cluster["b"].harness.instance.ask(GetPlayers(None))
        assert [player.user for player, role in players if role == "master"] == [user_at(2)]
        assert [client.sink.take() for client in clients] == [[]] * 3


async def test_values_are_still_compared_by_their_times(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        for client in clients:
            client.say(b'"new"', key="k", at=2.0)
        await trio.sleep(0.1)
        await cluster["a"].handover.run()
        await trio.sleep(0.5)
        for client in clients:
            client.sink.take()
        for client in clients:
            client.say(b'"old"', key="k", at=1.0)
        await trio.sleep(1)
        assert [client.sink.take() for client in clients] == [[]] * 3


async def test_a_gateway_that_misses_the_last_words_gets_a_snapshot(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):

        def loses(bus: str, message: BusMessage) -> bool:
            return bus == "c" and ".i." in message.subject

        cluster.nats.loses = loses
        clients[0].say(b'"missed"', key="k")
        await trio.sleep(0.01)

        def forget() -> None:
            hosted = cluster["a"].relay.hosted[ROOM]
            hosted._outgoing.forget_old(trio.current_time() + 60)  # noqa: SLF001

        cluster.on_move = forget
        await cluster["a"].handover.run()
        cluster.nats.loses = lambda *_: False
        await trio.sleep(2)
        assert commands_of(clients[0]) == commands_of(clients[1]) == []
        (restored,) = (one for one in clients[2].sink.take() if one["command"] != "instance-paused")
        assert restored["command"] == "instance-restored"
        assert [one["data"] for one in restored["data"]["retained"]] == ["missed"]


async def test_an_old_host_that_dies_before_it_tells_the_new_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with three_nodes(monkeypatch) as (cluster, clients):
        ids = [client.sink.seats[ROOM].player for client in clients]
        cluster.on_move = lambda: cluster.kill("a")
        await cluster["a"].handover.run()
        await trio.sleep(5)
        for client in clients[1:]:
            assert commands_of(client)[-1] == "instance-restored"
        assert [client.sink.seats[ROOM].player for client in clients[1:]] == ids[1:]
        clients[1].say(b'"on"')
        await trio.sleep(1)
        assert data_of(clients[2].sink.take()) == ["on"]


async def test_a_gateway_may_speak_while_the_next_host_waits_for_another_one(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The next host asks one gateway twice. Others, which it has asked, tell it their numbers
    meanwhile, each second; that must not look as if it did not know them."""
    async with open_cluster(monkeypatch, "a", "b", "c", "d") as cluster:
        cluster.prefer = "a"
        cluster["a"].member.unseen.update("cd")
        clients = [await cluster[node].harness.joined(one) for one, node in enumerate("abcd")]
        await trio.sleep(1.5)
        for client in clients:
            client.sink.take()
        cluster.nats.loses = Losing("n.d.rpc", 0)
        await cluster["a"].handover.run()
        await trio.sleep(3)
        assert cluster.places[ROOM] == ("b", 2)
        for client in clients:
            assert commands_of(client) == []
