"""The work of the commands `reileta node …` and `reileta cluster …`; works beside running nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from reileta.cluster.bus import Bus, BusError, open_bus
from reileta.cluster.calls import Calls, NodeUnreachable
from reileta.cluster.nats_witness import NatsWitness, SeenRecord
from reileta.errors import ReiletaError
from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import Store
from reileta.store.admin_commands import run
from reileta.store.cluster_leases import ClusterLeases, NodeRow
from reileta.store.database_clock import DatabaseClock

CONNECT_S: Final = 3.0
FIGURES_S: Final = 1.0
"""Seconds in which a node must have said what its relay has met."""
DRAIN_S: Final = 60.0
"""Seconds in which a node must have handed its instances over."""


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """The cluster as both witnesses show it.

    `records`: None if NATS was not asked, or does not answer. `vacant`: instances without a host.
    `relays`: of the nodes that answer, what their relay has met.
    """

    now_ms: int
    rows: list[NodeRow]
    records: dict[str, SeenRecord] | None
    vacant: int
    highest_epoch: int
    relays: Mapping[str, RelayFigures] = field(default_factory=dict)


class RelayFigures(msgspec.Struct, array_like=True, frozen=True):
    """Since a node's start: how often messages of hosts were missing, were sent again, and were
    lost for good. `lagging`: gateways that are behind now, of the instances that it hosts."""

    gaps: int = 0
    replays: int = 0
    restores: int = 0
    lagging: int = 0


class _GetFigures(msgspec.Struct, array_like=True, frozen=True):
    """Asks a node for these."""


class _Drain(msgspec.Struct, array_like=True, frozen=True):
    on: bool


class _Drained(msgspec.Struct, array_like=True, frozen=True):
    instances: int


class _Operator:
    """Who calls nodes: no node itself."""

    node = "operator"

    def __init__(self, bus: Bus, cluster: str) -> None:
        self.bus = bus
        self._cluster = cluster

    def subject(self, *parts: str) -> str:
        return ".".join(("avr", self._cluster, *parts))

    def valid(self) -> bool:
        return True


def look(settings: Settings) -> ClusterSeen:
    """The nodes and their leases."""

    async def work(store: Store, clock: DatabaseClock) -> ClusterSeen:
        leases = ClusterLeases(store.database)
        vacant, highest = await leases.epochs()
        rows = await leases.nodes()
        alive = [row.id for row in rows if row.fenced_at is None]
        records, relays = await _ask_nats(settings, store, alive)
        return ClusterSeen(clock.now_ms(), rows, records, vacant, highest, relays)

    return run(settings, work)


async def _ask_nats(
    settings: Settings, store: Store, nodes: Iterable[str]
) -> tuple[dict[str, SeenRecord] | None, dict[str, RelayFigures]]:
    """The records of nodes, and what the relays of those nodes have met."""
    relays: dict[str, RelayFigures] = {}
    if settings.nats is None:
        return None, relays
    async with open_bus(settings.nats_urls, "reileta operator", store.loop) as bus:
        with trio.move_on_after(CONNECT_S):
            while bus.connection is None:
                await bus.changed_from(None)
            try:
                records = await NatsWitness(bus, settings.cluster).look()
            except BusError:
                return None, relays
            calls = Calls(_Operator(bus, settings.cluster), _capture)

            async def ask(node: str) -> None:
                with suppress(NodeUnreachable, ReiletaError):
                    relays[node] = await calls.call(
                        node, "figures", _GetFigures(), RelayFigures, FIGURES_S
                    )

            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(ask, node)
            return records, relays
    return None, relays


def bump(settings: Settings) -> None:
    """Makes all epochs and nodes of before invalid, after the restore of a backup."""

    async def work(store: Store, _: DatabaseClock) -> None:
        await ClusterLeases(store.database).bump()

    run(settings, work)


def yield_up(settings: Settings, node: str) -> bool:
    """Asks a node, by its name or id, to give its instances back; whether there is such a node."""

    async def work(store: Store, _: DatabaseClock) -> bool:
        leases = ClusterLeases(store.database)
        asked = False
        for row in await leases.nodes():
            if node in (row.name, row.id) and row.fenced_at is None:
                asked = await leases.ask_to_yield(row.id) or asked
        return asked

    return run(settings, work)


def drain(settings: Settings, node: str, *, on: bool) -> int | None:
    """Has a node, by its name or id, take no more instances, or (not `on`) some again; how many it
    still has. None: there is no such node. Raises StartupError if it can't be told."""
    if settings.nats is None:
        raise StartupError("--nats is needed: the node is told by NATS")

    async def work(store: Store, _: DatabaseClock) -> int | None:
        rows = await ClusterLeases(store.database).nodes()
        ids = [row.id for row in rows if node in (row.name, row.id) and row.fenced_at is None]
        if not ids:
            return None
        async with open_bus(settings.nats_urls, "reileta operator", store.loop) as bus:
            with trio.move_on_after(CONNECT_S):
                while bus.connection is None:
                    await bus.changed_from(None)
            calls = Calls(_Operator(bus, settings.cluster), _capture)
            left = 0
            for id_ in ids:
                try:
                    answer = await calls.call(id_, "drain", _Drain(on), _Drained, DRAIN_S)
                except NodeUnreachable as error:
                    raise StartupError(f"the node {node} can't be told: {error.reason}") from error
                left += answer.instances
            return left

    return run(settings, work)


async def _capture(_: object) -> None:
    """An operator answers no calls."""
