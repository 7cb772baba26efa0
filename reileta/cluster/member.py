"""This process's part in the cluster: its lease, and the other nodes.

`Member` drives the rules of `reileta/rules/cluster/lease.py`: it carries out what they ask for, at
both witnesses, and reports the answers. While `valid()` is true, this process may host. The check
is one comparison of two numbers, so that it can stand before each write to a socket; after a pause
of the process, it is right at once.

A node that falls is gone for good; the process goes on as another node, with a new id. The
listeners hear of the fall before the new node has a lease, and must drop what the old one hosted
within the call.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol
from uuid import uuid4

import structlog
import trio

from reileta.cluster.bus import Bus, BusError, Gap
from reileta.cluster.nats_witness import About, SeenRecord
from reileta.concurrency import plain_nursery
from reileta.errors import DatabaseUnavailable
from reileta.observability import log_events
from reileta.roles import ROLES
from reileta.rules.cluster.lease import (
    DEFAULT_TIMES,
    NEVER,
    Bury,
    LeaseTimes,
    NodeLease,
    PeerWatch,
    ReadRecord,
    Record,
    RenewRow,
    Request,
    WriteRecord,
)
from reileta.store.cluster_leases import RowsSeen

__all__ = ["Load", "Member", "MemberCounts", "MemberListener", "NodeSeen", "boot_ms"]

LONGEST_WAIT_S: Final = 1.0
"""Seconds until the next look at what is due, if the rules name no earlier time."""
AGAIN_S: Final = 0.5
"""Seconds until a registration that failed is tried again."""
WITHDRAW_S: Final = 2.0
"""Seconds for the words of a node that stops."""
GONE_KEPT: Final = 1024
"""Ids of nodes that are gone, which late looks must not bring back."""

_log = structlog.get_logger()


def boot_ms() -> int:
    """Milliseconds since the machine started; goes on while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """How busy this process is. `load`: the part of its capacity for work that is in use."""

    load: float = 0.0
    lag_ms: int = 0
    instances: int = 0
    players: int = 0
    capacity: int = 0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node of the cluster, as it described itself last."""

    id: str
    name: str
    state: Literal["up", "draining"]
    load: float
    instances: int
    players: int
    capacity: int
    lag_ms: int
    version: str
    roles: tuple[str, ...] = ROLES
    url: str | None = None
    """Where clients reach it, if it is a gateway."""

    @property
    def hosts(self) -> bool:
        """Whether it takes instances."""
        return self.state == "up" and "ins" in self.roles


@dataclass(slots=True)
class MemberCounts:
    """What happened since the process started, for metrics.

    `renewals_s`: how long the last renewal took, by witness.
    """

    falls: int = 0
    takeovers: int = 0
    renewals: dict[str, int] = field(default_factory=lambda: {"nats": 0, "database": 0})
    failures: dict[str, int] = field(default_factory=lambda: {"nats": 0, "database": 0})
    renewals_s: dict[str, float] = field(default_factory=dict)


class MemberListener(Protocol):
    """What hears of changes in the cluster. The methods must not wait, nor raise."""

    def fell(self, was: str) -> None:
        """This process is another node from now on, which has no lease yet; what `was` hosted is
        to be dropped."""
        ...

    def node_gone(self, node: str) -> None:
        """Another node was taken over, fell or withdrew: it hosts nothing."""
        ...

    def node_seen(self, node: str) -> None:
        """Another node is there for the first time."""
        ...

    def reconnected(self) -> None:
        """The bus lost its connection and has one again: everything counts as a gap."""
        ...


class Rows(Protocol):
    """The witness in PostgreSQL: `reileta.store.cluster_leases.ClusterLeases`."""

    async def register(
        self, node: str, *, name: str, roles: Collection[str], version: str
    ) -> None: ...

    async def renew(self, node: str, *, nats_ok: bool) -> RowsSeen | None: ...

    async def fence(self, node: str, beat: int, *, by: str) -> list[str] | None: ...

    async def give_back(self, node: str) -> list[str]: ...

    async def withdraw(self, node: str) -> list[str]: ...

    async def ask_to_yield(self, node: str) -> bool: ...


class Records(Protocol):
    """The witness in NATS: `reileta.cluster.nats_witness.NatsWitness`."""

    async def read(self, node: str, request: ReadRecord) -> Record | None: ...

    async def write(self, node: str, request: WriteRecord, about: About) -> int | None: ...

    async def look(self) -> dict[str, SeenRecord]: ...

    async def bury(self, step: Bury, *, by: str) -> bool: ...

    async def remove(self, node: str, *, connection: int) -> None: ...


async def _at_once() -> bool:
    return True


class Member:
    """This process as a node of the cluster; `run` must run beside its use.

    Attributes:
        node: the id of the present node, `c_…`: another one after each fall.
        name: what operators call the process.
        cluster: the cluster's name, which is in each subject.
        listeners: hear of changes, in this order.
        isolated: whether it fell because NATS did not answer it, and is not a node again yet.
        roles: what this process does (`reileta/roles.py`).
        url: returns where clients reach it, if it is a gateway.
        counts: for metrics.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        renewals: Rows,
        rows: Rows,
        records: Records,
        cluster: str,
        name: str,
        version: str,
        roles: Collection[str] = ROLES,
        load: Callable[[], Load] = Load,
        may_register: Callable[[], Awaitable[bool]] = _at_once,
        times: LeaseTimes = DEFAULT_TIMES,
        now_ms: Callable[[], int] = boot_ms,
    ) -> None:
        """`renewals` is used for renewals alone: they must not wait for other statements."""
        self.bus = bus
        self.cluster = cluster
        self.name = name
        self.version = version
        self.roles = tuple(sorted(roles))
        self.url: Callable[[], str | None] = lambda: None
        self.load = load
        self.listeners: list[MemberListener] = []
        self.counts = MemberCounts()
        self.isolated = False
        self.times = times
        self._renewals = renewals
        self._rows = rows
        self._records = records
        self._may_register = may_register
        self._now_ms = now_ms
        self._wake = trio.Event()
        self._became_valid = trio.Event()
        self._withdrawn = False
        self._yielding = False
        self._about: dict[str, About] = {}
        """The last description of each node."""
        self._seen: dict[str, NodeSeen] = {}
        self._gone: dict[str, None] = {}
        self._rows_known: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Becomes a new node, which is not registered yet."""
        now = self._now_ms()
        self.node = f"c_{uuid4()}"
        self._registered = False
        self._lease = NodeLease(self.node, now, self.times)
        self._watch = PeerWatch(self.node, self.times)
        self._connection: int | None = None
        self._nats_sent_ms = now
        """When the newest call that NATS has answered was sent."""
        self._look_due_ms = now
        self._looking = False
        self._asked: set[str] = set()
        """Nodes that were asked to yield."""
        self._was_valid = False
        self._yielding = False

    # What it may do

    def valid(self) -> bool:
        """Whether this process may send, write and answer for its instances."""
        return self._now_ms() < self._lease.valid_until_ms

    @property
    def valid_for_s(self) -> float:
        """For how long that is true without a further confirmation; negative if it is not true."""
        until = self._lease.valid_until_ms
        return -1.0 if until == NEVER else (until - self._now_ms()) / 1000

    async def wait_valid(self) -> None:
        """Waits until `valid()` is true."""
        while not self.valid():
            await self._became_valid.wait()

    def subject(self, *parts: str) -> str:
        """A subject of the cluster: `avr.<cluster>.…`."""
        return ".".join(("avr", self.cluster, *parts))

    @property
    def nodes(self) -> Mapping[str, NodeSeen]:
        """The nodes that live, by id, with this one. One that has died is here until it is taken
        over."""
        own = self._described(self.node, self._own_about())
        return MappingProxyType({**self._seen, self.node: own})

    # Its life

    async def run(self) -> None:
        """Keeps the lease, and begins anew after each fall, until `withdraw`."""
        async with plain_nursery() as nursery:
            nursery.start_soon(self._follow_connections)
            nursery.start_soon(self._hear)
            while not self._withdrawn:
                await self._register()
                await self._live()
            nursery.cancel_scope.cancel()

    async def withdraw(self) -> None:
        """Leaves the cluster in order, after the last word about any instance."""
        node = self.node
        self._withdrawn = True
        self._lease.yield_up()
        self._stir()
        with trio.move_on_after(WITHDRAW_S, shield=True):
            with suppress(DatabaseUnavailable):
                await self._rows.withdraw(node)
                self._announce(node)
            with suppress(BusError):
                if self.bus.connection is not None:
                    await self._records.remove(node, connection=self.bus.connection)
        _log.info(log_events.NODE_WITHDRAWN, node=node)

    def yield_up(self) -> None:
        """Gives all instances back soon, and goes on as another node: an operator wants it."""
        self._yielding = True
        self._stir()

    async def _register(self) -> None:
        while not self._registered and not self._withdrawn:
            with suppress(DatabaseUnavailable):
                if await self._sees_nats() and await self._may_register():
                    await self._rows.register(
                        self.node, name=self.name, roles=self.roles, version=self.version
                    )
                    self._registered = True
                    self.isolated = False
                    self._nats_sent_ms = self._now_ms()
                    _log.info(log_events.NODE_JOINED, node=self.node, name=self.name)
                    return
            with trio.move_on_after(AGAIN_S):
                await self._wake.wait()

    async def _sees_nats(self) -> bool:
        """Whether NATS answers, if this process fell because it did not."""
        if not self.isolated:
            return True
        with suppress(BusError), trio.move_on_after(self.times.patience_ms / 1000):
            await self._records.look()
            return True
        return False

    async def _live(self) -> None:
        """Keeps the lease of the present node until it falls."""
        lease = self._lease
        async with plain_nursery() as nursery:
            while not lease.fallen:
                wake = self._wake
                self._tick(nursery)
                if lease.fallen or self._yielding:
                    break
                with trio.move_on_after(self._idle_s()):
                    await wake.wait()
            nursery.cancel_scope.cancel()
        if not self._withdrawn:
            await self._fall()

    async def _fall(self) -> None:
        was, of_itself = self.node, not self._lease.fallen
        self._lease.yield_up()
        self._begin()
        self._gone[was] = None  # the listeners hear of it as a fall
        self.counts.falls += 1
        _log.error(log_events.NODE_FELL, node=was, isolated=self.isolated, of_itself=of_itself)
        for listener in tuple(self.listeners):
            listener.fell(was)
        if of_itself:
            # If the database is away now, others fence it: its row is renewed no more.
            with suppress(DatabaseUnavailable), trio.move_on_after(WITHDRAW_S):
                await self._rows.give_back(was)
                self._announce(was)

    def _tick(self, nursery: trio.Nursery) -> None:
        """Sends what is due."""
        now, lease, watch = self._now_ms(), self._lease, self._watch
        self._look_at_bus(now)
        for request in lease.due(now):
            nursery.start_soon(self._carry_out, request, now)
        if self._connection is not None and now >= self._look_due_ms and not self._looking:
            self._look_due_ms = now + self.times.renew_ms
            self._looking = True
            nursery.start_soon(self._look, self._connection, now)
        for step in watch.overdue(now):
            nursery.start_soon(self._take_over, step)
        for node in set(watch.unseen(now)) - self._asked:
            self._asked.add(node)
            nursery.start_soon(self._ask_to_yield, node)
        if watch.is_isolated(now, self._nats_sent_ms):
            self.isolated = True
            self._yielding = True
        self._note_validity()

    def _look_at_bus(self, now: int) -> None:
        connection = self.bus.connection
        if connection == self._connection:
            return
        self._connection = connection
        if connection is None:
            self._lease.disconnected()
        else:
            self._lease.connected(connection, now)
            self._look_due_ms = now

    def _note_validity(self) -> None:
        valid = self.valid()
        if valid and not self._was_valid:
            self._became_valid.set()
            self._became_valid = trio.Event()
            _log.info(log_events.LEASE_CONFIRMED, node=self.node)
        elif self._was_valid and not valid and not self._lease.fallen:
            _log.warning(log_events.LEASE_RAN_OUT, node=self.node)
        self._was_valid = valid

    # Calls to the witnesses

    async def _carry_out(self, request: Request, sent_ms: int) -> None:
        lease = self._lease
        witness = "database" if isinstance(request, RenewRow) else "nats"
        with trio.move_on_after(self.times.patience_ms / 1000) as patience:
            try:
                match request:
                    case RenewRow():
                        await self._renew(lease, request, sent_ms)
                    case ReadRecord():
                        record = await self._records.read(lease.node, request)
                        self._heard(sent_ms)
                        lease.record_read(request.call, record, self._now_ms())
                    case WriteRecord():
                        about = self._own_about()
                        revision = await self._records.write(lease.node, request, about)
                        self._heard(sent_ms)
                        if revision is None:
                            lease.record_refused(request.call, self._now_ms())
                        else:
                            lease.record_written(request.call, revision, self._now_ms())
            except (DatabaseUnavailable, BusError) as error:
                self.counts.failures[witness] += 1
                _log.debug(log_events.LEASE_UNANSWERED, witness=witness, reason=repr(error))
                return
        now = self._now_ms()
        if patience.cancelled_caught:
            self.counts.failures[witness] += 1
            _log.debug(log_events.LEASE_UNANSWERED, witness=witness, reason="no answer")
        else:
            self.counts.renewals[witness] += 1
            self.counts.renewals_s[witness] = (now - sent_ms) / 1000
        self._note_validity()
        if lease.fallen or self._yielding or lease.next_ms(now) <= now:
            self._stir()

    async def _renew(self, lease: NodeLease, request: RenewRow, sent_ms: int) -> None:
        nats_ok = sent_ms - self._nats_sent_ms <= self.times.look_ms
        seen = await self._renewals.renew(lease.node, nats_ok=nats_ok)
        if seen is None:
            lease.row_refused()
            return
        now = self._now_ms()
        self._watch.rows_seen(seen.rows, sent_ms, now)
        lease.row_renewed(request.call, now)
        if seen.asked_to_yield:
            self._yielding = True
        self._compare(seen.rows)

    async def _look(self, connection: int, sent_ms: int) -> None:
        try:
            with trio.move_on_after(self.times.patience_ms / 1000):
                found = await self._records.look()
                self._heard(sent_ms)
                if connection != self.bus.connection:
                    return
                records = {node: one.record for node, one in found.items()}
                self._watch.records_seen(records, connection, sent_ms, self._now_ms())
                for node, one in found.items():
                    if one.about is not None and one.record.state == "up":
                        self._describe(node, one.about)
        except BusError as error:
            _log.debug(log_events.LEASE_UNANSWERED, witness="nats", reason=repr(error))
        finally:
            self._looking = False
            if self._now_ms() >= self._look_due_ms:
                self._stir()

    def _heard(self, sent_ms: int) -> None:
        self._nats_sent_ms = max(self._nats_sent_ms, sent_ms)

    async def _take_over(self, step: Bury) -> None:
        try:
            if not await self._records.bury(step, by=self.node):
                return
            fence = step.then
            vacated = await self._rows.fence(fence.node, fence.beat, by=self.node)
        except (DatabaseUnavailable, BusError) as error:
            _log.warning(log_events.TAKEOVER_FAILED, node=step.node, reason=repr(error))
            return
        if vacated is not None:
            self.counts.takeovers += 1
            _log.warning(log_events.NODE_TAKEN_OVER, node=step.node, instances=len(vacated))
            self._announce(step.node)
            self._went(step.node)

    async def _ask_to_yield(self, node: str) -> None:
        with suppress(DatabaseUnavailable):
            await self._rows.ask_to_yield(node)

    # The other nodes

    def _own_about(self) -> About:
        load = self.load()
        return About(
            self.version,
            self.roles,
            self.url(),
            draining=load.draining,
            load=load.load,
            lag_ms=load.lag_ms,
            instances=load.instances,
            capacity=load.capacity,
            name=self.name,
            players=load.players,
        )

    def _describe(self, node: str, about: About) -> None:
        if node == self.node or node in self._gone:
            return
        self._about[node] = about
        if node in self._seen:
            self._seen[node] = self._described(node, about)

    def _described(self, node: str, about: About) -> NodeSeen:
        return NodeSeen(
            id=node,
            name=about.name,
            state="draining" if about.draining else "up",
            load=about.load,
            instances=about.instances,
            players=about.players,
            capacity=about.capacity,
            lag_ms=about.lag_ms,
            version=about.version,
            roles=about.roles,
            url=about.url,
        )

    def _compare(self, rows: Collection[str]) -> None:
        """The rows of all nodes were read."""
        for node in self._rows_known - set(rows) - {self.node}:
            self._went(node)
        self._rows_known = set(rows)
        for node in rows:
            about = self._about.get(node)
            if about is not None and node not in self._seen and node not in self._gone:
                self._seen[node] = self._described(node, about)
                for listener in tuple(self.listeners):
                    listener.node_seen(node)
        for node in self._about.keys() - rows - self._seen.keys():
            del self._about[node]

    def _went(self, node: str) -> None:
        """A node is gone; one that was never seen may host instances all the same."""
        if node in self._gone:
            return
        self._gone[node] = None
        while len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        self._about.pop(node, None)
        self._seen.pop(node, None)
        for listener in tuple(self.listeners):
            listener.node_gone(node)

    def _announce(self, node: str) -> None:
        """Tells the others at once what their next look at the database would show."""
        with suppress(BusError):
            self.bus.publish(self.subject("gone"), node.encode())

    async def _hear(self) -> None:
        async with self.bus.subscribe(self.subject("gone")) as subscription:
            while True:
                for item in await subscription.receive():
                    if not isinstance(item, Gap):
                        node = item.data.decode("ascii", "replace")
                        if node != self.node:
                            self._went(node)

    # The bus

    async def _follow_connections(self) -> None:
        connection, was_connected = self.bus.connection, self.bus.connection is not None
        while True:
            connection = await self.bus.changed_from(connection)
            self._stir()
            if connection is None:
                continue
            if was_connected:
                for listener in tuple(self.listeners):
                    listener.reconnected()
            was_connected = True

    def _stir(self) -> None:
        self._wake.set()
        self._wake = trio.Event()

    def _idle_s(self) -> float:
        """Seconds until something is due, if nothing happens before."""
        now = self._now_ms()
        times = [self._lease.next_ms(now), self._watch.next_ms(now, self._nats_sent_ms)]
        if self._connection is not None and not (self._looking and now >= self._look_due_ms):
            times.append(self._look_due_ms)
        # A millisecond more: a clock that is read too early would show what is not due yet.
        return min(max(0, min(times) - now + 1) / 1000, LONGEST_WAIT_S)
