"""The waiting line of a resource is one, at whatever nodes its sessions are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from actors.cluster.lines import Lines
from actors.runtime.failures import capture_failure
from reileta.cluster.calls import Calls
from reileta.errors import NotQueued, Overloaded, ResourceTaken
from reileta.rules.resource.resource import ResourceKey
from tests.actors.cluster.test_shared import Cluster, Place, cluster, other
from tests.actors.session_clients import (
    FakeSessionSink,
    SessionClient,
    log_in,
    new_document,
    until,
)

__all__ = ["cluster", "other"]  # fixtures


@dataclass
class Waiter:
    """A session that is at one node, and what it was told of its place."""

    place: Place
    client: SessionClient
    sink: FakeSessionSink
    told: list[dict[str, Any]] = field(default_factory=list)

    def look(self) -> list[dict[str, Any]]:
        self.told += [one for one in self.sink.payloads() if one["kind"] == "resource-queue"]
        return self.told

    async def position(self, wanted: int | None, *, offered: bool = False) -> None:
        """Waits until the last that it was told is that."""

        def so() -> bool:
            told = self.look()
            if not told:
                return False
            last = told[-1]
            return bool(
                last["position"] == wanted and (last["offered_until"] is not None) == offered
            )

        await until(so)

    async def queue(self, key: ResourceKey) -> int:
        place = await self.place.node.resources.queue(key, self.client.claimant)
        return place.position


@dataclass
class Ground:
    cluster: Cluster
    owner: SessionClient
    key: ResourceKey

    def lines(self, place: Place) -> Lines:
        assert place.node.shared is not None
        assert place.node.shared.lines is not None
        return place.node.shared.lines

    async def waiter(self, place: Place) -> Waiter:
        """A session of the owner's user, which may acquire the document."""
        client = await log_in(place.node, user=self.owner.principal.user.id)
        sink = await client.open()
        sink.take()
        other = self.cluster.two if place is self.cluster.one else self.cluster.one
        id_ = client.principal.session_id
        await until(lambda: other.node.directory.sessions_elsewhere(id_))
        return Waiter(place, client, sink)

    def homes(self) -> tuple[Place, Place]:
        """The node with the line, and the other one."""
        one, two = self.cluster.one, self.cluster.two
        home = self.lines(one).home(self.key.number)
        return (one, two) if home == one.member.node else (two, one)


@pytest.fixture
async def ground(
    cluster: Cluster,
    nursery: trio.Nursery,
) -> AsyncIterator[Ground]:
    for place in (cluster.one, cluster.two):
        shared = place.node.shared
        assert shared is not None
        calls = Calls(place.member, capture_failure)
        shared.keep_lines(calls)
        assert shared.lines is not None
        nursery.start_soon(calls.run)
        nursery.start_soon(shared.lines.run)
        await calls.listening.wait()
    owner = await log_in(cluster.one.node)
    key = await new_document(cluster.one.node.store, owner.claimant)
    yield Ground(cluster, owner, key)
    nursery.cancel_scope.cancel()


async def test_sessions_at_two_nodes_wait_in_one_line(ground: Ground) -> None:
    home, away = ground.homes()
    holder = await ground.waiter(home)
    await holder.client.acquire(ground.key)
    first, second, third = [await ground.waiter(place) for place in (away, home, away)]
    assert [await one.queue(ground.key) for one in (first, second, third)] == [1, 2, 3]
    await first.position(1)
    await third.position(3)
    assert await first.queue(ground.key) == 1  # it keeps its place
    await holder.client.release(ground.key)
    await first.position(1, offered=True)
    # Only the one that has the offer gets it, wherever the others ask.
    for one in (second, third, holder):
        with pytest.raises(ResourceTaken):
            await one.client.acquire(ground.key)
    await first.client.acquire(ground.key)
    await first.position(None)
    assert first.told[-1]["reason"] == "acquired"
    await second.position(1)
    await away.node.resources.unqueue(ground.key, third.client.claimant)
    await third.position(None)
    with pytest.raises(NotQueued):
        await away.node.resources.unqueue(ground.key, third.client.claimant)
    assert len(ground.lines(away)) == 0


async def test_a_session_that_ends_leaves_the_line_at_the_other_node(ground: Ground) -> None:
    home, away = ground.homes()
    holder = await ground.waiter(home)
    await holder.client.acquire(ground.key)
    first, second = await ground.waiter(away), await ground.waiter(home)
    await first.queue(ground.key)
    await second.queue(ground.key)
    await second.position(2)
    id_ = first.client.principal.session_id
    await away.node.store.sessions.end(id_)
    away.node.sessions.end(id_)
    await second.position(1)
    assert len(ground.lines(away)) == 0


async def test_the_line_moves_when_its_node_is_gone(ground: Ground) -> None:
    home, away = ground.homes()
    holder = await ground.waiter(away)
    await holder.client.acquire(ground.key)
    first, second = await ground.waiter(away), await ground.waiter(away)
    assert [await one.queue(ground.key) for one in (first, second)] == [1, 2]
    home.member.bus.cut()
    del away.member.peers[home.member.node]
    assert away.node.shared is not None
    away.node.shared.node_gone(home.member.node)
    number = ground.key.number
    await until(lambda: number in away.node.resources.lines_here())
    await until(lambda: len(away.node.resources.recoveries[number].line) == 2)
    await holder.client.release(ground.key)
    await first.position(1, offered=True)
    await second.position(2)


async def test_the_line_moves_to_a_node_that_comes_and_nobody_is_told_to_leave(
    ground: Ground,
) -> None:
    home, away = ground.homes()
    # So far the other node is not there.
    peers = dict(away.member.peers)
    away.member.peers = {}
    holder = await ground.waiter(away)
    await holder.client.acquire(ground.key)
    first, second = await ground.waiter(away), await ground.waiter(away)
    assert [await one.queue(ground.key) for one in (first, second)] == [1, 2]
    away.member.peers = peers
    assert away.node.shared is not None
    away.node.shared.node_seen(home.member.node)
    number = ground.key.number
    await until(lambda: number in home.node.resources.lines_here())
    await until(lambda: number not in away.node.resources.lines_here())
    await until(lambda: len(home.node.resources.recoveries[number].line) == 2)
    await holder.client.release(ground.key)
    await first.position(1, offered=True)
    assert all(one["position"] is not None for one in (*first.told, *second.look()))
    await first.client.acquire(ground.key)
    await second.position(1)


async def test_a_home_that_does_not_answer_stops_no_acquisition(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, away = ground.homes()
    home.member.bus.cut()
    one = await ground_waiter_alone(away, ground)
    monkeypatch.setattr("actors.cluster.lines.CALL_S", 0.05)
    assert await one.acquire(ground.key)
    with pytest.raises(Overloaded):
        await away.node.resources.queue(ground.key, one.claimant)
    assert len(ground.lines(away)) == 0


async def ground_waiter_alone(place: Place, ground: Ground) -> SessionClient:
    return await log_in(place.node, user=ground.owner.principal.user.id)


def test_all_nodes_agree_about_a_home_and_few_lines_move() -> None:
    members = dict.fromkeys(("c_1", "c_2", "c_3"))
    homes: dict[int, str] = {}
    for number in range(300):
        answers = {Lines.home_among(order, number) for order in (members, [*members][::-1])}
        assert len(answers) == 1
        homes[number] = answers.pop()
    assert all(60 < list(homes.values()).count(node) < 140 for node in members)
    moved = sum(Lines.home_among([*members, "c_4"], number) != homes[number] for number in homes)
    assert 40 < moved < 110
