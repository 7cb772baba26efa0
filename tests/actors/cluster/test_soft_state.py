"""Seats, the queue and invitations survive the death of their host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

import actors.cluster.soft_state
from actors.cluster.soft_state import RENEWED_S, SHARD_BYTES, SHARDS
from reileta.errors import InstanceFull
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, Client, principal, user_at


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b", "c") as opened:
        opened.prefer = "a"
        yield opened


def die(cluster: Cluster, next_host: str) -> None:
    """The host dies, with its sockets."""
    cluster.prefer = next_host
    cluster.kill("a")


def commands_of(client: Client) -> list[str]:
    return [one["command"] for one in client.sink.take() if one["command"] != "instance-queue"]


async def entries(cluster: Cluster, node: str) -> list[tuple[str, str, int | None]]:
    """The queue, as its owner sees it."""
    queue = await cluster[node].harness.node.instance_service.queue(ROOM, principal(0))
    return [(one.user, one.state, one.position) for one in queue.entries or ()]


async def test_players_who_were_all_at_the_dead_host_come_back_as_the_same(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """Also one who was in its grace. Another one does not come back, and leaves."""
    clients = {number: await cluster["a"].harness.joined(number) for number in (1, 2, 3, 4)}
    players = {number: one.sink.seats[ROOM].player for number, one in clients.items()}
    clients[4].lose()
    await trio.sleep(1)
    die(cluster, "b")
    await trio.sleep(4)
    again = []
    for number, node in ((2, "b"), (1, "c"), (4, "c")):
        back = await cluster[node].harness.connect(number)
        assert await back.join() == players[number]
        again.append(back)
    await trio.sleep(5)
    for back in again:
        assert "instance-left" not in commands_of(back)
    await trio.sleep(6)
    for back in again:
        (left,) = back.sink.take()
        assert (left["command"], left["data"]["player"]) == ("instance-left", players[3])
        assert left["data"]["reason"] == "disconnected"


async def test_a_seat_is_kept_for_who_comes_back_and_not_for_others(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=2)
    one, _ = await cluster["a"].harness.joined(1), await cluster["a"].harness.joined(2)
    player = one.sink.seats[ROOM].player
    await trio.sleep(1)
    die(cluster, "b")
    with pytest.raises(InstanceFull):
        await (await cluster["b"].harness.connect(3)).join()
    assert await (await cluster["c"].harness.connect(1)).join() == player
    await trio.sleep(11)
    await (await cluster["b"].harness.connect(3)).join()


async def test_a_kicked_player_has_no_seat_at_the_next_host(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """The kick was the last that its host did, and is only in the log."""
    one, two = await cluster["a"].harness.joined(1), await cluster["a"].harness.joined(2)
    players = [each.sink.seats[ROOM].player for each in (one, two)]
    await trio.sleep(1)
    cluster.kicks[user_at(2)] = cluster["a"].harness.clock.now_ms()
    die(cluster, "b")
    assert await (await cluster["b"].harness.connect(1)).join() == players[0]
    assert await (await cluster["b"].harness.connect(2)).join() != players[1]


@pytest.mark.parametrize("next_host", ["b", "c"])
async def test_the_queue_keeps_its_order_and_invitations_hold(
    cluster: Cluster, next_host: str, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=1, access="avr:invite_plus")
    inside = await cluster["b"].harness.joined(0)
    service = cluster["b"].harness.node.instance_service
    for number in (5, 3, 4, 7):
        await cluster["c"].harness.connect(number)
        await service.candidate(ROOM, principal(number))
    for number in (4, 5, 6, 3):
        await service.admit(ROOM, principal(0), user_at(number))
    await service.withdraw(ROOM, principal(4))
    await service.candidate(ROOM, principal(4))
    before = await entries(cluster, "b")
    line = [(5, "waiting", 1), (6, "waiting", 2), (3, "waiting", 3), (4, "waiting", 4)]
    line.append((7, "pending", None))  # type: ignore[arg-type]
    assert before == [(user_at(number), *rest) for number, *rest in line]
    await trio.sleep(1)
    die(cluster, next_host)
    await trio.sleep(2)
    assert await entries(cluster, next_host) == before
    recovery = cluster[next_host].relay.hosted[ROOM].recovery
    assert recovery is not None
    assert recovery.rules is not None
    assert recovery.rules.invited == dict.fromkeys(map(user_at, (4, 5, 6, 3)), "by-leader")
    await inside.leave()
    await trio.sleep(1)
    assert (await entries(cluster, next_host))[0] == (user_at(5), "admitted", None)


async def test_what_is_kept_survives_several_deaths(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    player = one.sink.seats[ROOM].player
    await trio.sleep(1)
    die(cluster, "b")
    two = await cluster["b"].harness.joined(2)
    other = two.sink.seats[ROOM].player
    await trio.sleep(1)
    cluster.prefer = "c"
    cluster.kill("b")
    assert await (await cluster["c"].harness.connect(1)).join() == player
    assert await (await cluster["c"].harness.connect(2)).join() == other


async def test_a_host_of_before_writes_nothing_more(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """It was paused, and does not know that it has fallen."""
    one = await cluster["a"].harness.joined(1)
    player = one.sink.seats[ROOM].player
    await trio.sleep(1)
    cluster.vacate("a")
    cluster.prefer = "b"
    await cluster["b"].harness.joined(2)
    await trio.sleep(1)
    kept, writes = dict(cluster.kept.entries), len(cluster.kept.writes)
    relay = cluster["a"].relay
    relay.hosted[ROOM].changed()
    await cluster["a"].harness.joined(3)
    await trio.sleep(5)
    assert (cluster.kept.entries, len(cluster.kept.writes)) == (kept, writes)
    cluster.prefer = "c"
    cluster.kill("b")
    assert await (await cluster["c"].harness.connect(1)).join() == player


@pytest.mark.parametrize("how", ["lost", "unanswered", "cut"])
async def test_what_nats_lost_is_written_anew(
    cluster: Cluster, how: str, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    players = [one.sink.seats[ROOM].player]
    await trio.sleep(1)
    if how == "unanswered":
        cluster.kept.answers = False
    else:
        for node in ("a", "b", "c"):
            cluster[node].bus.cut()
        if how == "lost":
            cluster.kept.lose()
    two = await cluster["a"].harness.joined(2)
    players.append(two.sink.seats[ROOM].player)
    await trio.sleep(2)
    cluster.kept.answers = True
    if how != "unanswered":
        for node in ("a", "b", "c"):
            cluster[node].bus.mend()
            cluster[node].relay.reconnected()
    await trio.sleep(3)
    die(cluster, "b")
    for number, player in zip((1, 2), players, strict=True):
        assert await (await cluster["b"].harness.connect(number)).join() == player


async def test_data_costs_no_write_and_a_quiet_instance_is_renewed(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one, _ = await cluster["a"].harness.joined(1), await cluster["a"].harness.joined(2)
    await trio.sleep(1)
    writes = len(cluster.kept.writes)
    for number in range(50):
        one.say(b"%d" % number, key="k")
        await trio.sleep(0.05)
    assert len(cluster.kept.writes) == writes
    await trio.sleep(RENEWED_S)
    assert len(cluster.kept.writes) == writes + 1


async def test_changes_share_a_write(cluster: Cluster, autojump_clock: MockClock) -> None:
    cluster["a"].harness.room(capacity=60)
    clients = [await cluster["a"].harness.connect(number) for number in range(1, 41)]
    await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.join)
    await trio.sleep(1)
    assert len(cluster.kept.writes) <= 3


async def test_an_instance_that_ended_leaves_nothing(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(1)
    await trio.sleep(1)
    full = cluster.kept.writes[-1]
    await cluster["a"].harness.node.instance_service.close(ROOM, principal(0))
    await trio.sleep(1)
    assert cluster.kept.writes[-1] < 10 < full


async def test_a_large_instance_is_kept_in_shards_up_to_a_bound(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    assert SHARDS * SHARD_BYTES <= 4 * 1024 * 1024
    monkeypatch.setattr(actors.cluster.soft_state, "SHARD_BYTES", 700)
    monkeypatch.setattr(actors.cluster.soft_state, "SHARDS", 4)
    cluster["a"].harness.room(capacity=60)
    clients = [await cluster["a"].harness.joined(number) for number in range(1, 21)]
    players = [one.sink.seats[ROOM].player for one in clients]
    await trio.sleep(1)
    assert max(cluster.kept.writes) <= 720
    assert len(cluster.kept.entries) == 4
    die(cluster, "b")
    again = [await (await cluster["b"].harness.connect(n)).join() for n in range(1, 21)]
    same = sum(one == other for one, other in zip(players, again, strict=True))
    assert 4 <= same < 20
