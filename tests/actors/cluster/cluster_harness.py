"""Several nodes of one cluster in one process, with real actors, a database that is a dictionary
and a bus in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Unpack

import msgspec
import pytest
import trio

import actors.instance.config
from actors.cluster.following import Following
from actors.cluster.handover import Handover
from actors.cluster.orders import Orders
from actors.cluster.relay import ClusterPlaces, Relay
from actors.cluster.soft_state import SoftStates
from actors.instance.hosted import Here, Holding, There, Where
from actors.instance.manager import InstanceManager
from actors.runtime.failures import capture_failure
from reileta.cluster.calls import Calls
from reileta.errors import DatabaseUnavailable, InstanceNotFound, Overloaded
from reileta.records import InstanceRecord
from reileta.rules.cluster.placement import Place, Tenure
from reileta.store import Store
from reileta.store.cluster_leases import Fenced
from reileta.store.host_writes import UnfencedHostWrites
from reileta.store.instances import InstanceUpdate
from tests.actors.cluster.memory_bucket import MemoryBucket, MemoryEntries
from tests.actors.node_harness import FakeDatabase, NodeHarness, open_harness
from tests.reileta.cluster.memory_bus import MemoryBus, MemoryNats

__all__ = ["Cluster", "ClusterNode", "open_cluster"]


@dataclass
class FakeSeen:
    """A node as others see it."""

    hosts: bool = True
    instances: int = 0
    capacity: int = 100


@dataclass
class FakeMember:
    """A node's part in the cluster, whose lease a test decides."""

    cluster: Cluster
    node: str
    bus: MemoryBus
    alive: bool = True
    unseen: set[str] = field(default_factory=set)
    """Nodes that live, and of which this one has not heard yet."""

    def subject(self, *parts: str) -> str:
        return ".".join(("avr", "test", *parts))

    def valid(self) -> bool:
        return self.alive

    @property
    def nodes(self) -> dict[str, FakeSeen]:
        return {name: FakeSeen() for name in self.cluster.live if name not in self.unseen}


@dataclass
class FakeHosting:
    """Places instances, by the rows that all nodes share."""

    cluster: Cluster
    member: FakeMember
    holdings: dict[str, Holding] = field(default_factory=dict)
    draining: bool = False

    async def place(self, instance_id: str) -> Where:
        await trio.lowlevel.checkpoint()
        if self.cluster.database_away:
            raise Overloaded
        if instance_id not in self.cluster.store.instances.records:
            raise InstanceNotFound
        node, epoch = self.cluster.places.get(instance_id, (None, 0))
        if node is None:
            prefer = self.cluster.linked(instance_id) or self.cluster.prefer
            node, epoch = prefer or self.member.node, epoch + 1
            self.cluster.places[instance_id] = (node, epoch)
            if node != self.member.node:
                await self.cluster.nodes[node].manager.start(instance_id)
        if node == self.member.node:
            return Here(self.holding(instance_id) or self._hold(instance_id, epoch))
        return There(node, epoch)

    def _hold(self, instance_id: str, epoch: int) -> Holding:
        tenure = Tenure(instance_id, self.member.node, epoch)
        holding = self.holdings[instance_id] = Holding(tenure, self.member.valid)
        return holding

    def holding(self, instance_id: str) -> Holding | None:
        node, epoch = self.cluster.places.get(instance_id, (None, 0))
        known = self.holdings.get(instance_id)
        if known is not None and (node, epoch) == (known.tenure.node, known.tenure.epoch):
            return known
        return self._hold(instance_id, epoch) if node == self.member.node else None

    def held(self) -> list[str]:
        return list(self.holdings)

    def gave_up(self, instance_id: str) -> None:
        holding = self.holdings.pop(instance_id, None)
        if holding is not None and self.cluster.places.get(instance_id) == (
            holding.tenure.node,
            holding.tenure.epoch,
        ):
            self.cluster.places[instance_id] = (None, holding.tenure.epoch)

    def fenced(self, holding: Holding) -> None:
        self.moved(holding)

    def moved(self, holding: Holding) -> None:
        holding.lost = True
        del self.holdings[holding.tenure.instance]
        self.cluster.nodes[self.member.node].manager.drop([holding.tenure.instance])


@dataclass
class FakeLeases:
    """The rows of places."""

    cluster: Cluster

    async def place(self, instance_id: str) -> Place:
        await trio.lowlevel.checkpoint()
        if self.cluster.database_away:
            raise DatabaseUnavailable
        node, epoch = self.cluster.places.get(instance_id, (None, 0))
        return Place(instance_id, node, epoch, self.cluster.linked(instance_id))

    async def move(self, tenure: Tenure, node: str) -> Tenure:
        await trio.lowlevel.checkpoint()
        if self.cluster.database_away:
            raise DatabaseUnavailable
        self.cluster.before_move()
        moved = (node, tenure.epoch + 1)
        if self.cluster.places[tenure.instance] not in (moved, (tenure.node, tenure.epoch)):
            raise Fenced
        self.cluster.places[tenure.instance] = moved
        if self.cluster.lost_answers:
            self.cluster.lost_answers -= 1
            self.cluster.on_lost_answer()
            raise DatabaseUnavailable
        self.cluster.on_move()
        return Tenure(tenure.instance, node, tenure.epoch + 1)


@dataclass
class ClusterNode:
    """One node of the cluster."""

    name: str
    harness: NodeHarness
    member: FakeMember
    relay: Relay
    calls: Calls
    handover: Handover
    following: Following

    @property
    def manager(self) -> InstanceManager:
        return self.harness.node.instances

    @property
    def bus(self) -> MemoryBus:
        return self.member.bus


@dataclass
class Cluster:
    """The nodes by name, and what they share.

    Attributes:
        prefer: the node on which instances are placed; None: the one that asks.
        live: the nodes that are not gone.
    """

    nats: MemoryNats
    store: FakeDatabase
    nodes: dict[str, ClusterNode] = field(default_factory=dict)
    places: dict[str, tuple[str | None, int]] = field(default_factory=dict)
    live: list[str] = field(default_factory=list)
    prefer: str | None = None
    database_away: bool = False
    lost_answers: int = 0
    """So many moves are made, and not answered."""
    kept: MemoryEntries = field(default_factory=MemoryEntries)
    before_move: Callable[[], None] = lambda: None
    on_lost_answer: Callable[[], None] = lambda: None
    on_move: Callable[[], None] = lambda: None
    """Called when a place has got another host, before anybody knows."""
    kicks: dict[str, int] = field(default_factory=dict)
    """The log: users with the time of their last kick."""

    async def last_kicks(self, instance_id: str) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        return self.kicks

    def linked(self, instance_id: str) -> str | None:
        """The live node that has the link of the instance node on which the instance lives."""
        node = self.store.instances.records[instance_id].node
        host = None if node is None else self.store.host_nodes.hosts.get(node)
        return host.server if host is not None and host.server in self.live else None

    def hear_of(self, host: str) -> None:
        """All nodes hear that something about an instance node has changed."""
        for name in self.live:
            self.nodes[name].harness.node.host_links.refresh(host)

    def __getitem__(self, name: str) -> ClusterNode:
        return self.nodes[name]

    def vacate(self, name: str) -> None:
        """A node was fenced: its places have no host. Nobody was told yet."""
        self.live.remove(name)
        for instance, (node, epoch) in list(self.places.items()):
            if node == name:
                self.places[instance] = (None, epoch + 1)

    def fall(self, name: str, again: str) -> None:
        """A node was fenced, and its process goes on as another node."""
        node = self.nodes[name]
        self.vacate(name)
        hosts = node.manager.hosts
        assert isinstance(hosts, FakeHosting)
        dropped, hosts.holdings = hosts.holdings, {}
        for holding in dropped.values():
            holding.lost = True
        node.manager.drop(dropped)
        node.relay.fell(name)
        node.calls.fell(name)
        for other in self.live:
            self.nodes[other].relay.node_gone(name)
            self.nodes[other].following.node_gone(name)
        node.member.node = again
        node.harness.node.host_links.fell(name)
        node.following.fell(name)
        self.nodes[again] = node
        self.live.append(again)

    def kill(self, name: str) -> None:
        """A node is gone, and says nothing more; the others hear of it."""
        self.nodes[name].bus.cut()
        self.nodes[name].member.alive = False
        hosts = self.nodes[name].manager.hosts
        assert isinstance(hosts, FakeHosting)
        for holding in hosts.holdings.values():
            holding.lost = True
        self.vacate(name)
        for other in self.live:
            self.nodes[other].relay.node_gone(name)
            self.nodes[other].following.node_gone(name)


class PlainWrites(UnfencedHostWrites):
    """The writes of a host, without a database to compare its tenure with."""

    def __init__(self, store: Store, tenure: Tenure, *_: object) -> None:
        super().__init__(store, tenure.instance)
        self._deeds = store.deeds

    async def update(
        self, deed: str | None = None, /, **changes: Unpack[InstanceUpdate]
    ) -> InstanceRecord:
        record = await super().update(**changes)
        if deed is not None:
            await self._deeds.note(deed, msgspec.msgpack.encode(record))
        return record

    async def delete(self, deed: str | None = None) -> bool:
        deleted = await super().delete()
        if deed is not None:
            await self._deeds.note(deed, b"")
        return deleted

    async def answer(self, deed: str) -> bytes | None:
        return await self._deeds.answer(deed)


@asynccontextmanager
async def open_cluster(
    monkeypatch: pytest.MonkeyPatch,
    *names: str,
    max_data_bytes: int = 1024 * 1024,
    **settings: Any,
) -> AsyncIterator[Cluster]:
    """A cluster for the block, with one room in its database that runs nowhere."""
    monkeypatch.setattr(actors.instance.config, "FencedHostWrites", PlainWrites)
    cluster = Cluster(MemoryNats(max_data_bytes=max_data_bytes), FakeDatabase())
    async with AsyncExitStack() as stack:
        harnesses = [
            await stack.enter_async_context(open_harness(monkeypatch, cluster.store, **settings))
            for _ in names
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        for name, harness in zip(names, harnesses, strict=True):
            member = FakeMember(cluster, name, cluster.nats.bus(name))
            calls = Calls(member, capture_failure)
            hosts, manager = FakeHosting(cluster, member), harness.node.instances
            places = ClusterPlaces(hosts, manager)
            soft = SoftStates(member, MemoryBucket(cluster.kept, member.bus))
            directory = harness.node.directory
            relay = Relay(member, calls, directory, places, cluster.last_kicks, soft)
            manager.hosts, manager.relay = hosts, relay
            manager.elsewhere, manager.lost = relay.remote, relay.lost
            orders = Orders(manager, cluster.store.deeds.answer)
            harness.node.instance_service.orders = orders
            handover = Handover(member, hosts, FakeLeases(cluster), calls, relay, manager)
            links = harness.node.host_links
            following = Following(member, handover, links)
            links.process, links.elsewhere = partial(getattr, member, "node"), following.moved
            cluster.nodes[name] = ClusterNode(
                name, harness, member, relay, calls, handover, following
            )
            cluster.live.append(name)
            nursery.start_soon(calls.run)
            nursery.start_soon(relay.run)
            nursery.start_soon(soft.run)
            nursery.start_soon(following.run)
            await calls.listening.wait()
            await relay.started.wait()
        yield cluster
        nursery.cancel_scope.cancel()
