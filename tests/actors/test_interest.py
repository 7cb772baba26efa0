"""`instance-interest` at the host and at a gateway: fewer values of far players."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from reileta.rules.instance.interest import Interest
from tests.actors.cluster.cluster_harness import Cluster, open_cluster
from tests.actors.node_harness import ROOM, Client

pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.fixture
async def cluster(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> AsyncIterator[Cluster]:
    """Two nodes; the room is placed at `a`."""
    async with open_cluster(monkeypatch, "a", "b") as opened:
        opened.prefer = "a"
        for name in ("a", "b"):
            nursery.start_soon(opened[name].harness.node.directory.interests.run)
        yield opened


def ask(cluster: Cluster, node: str, client: Client, interest: Interest, key: str = "") -> None:
    interests = cluster[node].harness.node.directory.interests
    player = client.sink.seats[ROOM].player
    interests.ask(ROOM, client.sink, player, interest, key or None)


def values(client: Client, key: str = "pose") -> list[Any]:
    return [
        frame["data"]["data"]
        for frame in client.sink.take()
        if frame["command"] == "instance-data" and frame["data"].get("key") == key
    ]


@pytest.mark.parametrize("node", ["a", "b"])
async def test_far_players_come_less_often_and_the_last_value_comes(
    cluster: Cluster, node: str, autojump_clock: MockClock
) -> None:
    speaker = await cluster["a"].harness.joined(1)
    friend = await cluster["b"].harness.joined(2)
    thrifty = await cluster[node].harness.joined(3)
    other = await cluster[node].harness.joined(4)
    await trio.sleep(1)
    near = frozenset({friend.sink.seats[ROOM].player})
    ask(cluster, node, thrifty, Interest(near=near, far_rate=2))
    other.sink.take(), thrifty.sink.take()
    for number in range(61):
        speaker.say(b"%d" % number, key="pose")
        friend.say(b"%d" % number, key="hand")
        speaker.say(b'"once"')
        await trio.sleep(0.05)
    await trio.sleep(1)
    frames = list(thrifty.sink.frames)
    far = values(thrifty)
    assert 5 <= len(far) <= 8
    assert far == sorted(far)
    assert far[-1] == 60
    thrifty.sink.frames = frames
    assert values(thrifty, "hand") == list(range(61))
    assert sum(b'"once"' in frame for frame in frames) == 61
    assert values(other) == list(range(61))


@pytest.mark.parametrize("node", ["a", "b"])
async def test_who_comes_within_the_radius_is_near(
    cluster: Cluster, node: str, autojump_clock: MockClock
) -> None:
    speaker = await cluster["a"].harness.joined(1)
    walker = await cluster[node].harness.joined(2)
    await trio.sleep(1)
    ask(cluster, node, walker, Interest(near=10.0, far_rate=0.5), "at")
    walker.say(b"[0,0,0]", key="at")
    speaker.say(b'{"position":{"x":100,"y":0}}', key="at")
    await trio.sleep(3)
    walker.sink.take()
    for number in range(20):
        speaker.say(b"%d" % number, key="pose")
        await trio.sleep(0.05)
    await trio.sleep(3)
    assert len(values(walker)) <= 2
    walker.say(b"[95,3,0]", key="at")
    await trio.sleep(3)
    walker.sink.take()
    for number in range(20):
        speaker.say(b"%d" % number, key="pose")
        await trio.sleep(0.05)
    assert values(walker) == list(range(20))


async def test_it_ends_with_the_seat(cluster: Cluster, autojump_clock: MockClock) -> None:
    speaker = await cluster["b"].harness.joined(1)
    thrifty = await cluster["b"].harness.joined(2)
    await trio.sleep(1)
    groups = cluster["b"].harness.node.directory.interests.by_instance
    ask(cluster, "b", thrifty, Interest(rate=1))
    await thrifty.leave()
    await trio.sleep(1)
    assert not groups
    await thrifty.join()
    await trio.sleep(1)
    ask(cluster, "b", thrifty, Interest(rate=1))
    ask(cluster, "b", thrifty, Interest())
    assert not groups
    ask(cluster, "b", thrifty, Interest(rate=1))
    thrifty.lose()
    await trio.sleep(1)
    assert not groups
    del speaker


@pytest.mark.parametrize("dies", [False, True])
async def test_it_outlives_a_crash_of_the_instance_and_its_host(
    cluster: Cluster, autojump_clock: MockClock, *, dies: bool
) -> None:
    speaker = await cluster["b"].harness.joined(1)
    thrifty = await cluster["b"].harness.joined(2)
    await cluster["a"].harness.joined(3)
    await trio.sleep(1)
    ask(cluster, "b", thrifty, Interest(rate=1))
    assert cluster.places[ROOM] == ("a", 1)
    if dies:
        cluster.prefer = "b"
        cluster.kill("a")
    else:
        cluster["a"].harness.crash()
    await trio.sleep(15)
    thrifty.sink.take()
    for number in range(61):
        speaker.say(b"%d" % number, key="pose")
        await trio.sleep(0.05)
    await trio.sleep(2)
    got = values(thrifty)
    assert len(got) <= 5
    assert got[-1] == 60
