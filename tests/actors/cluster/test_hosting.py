"""Hosting: places in a real database, and nodes that call each other in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from actors.cluster import hosting as module
from actors.cluster.hosting import DrainAnswer, DrainCall, HostAnswer, HostCall, Hosting
from actors.instance.hosted import Here, Holding, There
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.cluster.member import Member, NodeSeen
from reileta.errors import DatabaseUnavailable, InstanceNotFound, Overloaded
from reileta.store import Store
from reileta.store.cluster_leases import ClusterLeases
from tests.conftest import PATIENCE_S
from tests.reileta.store.test_instances import make

IDLE = NodeSeen("", "", "up", 0.0, 0, 0, 100, 0, "0.1.0")


@dataclass
class FakeMember:
    node: str
    nodes: dict[str, NodeSeen]
    lease: bool = True
    listeners: list[object] = field(default_factory=list)

    def valid(self) -> bool:
        return self.lease


class FakeCalls:
    """Calls between the nodes of a test; some are silent."""

    def __init__(self, world: dict[str, FakeCalls], node: str) -> None:
        world[node] = self
        self._world = world
        self._node = node
        self.handlers: dict[str, Callable[[Any, str], Awaitable[Any]]] = {}
        self.made: list[tuple[str, str]] = []
        self.silent = False

    def serve(self, name: str, argument: object, handle: Any) -> None:
        self.handlers[name] = handle

    async def call(
        self, node: str, name: str, argument: object, answer: object, timeout_s: float
    ) -> Any:
        self.made.append((node, name))
        other = self._world.get(node)
        if other is None or other.silent:
            raise NodeUnreachable(node, "silent")
        return await other.handlers[name](argument, self._node)


class HostNode:
    """A node: its hosting, and which actors it has started."""

    def __init__(self, world: dict[str, FakeCalls], nodes: dict[str, NodeSeen], id_: str) -> None:
        self.member = FakeMember(id_, nodes)
        self.calls = FakeCalls(world, id_)
        self.started: list[str] = []
        self.dropped: list[str] = []

    def open(self, leases: ClusterLeases) -> None:
        self.hosting = Hosting(cast(Member, self.member), leases, cast(Calls, self.calls))
        self.hosting.start = self._start
        self.hosting.dropped = self.dropped.extend

    async def _start(self, instance_id: str) -> None:
        self.started.append(instance_id)


@dataclass
class World:
    store: Store
    leases: ClusterLeases
    nodes: dict[str, NodeSeen]
    a: HostNode
    b: HostNode


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    leases = ClusterLeases(store.database)
    calls: dict[str, FakeCalls] = {}
    nodes = {id_: replace(IDLE, id=id_) for id_ in ("c_a", "c_b")}
    pair = [HostNode(calls, nodes, id_) for id_ in nodes]
    async with trio.open_nursery() as nursery:
        for one in pair:
            await leases.register(one.member.node, name="n", roles=("ins",), version="0.1.0")
            one.open(leases)
            nursery.start_soon(one.hosting.run)
        await wait_all_tasks_blocked()
        yield World(store, leases, nodes, *pair)
        nursery.cancel_scope.cancel()


def tenure_of(where: object) -> tuple[str, int]:
    assert isinstance(where, Here)
    return where.holding.tenure.node, where.holding.tenure.epoch


async def given_back(world: World, instance: str) -> None:
    with trio.fail_after(PATIENCE_S):
        while (await world.leases.place(instance)).node is not None:
            await trio.sleep(0.001)


async def test_an_idle_node_hosts_what_it_is_asked_for(world: World) -> None:
    room = await make(world.store, "room")
    assert tenure_of(await world.a.hosting.place(room.id)) == ("c_a", 1)
    assert await world.b.hosting.place(room.id) == There("c_a", 1)
    assert world.a.hosting.held() == [room.id]
    tenure = world.a.hosting.tenure(room.id)
    assert tenure is not None
    assert tenure.epoch == 1
    assert world.b.hosting.tenure(room.id) is None


async def test_many_who_ask_at_two_nodes_get_one_host(world: World) -> None:
    room = await make(world.store, "room")
    found: list[object] = []

    async def ask(node: HostNode) -> None:
        found.append(await node.hosting.place(room.id))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask, world.a)
            nursery.start_soon(ask, world.b)
    place = await world.leases.place(room.id)
    assert place.epoch == 1
    here = sum(isinstance(one, Here) for one in found)
    assert (here, len(found)) == (20, 40)
    assert world.a.hosting.counts["claimed"] + world.b.hosting.counts["claimed"] == 1


async def test_a_busy_node_asks_another_one(world: World) -> None:
    room = await make(world.store, "room")
    world.nodes["c_a"] = replace(world.nodes["c_a"], load=0.9)
    world.nodes["c_b"] = replace(world.nodes["c_b"], load=0.1)
    assert await world.a.hosting.place(room.id) == There("c_b", 1)
    assert world.b.started == [room.id]
    assert world.b.hosting.held() == [room.id]


async def test_a_node_that_does_not_answer_is_passed_over(world: World) -> None:
    room = await make(world.store, "room")
    world.nodes["c_a"] = replace(world.nodes["c_a"], load=0.9)
    world.nodes["c_b"] = replace(world.nodes["c_b"], load=0.1)
    world.b.calls.silent = True
    assert tenure_of(await world.a.hosting.place(room.id)) == ("c_a", 1)


async def test_the_host_that_the_place_names_stays_although_it_is_silent(world: World) -> None:
    room = await make(world.store, "room")
    await world.b.hosting.place(room.id)
    world.b.calls.silent = True
    del world.nodes["c_b"]
    assert await world.a.hosting.place(room.id) == There("c_b", 1)


async def test_a_node_that_is_drained_takes_no_more(world: World) -> None:
    first, second = [await make(world.store, name) for name in ("one", "two")]
    await world.b.hosting.place(first.id)
    world.nodes["c_a"] = replace(world.nodes["c_a"], state="draining")  # nobody takes them
    answer = await world.b.calls.handlers["drain"](DrainCall(), "operator")
    assert answer == DrainAnswer(1)
    assert await world.b.calls.handlers["host"](HostCall(second.id), "c_a") == HostAnswer(None, 0)
    assert (await world.leases.place(second.id)).node is None
    await world.b.calls.handlers["drain"](DrainCall(on=False), "operator")
    assert (await world.b.calls.handlers["host"](HostCall(second.id), "c_a")).node == "c_b"


async def test_a_node_that_is_drained_hands_over_what_is_left_once_another_one_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_SEEN_S", 0)
    room = await make(world.store, "room")
    where = await world.a.hosting.place(room.id)
    assert isinstance(where, Here)
    asked = 0

    async def hand_over() -> None:
        nonlocal asked
        asked += 1
        if "c_b" in world.nodes:
            world.a.hosting.moved(where.holding)

    world.a.hosting.hand_over = hand_over
    unseen = world.nodes.pop("c_b")
    assert await world.a.calls.handlers["drain"](DrainCall(), "operator") == DrainAnswer(1)
    assert asked == 1
    world.nodes["c_b"] = unseen
    world.a.hosting.node_seen("c_b")
    await wait_all_tasks_blocked()
    assert world.a.hosting.held() == []
    assert world.a.dropped == [room.id]
    assert world.a.hosting.counts["given_back"] == 1


async def test_an_operator_is_answered_once_another_node_was_seen(
    world: World, nursery: trio.Nursery
) -> None:
    room = await make(world.store, "room")
    where = await world.a.hosting.place(room.id)
    assert isinstance(where, Here)

    async def hand_over() -> None:
        if "c_b" in world.nodes:
            world.a.hosting.moved(where.holding)

    world.a.hosting.hand_over = hand_over
    unseen = world.nodes.pop("c_b")

    async def seen() -> None:
        await wait_all_tasks_blocked()
        world.nodes["c_b"] = unseen
        world.a.hosting.node_seen("c_b")

    nursery.start_soon(seen)
    assert await world.a.calls.handlers["drain"](DrainCall(), "operator") == DrainAnswer(0)


async def test_a_node_that_is_drained_tries_again_and_again_to_hand_over_what_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_AGAIN_S", 0.001)
    room = await make(world.store, "room")
    await world.a.hosting.place(room.id)
    often = trio.Event()
    asked = 0

    async def hand_over() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            often.set()

    world.a.hosting.hand_over = hand_over
    await world.a.hosting.drain()
    with trio.fail_after(PATIENCE_S):
        await often.wait()
    await world.a.hosting.drain(on=False)
    await wait_all_tasks_blocked()
    asked = 0
    world.a.hosting.node_seen("c_b")
    await wait_all_tasks_blocked()
    assert asked == 0


async def test_the_last_node_keeps_its_instances_when_it_is_drained(world: World) -> None:
    room = await make(world.store, "room")
    await world.a.hosting.place(room.id)
    del world.nodes["c_b"]
    assert await world.a.calls.handlers["drain"](DrainCall(), "operator") == DrainAnswer(1)
    assert world.a.dropped == []


async def test_without_a_node_that_can_host_it_is_refused(world: World) -> None:
    room = await make(world.store, "room")
    for id_, node in world.nodes.items():
        world.nodes[id_] = replace(node, state="draining")
    with pytest.raises(Overloaded, match="Overloaded"):
        await world.a.hosting.place(room.id)


async def test_there_is_no_host_for_what_does_not_exist(world: World) -> None:
    with pytest.raises(InstanceNotFound):
        await world.a.hosting.place("i_none")


async def test_a_place_that_was_given_back_has_another_epoch_and_another_holding(
    world: World,
) -> None:
    room = await make(world.store, "room")
    first = await world.a.hosting.place(room.id)
    assert isinstance(first, Here)
    world.a.hosting.gave_up(room.id)
    assert first.holding.lost
    again = await world.a.hosting.place(room.id)  # waits until it is given back
    assert tenure_of(again) == ("c_a", 3)
    assert world.a.hosting.counts["given_back"] == 1
    world.a.hosting.gave_up(room.id)
    await given_back(world, room.id)
    assert tenure_of(await world.b.hosting.place(room.id)) == ("c_b", 5)


async def test_it_is_given_back_once_the_database_is_there_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_AGAIN_S", 0.001)
    room = await make(world.store, "room")
    await world.a.hosting.place(room.id)
    real, calls = world.leases.leave, 0

    async def leave(tenure: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise DatabaseUnavailable
        return await real(tenure)

    monkeypatch.setattr(world.leases, "leave", leave)
    world.a.hosting.gave_up(room.id)
    await given_back(world, room.id)
    assert calls == 3


async def test_a_node_that_fell_holds_nothing_and_drops_all(world: World) -> None:
    rooms = [await make(world.store, name) for name in ("one", "two")]
    holdings = []
    for room in rooms:
        where = await world.a.hosting.place(room.id)
        assert isinstance(where, Here)
        holdings.append(where.holding)
    assert all(one.valid() for one in holdings)
    await world.leases.fence("c_a", 0, by="c_b")
    world.a.member.node = "c_a2"
    world.a.hosting.fell("c_a")
    assert world.a.dropped == [room.id for room in rooms]
    assert not any(one.valid() for one in holdings)
    assert world.a.hosting.held() == []
    assert tenure_of(await world.b.hosting.place(rooms[0].id)) == ("c_b", 3)


async def test_a_write_that_was_fenced_drops_the_instance(world: World) -> None:
    room = await make(world.store, "room")
    where = await world.a.hosting.place(room.id)
    assert isinstance(where, Here)
    await world.leases.bump()
    world.a.hosting.fenced(where.holding)
    world.a.hosting.fenced(where.holding)
    assert world.a.dropped == [room.id]
    assert where.holding.lost
    assert world.a.hosting.counts["fenced"] == 2


async def test_a_holding_of_before_is_not_taken_for_the_present_one(world: World) -> None:
    room = await make(world.store, "room")
    where = await world.a.hosting.place(room.id)
    assert isinstance(where, Here)
    old = Holding(where.holding.tenure, lambda: True)
    world.a.hosting.fenced(old)
    assert world.a.hosting.held() == [room.id]
    assert world.a.dropped == []


async def test_a_node_without_a_valid_lease_claims_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACE_S", 0.3)
    room = await make(world.store, "room")
    world.a.member.lease = False
    with pytest.raises(Overloaded):
        await world.a.hosting.place(room.id)
    assert await world.a.calls.handlers["host"](HostCall(room.id), "c_b") == HostAnswer(None, 0)
    assert (await world.leases.place(room.id)).epoch == 0


async def lives_on_a_node(world: World, linked: str) -> str:
    """An instance that lives on an instance node, whose link that process has."""
    room = await make(world.store, "room")
    user = await world.store.users.create(username="ada", password_hash="x", displayname="Ada")
    node = await world.store.host_nodes.create(
        title="Attic",
        owner=user.id,
        kind="hosted",
        region=None,
        capacity=10,
        direct=None,
        token_hash=b"t",
    )
    await world.store.host_nodes.link(node.id, b"t", server=linked, version="")
    await world.store.database.execute(
        "UPDATE instances SET node = $1 WHERE id = $2", node.id, room.id
    )
    return room.id


async def test_what_lives_on_an_instance_node_is_hosted_where_its_link_is(world: World) -> None:
    world.nodes["c_b"] = replace(world.nodes["c_b"], load=0.9, roles=("reil",))
    room = await lives_on_a_node(world, "c_b")
    assert await world.a.hosting.place(room) == There("c_b", 1)
    assert world.b.started == [room]


async def test_a_process_without_the_role_claims_what_lives_on_a_node_that_is_linked_to_it(
    world: World,
) -> None:
    gateway = Hosting(
        cast(Member, world.b.member), world.leases, cast(Calls, world.b.calls), hosts=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.run)
        await wait_all_tasks_blocked()
        assert tenure_of(await gateway.place(await lives_on_a_node(world, "c_b"))) == ("c_b", 1)
        nursery.cancel_scope.cancel()


async def test_its_links_are_sent_away_before_a_drained_node_hands_over(world: World) -> None:
    done: list[str] = []

    async def hand_over() -> None:
        done.append("handed over")

    world.a.hosting.hand_over = hand_over
    world.a.hosting.drained = lambda: done.append("sent away")
    await world.a.hosting.drain()
    assert done == ["sent away", "handed over"]
    await world.a.hosting.drain(on=False)
    assert len(done) == 2
