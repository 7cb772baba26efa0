"""What admins see at one node of what is at others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from msgspec import UNSET
from trio.testing import MockClock

from actors.console.console import CALL_S, Console, Topic
from reileta.errors import InstanceNotFound, NodeNotFound
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, user_at
from tests.actors.sinks import FakeSink


class SlowSink(FakeSink):
    """A client that takes 0.2 s to answer a ping, and has not read 7 bytes."""

    @property
    def waiting_bytes(self) -> int:
        return 7

    async def responds(self) -> bool:
        await trio.sleep(0.2)
        return True


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> AsyncIterator[Cluster]:
    """Three nodes whose consoles ask each other; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b", "c") as opened:
        opened.prefer = "a"
        for node in opened.nodes.values():
            part: Any = SimpleNamespace(member=node.member, calls=node.calls)
            node.harness.node.cluster = part
            node.harness.node.console.serve(node.calls)
        await trio.sleep(1)  # clients are pinged once in a while, for the first time now
        yield opened


def console(cluster: Cluster, node: str) -> Console:
    return cluster[node].harness.node.console


@pytest.mark.parametrize("looks", ["a", "b", "c"])
async def test_an_instance_is_shown_with_the_lag_and_backlog_of_players_at_all_nodes(
    cluster: Cluster, looks: str, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(0)
    two = await cluster["b"].harness.connect(2, sink=SlowSink())
    await two.join()
    detail = await console(cluster, looks).instance(ROOM)
    assert detail.instance.node == "a"
    one, other = detail.players
    assert (one.user, one.node, one.lag_ms, one.backlog_bytes) == (user_at(0), UNSET, 0, 0)
    assert (other.user, other.node, other.backlog_bytes) == (user_at(2), "b", 7)
    assert other.lag_ms == pytest.approx(200)
    page = await console(cluster, looks).instances(Topic(topic="instances"))
    assert [(row.id, row.node, row.connected) for row in page.items] == [(ROOM, "a", 2)]
    for node in ("a", "b", "c"):
        assert (await console(cluster, looks).actors(node)).node == node
        assert (await console(cluster, looks).traces(node)).node == node
        assert (await console(cluster, looks).figures(node)).node == node
    with pytest.raises(NodeNotFound):
        await console(cluster, looks).actors("d")
    with pytest.raises(InstanceNotFound):
        await console(cluster, looks).instance("i_nowhere")


async def test_a_node_of_sockets_that_does_not_answer_is_left_out(
    cluster: Cluster, autojump_clock: MockClock
) -> None:
    await cluster["a"].harness.joined(0)
    await cluster["b"].harness.joined(2)
    cluster["b"].bus.cut()
    begun = trio.current_time()
    detail = await console(cluster, "a").instance(ROOM)
    assert trio.current_time() - begun <= CALL_S + 0.1
    assert [one.lag_ms for one in detail.players] == [0, UNSET]
