"""Instances that live on instance nodes, whose links end at different processes of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from reileta.errors import InstanceAway
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.node_link import End, Enter, Host, Say
from reileta.store.host_nodes import SEEN_S
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.cluster.test_faults import commands_of, data_of
from tests.actors.node_harness import ROOM, Client
from tests.api.ws.link.link_harness import NODE, LinkHarness, NodeEnd, host_node

pytestmark = pytest.mark.usefixtures("autojump_clock")


@dataclass
class Linked:
    """A cluster, and a way for the instance node to link to each of its processes."""

    cluster: Cluster
    at: dict[str, LinkHarness]

    async def link(self, name: str) -> NodeEnd:
        end = await self.at[name].linked()
        self.cluster.hear_of(NODE)
        await trio.sleep(1)
        return end

    async def joined(self, name: str, number: int) -> Client:
        client = await self.cluster[name].harness.joined(number)
        await trio.sleep(0.1)
        return client

    async def moved(self, to: str) -> None:
        with trio.fail_after(60):
            while self.cluster.places.get(ROOM, (None, 0))[0] != to:
                await trio.sleep(0.05)
        await trio.sleep(1)


@pytest.fixture
async def linked(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[Linked]:
    """Three processes; the room lives on the instance node. `a` would place it at itself."""
    async with open_cluster(monkeypatch, "a", "b", "c") as cluster, trio.open_nursery() as nursery:
        cluster.prefer = "a"
        ends = {name: LinkHarness(node.harness, nursery) for name, node in cluster.nodes.items()}
        ends["a"].add(host_node())
        ends["a"].move_room()
        yield Linked(cluster, ends)
        nursery.cancel_scope.cancel()


async def talks(end: NodeEnd, speaker: Client, *hearers: Client, data: int = 1) -> None:
    """What one says goes over the node to all others."""
    for one in (speaker, *hearers):
        one.sink.take()
    end.take(Say)
    speaker.say(str(data).encode(), state=b"1")
    await trio.sleep(0.1)
    host = end.hosted
    assert host is not None
    assert [one.data for one in await end.echo(host)] == [str(data).encode()]
    await trio.sleep(0.1)
    assert [data_of(one.sink.take()) for one in hearers] == [[data] for _ in hearers]
    assert "error" not in speaker.sink.take()[0]


def hosts(end: NodeEnd) -> Host:
    """The instance that the node was given last."""
    end.hosted = end.take(Host)[-1]
    end.numbers.clear()
    return end.hosted


async def test_a_join_anywhere_reaches_the_process_with_the_link(
    linked: Linked, autojump_clock: MockClock
) -> None:
    end = await linked.link("b")
    ada = await linked.joined("a", 1)
    assert linked.cluster.places[ROOM] == ("b", 1)
    bob, eve = await linked.joined("b", 2), await linked.joined("c", 3)
    hosts(end)
    assert len(end.take(Enter)) == 3
    await talks(end, ada, bob, eve)
    await talks(end, eve, ada, bob)
    await eve.leave()
    await trio.sleep(0.1)
    assert "instance-left" in commands_of(ada)


async def test_a_join_waits_for_the_process_with_the_link(
    linked: Linked, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """That process did not answer in time when the instance was placed, so another one has it."""
    with monkeypatch.context() as patch:
        patch.setattr(linked.cluster, "linked", lambda _: None)
        end = await linked.at["b"].linked()
        ada = await linked.joined("a", 1)
    assert linked.cluster.places[ROOM] == ("b", 2)
    bob = await linked.joined("c", 2)
    hosts(end)
    await talks(end, ada, bob)


async def test_the_instance_follows_its_link_with_all_players(
    linked: Linked, autojump_clock: MockClock
) -> None:
    first = await linked.link("b")
    ada, bob = await linked.joined("a", 1), await linked.joined("b", 2)
    hosts(first)
    ids = [each.sink.seats[ROOM].player for each in (ada, bob)]
    ada.say(b'"kept"', key="k")
    await trio.sleep(0.1)
    assert first.hosted is not None
    await first.echo(first.hosted)
    ada.say(b'"asked, and not answered"', state=b"7")
    await trio.sleep(0.1)
    ada.sink.take(), bob.sink.take()
    second = await linked.link("c")
    assert first.code() == CloseCode.REPLACED
    await linked.moved("c")
    host = hosts(second)
    assert sorted(seat.player for seat in host.players) == sorted(ids)
    assert [each.sink.seats[ROOM].player for each in (ada, bob)] == ids
    heard = ada.sink.take()
    # The answer to what the node had comes before the players are told what they have now.
    kinds = [one["command"] for one in heard if not one["command"].startswith("update-")]
    assert kinds[0] == "instance-paused"
    assert kinds[-1] == "instance-restored"
    (refused,) = [one for one in heard if one.get("state") == 7]
    assert refused["error"]["code"] == 16
    restored = bob.sink.take()[-1]
    assert [one["data"] for one in restored["data"]["retained"]] == ["kept"]
    await talks(second, ada, bob)
    await talks(second, bob, ada, data=2)
    # And back.
    third = await linked.link("b")
    await linked.moved("b")
    hosts(third)
    await talks(third, bob, ada, data=3)


async def test_a_link_that_moved_while_the_bus_was_away_is_followed_when_it_is_back(
    linked: Linked, autojump_clock: MockClock
) -> None:
    first = await linked.link("b")
    ada, bob = await linked.joined("a", 1), await linked.joined("b", 2)
    await trio.sleep(SEEN_S)
    await first.lose()
    second = await linked.at["c"].linked()
    await trio.sleep(0.1)
    assert linked.cluster.places[ROOM][0] == "b"
    linked.cluster["b"].following.reconnected()
    await trio.sleep(1)
    assert linked.cluster.places[ROOM][0] == "c"
    hosts(second)
    await talks(second, ada, bob)


async def test_the_death_of_the_process_with_the_link(
    linked: Linked, autojump_clock: MockClock
) -> None:
    await linked.link("b")
    ada, eve = await linked.joined("a", 1), await linked.joined("c", 3)
    player = ada.sink.seats[ROOM].player
    ada.sink.take()
    linked.cluster.kill("b")
    await trio.sleep(5)  # another process hosts it, and waits for the link
    late = await linked.cluster["c"].harness.connect(4)
    with pytest.raises(InstanceAway):
        await late.join()
    assert commands_of(ada)[-1] == "instance-paused"
    end = await linked.link("c")
    await linked.moved("c")
    hosts(end)
    assert ada.sink.seats[ROOM].player == player
    await talks(end, ada, eve)
    await late.join()


async def test_a_process_that_falls_and_goes_on_gets_its_instances_back(
    linked: Linked, autojump_clock: MockClock
) -> None:
    end = await linked.link("b")
    ada = await linked.joined("a", 1)
    hosts(end)
    linked.cluster.fall("b", "b2")
    await trio.sleep(2)
    linked.cluster.hear_of(NODE)
    await linked.moved("b2")
    assert linked.cluster.store.host_nodes.hosts[NODE].server == "b2"
    bob = await linked.joined("b", 2)
    hosts(end)
    await talks(end, ada, bob)


async def test_a_drained_process_sends_its_links_away(
    linked: Linked, autojump_clock: MockClock
) -> None:
    end = await linked.link("b")
    ada, bob = await linked.joined("a", 1), await linked.joined("c", 2)
    linked.cluster["b"].harness.node.host_links.send_away()
    assert end.code() == CloseCode.GOING_AWAY
    await linked.cluster["b"].handover.run()
    await trio.sleep(1)
    # Without a link, another process has the instance; with one, the process that has it.
    assert linked.cluster.places[ROOM][0] != "b"
    assert "instance-paused" in commands_of(ada)
    again = await linked.link("c")
    await linked.moved("c")
    hosts(again)
    await talks(again, ada, bob)


async def test_a_lost_message_about_a_link_is_found_by_the_next_look(
    linked: Linked, autojump_clock: MockClock
) -> None:
    await linked.link("b")
    ada = await linked.joined("a", 1)
    end = await linked.at["c"].linked()  # nobody hears of it
    await trio.sleep(16)
    await linked.moved("c")
    assert hosts(end).players[0].player == ada.sink.seats[ROOM].player


async def test_a_hand_over_that_fails_is_repeated(
    linked: Linked, autojump_clock: MockClock
) -> None:
    await linked.link("b")
    ada = await linked.joined("a", 1)
    linked.cluster.database_away = True
    end = await linked.link("c")
    assert linked.cluster.places[ROOM][0] == "b"
    linked.cluster.database_away = False
    await linked.moved("c")
    assert hosts(end).players[0].player == ada.sink.seats[ROOM].player
    assert len(linked.cluster["b"].following) == 0


async def test_a_node_that_comes_back_here_keeps_its_instances_here(
    linked: Linked, autojump_clock: MockClock
) -> None:
    first = await linked.link("b")
    await linked.joined("a", 1)
    linked.cluster.database_away = True
    await linked.link("c")
    end = await linked.link("b")
    linked.cluster.database_away = False
    await trio.sleep(15)
    assert linked.cluster.places[ROOM] == ("b", 1)
    assert len(linked.cluster["b"].following) == 0
    assert hosts(end).instance == ROOM
    assert not first.take(End)


async def test_a_node_that_was_deleted_at_another_process(
    linked: Linked, autojump_clock: MockClock
) -> None:
    end = await linked.link("b")
    ada = await linked.joined("a", 1)
    store: Any = linked.cluster.store
    del store.host_nodes.hosts[NODE]
    store.instances.records.pop(ROOM)
    linked.cluster.hear_of(NODE)
    await trio.sleep(1)
    assert end.code() == CloseCode.CREDENTIAL_GONE
    assert "instance-left" in commands_of(ada)
