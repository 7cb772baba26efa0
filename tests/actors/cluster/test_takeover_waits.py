"""Players of a gateway come back after a take-over, whatever is lost, late or given up."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from actors.cluster.wire import Figures, GetFigures
from actors.instance.messages import GetPlayers, InstanceMessage
from actors.runtime.mailbox import Ref
from reileta.cluster.bus import BusMessage
from reileta.errors import DatabaseUnavailable, ReiletaError
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.cluster.faults import Faults
from tests.actors.cluster.test_faults import commands_of, data_of
from tests.actors.node_harness import ROOM, Client

pytestmark = pytest.mark.usefixtures("autojump_clock")

NODES = ("a", "b", "c", "d")
BACK_S = 6
"""Seconds after the last fault in which all players must hear each other."""
GIVEN_UP_S = (0.05, 0.2, 0.5, 1, 2, 4)
SEEDS = range(40)


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[Cluster]:
    """Four nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, *NODES) as opened:
        opened.prefer = "a"
        yield opened


def reseats(bus: str, message: BusMessage) -> bool:
    """Whether it is a host's question for the players."""
    return b"reseat" in message.data and message.subject.endswith(".rpc")


async def asks(cluster: Cluster, node: str, after_s: float, within_s: float) -> None:
    """A request that its client gives up."""
    await trio.sleep(after_s)
    remote = cluster[node].relay.find_remote(ROOM)
    if remote is not None:
        with suppress(ReiletaError), trio.move_on_after(within_s):
            await remote.ask(GetPlayers(None))


async def joins(cluster: Cluster, node: str, number: int, after_s: float, within_s: float) -> None:
    """A join that its client gives up."""
    await trio.sleep(after_s)
    client = await cluster[node].harness.connect(number)
    with suppress(ReiletaError), trio.move_on_after(within_s):
        await client.join()


@pytest.mark.parametrize("within_s", [0.3, 0.6, 1.0])
async def test_the_search_for_the_host_outlives_the_request_that_began_it(
    cluster: Cluster, within_s: float, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    two.sink.take(), three.sink.take()
    cluster.prefer = "c"
    cluster.nats.loses = reseats
    cluster["a"].bus.cut()
    cluster["a"].member.alive = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asks, cluster, "b", 0, within_s)
        await trio.sleep(0.25)
        cluster.kill("a")
    await trio.sleep(5)
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    three.say(b'"after"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["after"]


async def test_a_gateway_that_a_starting_host_has_asked_is_not_told_that_it_is_unknown(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """The host waits for another gateway, for longer than this one is silent."""
    two = await cluster["b"].harness.joined(2)
    await cluster["c"].harness.joined(3)
    await cluster["d"].harness.joined(4)
    await trio.sleep(0.1)
    two.sink.take()
    cluster.prefer = "c"
    cluster.nats.loses = lambda bus, message: bus == "d"
    cluster.kill("a")
    await trio.sleep(5)
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    figures = await cluster["c"].calls.call("b", "figures", GetFigures(), Figures, 1)
    assert figures.restores == 0


async def test_a_join_does_not_hide_that_the_host_did_not_hear_of_the_others(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    two = await cluster["b"].harness.joined(2)
    three = await cluster["c"].harness.joined(3)
    late = await cluster["b"].harness.connect(4)
    await trio.sleep(0.1)
    two.sink.take()
    cluster.prefer = "c"

    def loses(bus: str, message: BusMessage) -> bool:
        """The new host hears no answers, and no word of gateways."""
        return bus == "c" and message.subject.split(".")[-1] != "rpc"

    cluster.nats.loses = loses
    cluster.kill("a")
    while ROOM not in cluster["c"].relay.hosted or cluster["c"].relay.hosted[ROOM].ref is None:
        await trio.sleep(0.05)
    assert not cluster["c"].relay.hosted[ROOM].gateways
    await late.join()
    cluster.nats.loses = lambda bus, message: False
    await trio.sleep(3)
    assert commands_of(two).count("instance-restored") == 1
    three.sink.take(), late.sink.take()
    two.say(b'"here"')
    await trio.sleep(0.1)
    assert data_of(three.sink.take()) == data_of(late.sink.take()) == ["here"]


@pytest.mark.parametrize("fails", [1, 3])
async def test_a_host_whose_actor_did_not_start_tries_again_when_gateways_ask(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, fails: int
) -> None:
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(0.1)
    two.sink.take()
    cluster.prefer = "c"
    manager = cluster["c"].manager
    start, left = manager.start, fails

    async def start_late(instance_id: str) -> Ref[InstanceMessage]:
        nonlocal left
        left -= 1
        if left >= 0:
            raise DatabaseUnavailable
        return await start(instance_id)

    monkeypatch.setattr(manager, "start", start_late)
    cluster.kill("a")
    await trio.sleep(3)
    assert cluster.places[ROOM][0] == "c"
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    late = await cluster["d"].harness.joined(4)
    late.sink.take()
    two.say(b'"here"')
    await trio.sleep(0.1)
    assert data_of(late.sink.take()) == ["here"]


async def test_players_who_wait_for_nothing_are_looked_after(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(0.1)
    one.sink.take(), two.sink.take()
    cluster["b"].relay.remotes[ROOM].pause()
    await trio.sleep(3)
    assert commands_of(two) == ["instance-paused", "instance-restored"]
    two.say(b'"on"')
    await trio.sleep(0.1)
    assert data_of(one.sink.take()) == ["on"]


async def test_while_the_bus_is_away_players_wait_for_it(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(0.1)
    two.sink.take()
    cluster["b"].bus.cut()
    await trio.sleep(2.5)
    cluster["b"].bus.mend()
    cluster["b"].relay.reconnected()
    await trio.sleep(3)
    assert commands_of(two) == ["instance-paused", "instance-resumed"]


async def hear_each_other(clients: list[Client]) -> bool:
    """Whether the data of each of them reaches all others."""
    for one in clients:
        one.sink.take()
    for number, one in enumerate(clients):
        try:
            one.say(b"%d" % number)
        except ReiletaError:
            return False
    await trio.sleep(0.05)
    everybody = set(range(len(clients)))
    return all(
        set(data_of(one.sink.take())) == everybody - {number} for number, one in enumerate(clients)
    )


@pytest.mark.parametrize("seed", SEEDS)
async def test_players_hear_each_other_after_faults_of_all_kinds(
    cluster: Cluster, seed: int, autojump_clock: MockClock
) -> None:
    """The host dies, and perhaps the next one, while requests and joins come and are given up."""
    chance = random.Random(seed)
    clients = [(node, await cluster[node].harness.joined(one)) for one, node in enumerate("bbcdd")]
    await trio.sleep(0.5)
    async with trio.open_nursery() as nursery:
        cluster.nats.loses = faults = Faults(
            cluster, chance, nursery, lost=(0, 0.05, 0.3), late=(0, 0.3, 0.8), late_s=(0.1, 1, 3)
        )
        for _ in range(chance.randrange(6)):
            request = chance.choice("bcd"), chance.uniform(0, 4), chance.choice(GIVEN_UP_S)
            nursery.start_soon(asks, cluster, *request)
        for number in range(chance.randrange(3)):
            request = chance.choice("bcd"), chance.uniform(0, 4), chance.choice(GIVEN_UP_S)
            nursery.start_soon(joins, cluster, request[0], 20 + number, *request[1:])

        async def hears(node: str, dead: str, after_s: float) -> None:
            await trio.sleep(after_s)
            cluster[node].relay.node_gone(dead)

        async def dies(name: str) -> None:
            cluster.prefer = chance.choice([one for one in "bcd" if one != name])
            cluster[name].bus.cut()
            cluster[name].member.alive = False
            await trio.sleep(chance.uniform(0, 1))
            cluster.vacate(name)
            for node in cluster.live:
                nursery.start_soon(hears, node, name, chance.uniform(0, 1))

        await dies("a")
        if chance.random() < 0.3:
            await trio.sleep(chance.uniform(0, 3))
            host = cluster.places[ROOM][0]
            if host is not None:
                await dies(host)
        await trio.sleep(chance.uniform(0, 3))
        faults.over = True
        began = trio.current_time()
        alive = [client for node, client in clients if node in cluster.live]
        while not await hear_each_other(alive):
            assert trio.current_time() - began < BACK_S
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
