"""An instance is handed over to another node while its players stay inside."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.cluster.test_faults import commands_of, data_of
from tests.actors.node_harness import ROOM

pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[Cluster]:
    """Two nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b") as opened:
        opened.prefer = "a"
        yield opened


async def test_players_values_and_queue_move_with_the_instance(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    cluster["a"].harness.room(capacity=2)
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    waiting = await cluster["b"].harness.connect(3)
    service = cluster["b"].harness.node.instance_service
    entry = await service.candidate(ROOM, waiting.principal)
    ids = [each.sink.seats[ROOM].player for each in (one, two)]
    one.say(b'"of one"', key="k")
    two.say(b'"of two"', key="k")
    await trio.sleep(1)
    one.sink.take(), two.sink.take()
    began = trio.current_time()
    await cluster["a"].handover.run()
    assert trio.current_time() - began < 0.5
    await trio.sleep(0.5)
    assert cluster.places[ROOM] == ("b", 2)
    assert cluster["a"].handover.moved == 1
    # Nobody notices anything.
    assert [one.sink.take(), two.sink.take()] == [[], []]
    late = await cluster["a"].harness.connect(1)
    await late.join()
    (joined,) = late.sink.take()
    values = {each["player"]: each["data"] for each in joined["data"]["retained"]}
    assert values == dict(zip(ids, ("of one", "of two"), strict=True))
    assert [each.sink.seats[ROOM].player for each in (one, two)] == ids
    one.say(b'"from the old host"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["from the old host"]
    two.say(b'"from the new one"')
    await trio.sleep(0.1)
    assert data_of(one.sink.take()) == ["from the new one"]
    snapshot = await service.queue(ROOM, waiting.principal)
    assert snapshot.own == entry
    await one.leave()
    await trio.sleep(0.1)
    assert "instance-left" in commands_of(two)


async def test_players_and_values_of_nodes_that_the_new_host_has_not_seen_move_too(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_cluster(monkeypatch, "a", "b", "c") as cluster:
        cluster.prefer = "a"
        one = await cluster["a"].harness.joined(1)
        two = await cluster["c"].harness.joined(2)
        ids = [each.sink.seats[ROOM].player for each in (one, two)]
        one.say(b'"of one"', key="k")
        two.say(b'"of two"', key="k")
        await trio.sleep(1)
        one.sink.take(), two.sink.take()
        cluster["a"].member.unseen.add("c")  # so it hands the instance to b
        cluster["b"].member.unseen |= {"a", "c"}
        await cluster["a"].handover.run()
        await trio.sleep(0.5)
        assert cluster.places[ROOM] == ("b", 2)
        assert [one.sink.take(), two.sink.take()] == [[], []]
        late = await cluster["c"].harness.connect(2)
        await late.join()
        (joined,) = late.sink.take()
        values = {each["player"]: each["data"] for each in joined["data"]["retained"]}
        assert values == dict(zip(ids, ("of one", "of two"), strict=True))
        assert [each.sink.seats[ROOM].player for each in (one, two)] == ids


async def test_an_instance_whose_place_can_not_be_changed_goes_on(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(1)
    one.sink.take(), two.sink.take()
    cluster.database_away = True
    await cluster["a"].handover.run()
    await trio.sleep(1)
    assert cluster.places[ROOM] == ("a", 1)
    one.say(b'"still"')
    two.say(b'"here"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["still"]
    assert data_of(one.sink.take()) == ["here"]


async def test_a_hand_over_whose_answer_is_lost_leaves_one_host(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(1)
    cluster.lost_answers = 1
    await cluster["a"].handover.run()
    await trio.sleep(1)
    node, epoch = cluster.places[ROOM]
    assert (node != "a", epoch) == (True, 2)
    assert [name for name in cluster.live if ROOM in cluster[name].relay.hosted] == [node]
    one.sink.take(), two.sink.take()
    one.say(b'"still"')
    two.say(b'"here"')
    await trio.sleep(0.1)
    assert data_of(two.sink.take()) == ["still"]
    assert data_of(one.sink.take()) == ["here"]


async def test_nothing_goes_on_before_the_database_says_who_is_the_host(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """It carried the move out, and went away before it answered."""
    one = await cluster["a"].harness.joined(1)
    two = await cluster["b"].harness.joined(2)
    await trio.sleep(1)
    one.sink.take(), two.sink.take()
    cluster.lost_answers = 100_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster["a"].handover.run)
        await trio.sleep(8)
        assert cluster.places[ROOM][1] == 2
        one.say(b'"later"')
        await trio.sleep(2)
        assert data_of(two.sink.take()) == [], "the old host may not speak"
        cluster.lost_answers = 0
    await trio.sleep(1)
    host, _ = cluster.places[ROOM]
    assert [name for name in cluster.live if ROOM in cluster[name].relay.hosted] == [host]
    assert data_of(two.sink.take()) == ["later"]


async def test_an_instance_whose_new_host_fell_at_once_is_given_up(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    """The move was made, its answer lost; then the new host fell, and a repetition is refused."""
    await cluster["a"].harness.joined(1)
    await trio.sleep(1)
    cluster.lost_answers = 1
    cluster.on_lost_answer = lambda: cluster.places.update({ROOM: (None, 3)})
    await cluster["a"].handover.run()
    assert ROOM not in cluster["a"].relay.hosted or cluster.places[ROOM][0] == "a"
    await trio.sleep(5)
    host, _ = cluster.places[ROOM]
    assert [name for name in cluster.live if ROOM in cluster[name].relay.hosted] == [host]


async def test_the_only_node_keeps_its_instances(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    cluster.live.remove("b")
    await cluster["a"].handover.run()
    assert cluster.places[ROOM] == ("a", 1)
    assert commands_of(one) == []


async def test_a_new_host_that_dies_at_once_is_replaced(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    one = await cluster["a"].harness.joined(1)
    player = one.sink.seats[ROOM].player
    one.sink.take()
    cluster.prefer = "a"
    cluster.on_move = cluster["b"].bus.cut
    await cluster["a"].handover.run()
    assert cluster.places[ROOM] == ("b", 2)
    cluster.kill("b")
    await trio.sleep(3)
    assert cluster.places[ROOM][0] == "a"
    assert commands_of(one)[-1] == "instance-restored"
    assert one.sink.seats[ROOM].player == player
