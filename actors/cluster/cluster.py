"""This process's part in the cluster, with all that belongs to it; None without `--nats`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from actors.cluster.following import Following
from actors.cluster.handover import Handover
from actors.cluster.hosting import Hosting
from actors.cluster.relay import ClusterPlaces, Relay
from actors.cluster.soft_state import SoftBucket, SoftStates
from actors.directory import Directory
from actors.instance.manager import InstanceManager
from actors.links.host_links import HostLinks
from actors.runtime.background import BackgroundTasks
from actors.runtime.failures import capture_failure
from actors.server import LiveServer
from reileta import __version__
from reileta.cluster.bus import open_bus
from reileta.cluster.calls import Calls
from reileta.cluster.key_value import Bucket, KeyValue
from reileta.cluster.member import Load, Member
from reileta.cluster.nats_witness import NatsWitness
from reileta.ids import at
from reileta.observability.metrics import ClusterFigures, Metrics
from reileta.roles import Role
from reileta.settings import Settings
from reileta.store import Store
from reileta.store.cluster_leases import ClusterLeases

CAPACITY: Final = 10_000
"""Instances that one node hosts at most."""
REPLICAS: Final = 3
"""NATS servers that keep the records of nodes, if `--nats` names so many."""
MEASURED_S: Final = 1.0
SMOOTHED: Final = 0.3
"""The weight of the newest second."""
SEATS_BYTES: Final = 32 * 1024 * 1024
"""Of NATS's memory, for what only hosts know."""
START_S: Final = 5.0
"""Seconds that the start waits for the first confirmation of the lease."""


class LoadMeter:
    """Measures how busy this process is: once a second, the part of one core, and the lag. Both are
    smoothed: one busy second is not a reason to move an instance elsewhere."""

    def __init__(self) -> None:
        self.load = 0.0
        self.lag_ms = 0

    async def run(self) -> None:
        """Measures, for ever."""
        while True:
            begun, used = trio.current_time(), time.process_time()
            await trio.sleep(MEASURED_S)
            took_s = trio.current_time() - begun
            load = (time.process_time() - used) / took_s
            lag_ms = (took_s - MEASURED_S) * 1000
            self.load = round(self.load + SMOOTHED * (load - self.load), 3)
            self.lag_ms = round(self.lag_ms + SMOOTHED * (lag_ms - self.lag_ms))


class Cluster:
    """What a node has besides, as one of several.

    Attributes:
        member: this process as a node: its lease, and the other nodes.
        calls: calls of other nodes, and to them.
        hosting: the instances that this node hosts.
        leases: the rows of all nodes, and the places of all instances.
        relay: instances with players at several nodes; since `start`.
        handover: hands instances over to other nodes; since `start`.
        following: moves instances of instance nodes after their links; since `start`.
    """

    def __init__(
        self,
        member: Member,
        calls: Calls,
        hosting: Hosting,
        leases: ClusterLeases,
        store: Store,
        roles: frozenset[Role],
        kept: SoftBucket,
    ) -> None:
        """`kept`: where what only hosts know is kept for the next ones."""
        self._roles = roles
        self._store = store
        self._kept = kept
        self.member = member
        self.calls = calls
        self.hosting = hosting
        self.leases = leases
        self.meter = LoadMeter()
        self.relay: Relay
        self.handover: Handover
        self.following: Following

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, store: Store, name: str) -> AsyncIterator[Cluster]:
        """The cluster's part for the block; `start` runs it. Raises StartupError."""
        async with open_bus(settings.nats_urls, f"reileta {name}", store.loop) as bus:
            leases = ClusterLeases(store.database)
            replicas = REPLICAS if len(settings.nats_urls) >= REPLICAS else 1
            member = Member(
                bus=bus,
                renewals=ClusterLeases(store.database.renewals),
                rows=ClusterLeases(store.database.urgent),
                records=NatsWitness(bus, settings.cluster, replicas=replicas),
                cluster=settings.cluster,
                name=name,
                version=__version__,
                roles=settings.roles,
                may_register=store.lock.held,
            )
            calls = Calls(member, capture_failure)
            hosting = Hosting(member, leases, calls, hosts="ins" in settings.roles)
            member.listeners.append(OnFall(calls.fell))
            seats = Bucket(
                f"avr_{settings.cluster}_seats", replicas, in_memory=True, max_bytes=SEATS_BYTES
            )
            kept = KeyValue(bus, seats)
            yield cls(member, calls, hosting, leases, store, settings.roles, kept)

    @property
    def unready(self) -> str | None:
        """Why this node can't take players now; None: it can."""
        if self.hosting.draining:
            return "is being drained"
        if self.member.isolated:
            return "is isolated: NATS does not answer it"
        if not self.member.valid():
            return "is suspended: no witness has confirmed its lease lately"
        return None

    async def start(
        self,
        nursery: trio.Nursery,
        background: BackgroundTasks,
        instances: InstanceManager,
        metrics: Metrics,
        directory: Directory,
        server: LiveServer,
        links: HostLinks,
    ) -> None:
        """Becomes a node; returns once it may host, or after `START_S`."""
        instances.hosts = self.hosting
        self.hosting.start = instances.start
        self.hosting.dropped = instances.drop
        places = ClusterPlaces(self.hosting, instances)

        async def kicks(instance_id: str) -> dict[str, int]:
            last = await self._store.moderations.last_kicks(instance_id)
            return {at(user, instances.address): ms for user, ms in last.items()}

        soft = SoftStates(self.member, self._kept)
        self.relay = relay = Relay(self.member, self.calls, directory, places, kicks, soft)
        instances.relay, instances.elsewhere, instances.lost = relay, relay.remote, relay.lost
        self.member.listeners.append(relay)
        self.handover = Handover(
            self.member, self.hosting, self.leases, self.calls, relay, instances
        )
        self.hosting.hand_over = self.handover.run
        self.following = Following(self.member, self.handover, links)
        links.elsewhere = self.following.moved
        self.member.listeners.append(self.following)
        self.member.listeners.append(OnFall(links.fell))

        def load() -> Load:
            return Load(
                load=self.meter.load,
                lag_ms=self.meter.lag_ms,
                instances=len(self.hosting),
                players=metrics.players,
                capacity=CAPACITY,
                draining=self.hosting.draining,
            )

        def figures() -> ClusterFigures:
            counts, places = self.member.counts, self.hosting.counts
            return ClusterFigures(
                valid_for_s=self.member.valid_for_s,
                nodes=len(self.member.nodes),
                falls=counts.falls,
                takeovers=counts.takeovers,
                renewals=counts.renewals,
                failures=counts.failures,
                renewal_s=counts.renewals_s,
                claimed=places["claimed"],
                given_back=places["given_back"],
                fenced=places["fenced"],
            )

        self.member.load = load
        if "reil" in self._roles:
            self.member.url = lambda: server.site.url
        metrics.cluster = figures
        background.run(nursery, "load", self.meter.run)
        background.run(nursery, "hosting", self.hosting.run)
        background.run(nursery, "calls", self.calls.run)
        background.run(nursery, "relay", relay.run)
        background.run(nursery, "following", self.following.run)
        background.run(nursery, "soft state", soft.run)
        background.run(nursery, "lease", self.member.run)
        with trio.move_on_after(START_S):
            await self.member.wait_valid()


class OnFall:
    """Calls a function when this process has fallen and is a new node, with a new id."""

    def __init__(self, fell: Callable[[str], None]) -> None:
        self.fell = fell

    def node_gone(self, node: str) -> None: ...

    def node_seen(self, node: str) -> None: ...

    def reconnected(self) -> None: ...
