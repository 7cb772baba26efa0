"""The manager of a node's instances: finds, starts, cleans up after and sweeps them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import structlog
import trio

from actors.delivery.sink import Sink
from actors.instance.actor import InstanceActor
from actors.instance.config import InstanceConfig
from actors.instance.frames import InstanceFrames
from actors.instance.hosted import Holding, Hosts, There
from actors.instance.messages import ExcludeServers, InstanceMessage, RecordGone
from actors.instance.queue import notify_abandoned
from actors.instance.recorded import RecordedInstanceActor
from actors.instance.recording_writer import RecordingWriter
from actors.instance.recovery import Keeper, NodePort, RecoveryState
from actors.instance.visibility import InstanceVisibility
from actors.membership import InstanceRecipient
from actors.runtime.actor import Spec
from actors.runtime.errors import ActorStopped
from actors.runtime.mailbox import Recipient, Ref
from actors.runtime.registry import Registry
from reileta import records
from reileta.errors import (
    DatabaseFault,
    DatabaseUnavailable,
    InstanceAway,
    InstanceNotFound,
    NodeNotFound,
    Overloaded,
    ReiletaError,
)
from reileta.ids import At
from reileta.observability import log_events
from reileta.rules.identity import Principal, Visitor
from reileta.settings import Settings
from reileta.store.cluster_leases import UnhostedSweep

SWEEP_S: Final = 10.0
PLACED_AGAIN: Final = 3
"""How often an instance is placed whose place is given back at the same time."""
LINKED_S: Final = 4.0
"""Seconds for an instance to hear of the link of its node, which the database knows already."""
LINKED_AGAIN_S: Final = 0.05
"""Seconds until the instance is asked again; doubled each time, up to `LINKED_AGAIN_MAX_S`."""
LINKED_AGAIN_MAX_S: Final = 0.5
EXCLUSION_S: Final = 0.5
"""How long guests of a blocked server may stay connected until their instances have notified
them."""

R = TypeVar("R")
InstanceRef: TypeAlias = Recipient[InstanceMessage]
"""An instance's actor here, or what stands for one at another node."""

_log = structlog.get_logger()


class InstanceRelay(Protocol):
    """The sockets that instances have at other nodes (`actors.cluster.relay.Relay`)."""

    def host(self, recovery: RecoveryState, holding: Holding) -> None:
        """An instance's actor is about to start here: sets `RecoveryState.remote`."""
        ...

    def find_remote(self, instance_id: str) -> InstanceRef | None:
        """What stands for an instance elsewhere, if someone here is inside it."""
        ...

    def entering(self, instance_id: str) -> frozenset[Sink]:
        """The sockets here that enter, or are inside, an instance elsewhere."""
        ...

    def joined_elsewhere(self) -> Sequence[InstanceRef]:
        """The stand-ins for instances at other nodes that have players here."""
        ...


class NodePorts(Protocol):
    """The links of instance nodes (`actors.links.host_links.HostLinks`)."""

    async def port(self, instance_id: str, node_id: str) -> NodePort:
        """The end of an instance that is about to start. Raises NodeNotFound."""
        ...


class InstanceManager:
    """One actor for each live instance. The node calls `sweep` every `sweep_every_s` seconds."""

    def __init__(
        self,
        registry: Registry[str, InstanceMessage],
        config: InstanceConfig,
        visibility: InstanceVisibility,
        settings: Settings,
        recorder: RecordingWriter | None,
    ) -> None:
        self._registry = registry
        self._config = config
        self._visibility = visibility
        self._settings = settings
        self._recorder = recorder
        self.hosts: Hosts | None = None
        """Which node hosts an instance; None: this server hosts all."""
        self.relay: InstanceRelay | None = None
        """Where instances have sockets at other nodes; None: nowhere."""
        self.elsewhere: Callable[[str, There], InstanceRef] = _unreachable
        """An instance that another node hosts, as a recipient of messages."""
        self.lost: Callable[[RecoveryState], None] | None = None
        """Takes the members of an instance that this node lost; None: they leave."""
        self.keeper: Callable[[RecoveryState], Keeper] | None = None
        """Begins an instance with what an earlier run of the server kept, and keeps it; None:
        nobody does."""
        self._states: WeakValueDictionary[str, RecoveryState] = WeakValueDictionary()
        """The states of instances that run, for admins; their actors own them."""
        self.ports: NodePorts | None = None
        """The links of instance nodes, on which instances can live."""
        self.sweep_every_s = min(SWEEP_S, max(0.05, settings.empty_instance_s))

    def __len__(self) -> int:
        return len(self._registry.running())

    @property
    def address(self) -> str:
        """The server's `ServerAt`."""
        return self._config.address

    def states(self) -> dict[str, RecoveryState]:
        """The states of the instances that run here, by id; only to be read."""
        running = self._registry.running()
        return {id_: state for id_, state in self._states.items() if id_ in running}

    def state(self, instance_id: str) -> RecoveryState | None:
        """The state of an instance that runs here; only to be read."""
        return None if self._registry.find(instance_id) is None else self._states.get(instance_id)

    def seating(self, session_id: str) -> list[InstanceRecipient]:
        """As `Instances.seating`."""
        running = self._registry.running()
        return [running[id_] for id_, state in self.states().items() if session_id in state.seated]

    async def shows(self, record: records.InstanceRecord, principal: Principal | None) -> bool:
        """Whether the principal (None: not logged in) may see the instance of that record.

        Raises:
            DatabaseUnavailable: the database is needed to decide, and down.
        """
        address = self._config.address
        who = None if principal is None else principal.as_visitor(address)
        return await self._visibility.admits(record, who)

    def running(self, instance_id: str) -> InstanceRef | None:
        """The instance's actor, if it runs here and takes messages. In a cluster also what stands
        for one elsewhere, if someone here is inside it."""
        ref = self._registry.find(instance_id)
        if ref is None and self.relay is not None:
            return self.relay.find_remote(instance_id)
        return ref

    async def find(self, instance_id: str) -> InstanceRef | None:
        """The instance's actor, wherever it runs; None: it runs nowhere, as far as is known here.

        Raises:
            Overloaded, DatabaseUnavailable: it runs at another node, which can't be told now.
        """
        ref = self.running(instance_id)
        if ref is not None or self.hosts is None:
            return ref
        if self._config.directory.live(instance_id) is None:
            return None
        with suppress(InstanceNotFound):
            where = await self.hosts.place(instance_id)
            if isinstance(where, There):
                return self.elsewhere(instance_id, where)
        return self.running(instance_id)

    async def live(self, name: str, who: Visitor) -> tuple[str, InstanceRef]:
        """An instance by id, name or `id@server`, started if it does not run.

        Raises:
            InstanceNotFound: no such instance, `who` may not see it, or it is of another server.
            DatabaseUnavailable: it does not run, and can't be looked up now.
        """
        wanted = At.parse(name) if name else At(name)
        if not wanted.local_to(self._config.address):
            raise InstanceNotFound
        ref = self._registry.find(wanted.id)
        if ref is not None and self._visibility.runs_for(wanted.id, who):
            return wanted.id, ref
        # An instance that `who` may not see takes the same path as one that does not exist.
        record = await self._config.store.instances.get(wanted.id)
        if record is None or not await self._visibility.admits(record, who):
            raise InstanceNotFound
        if self.hosts is None:
            return record.id, await self._start(record, None)
        return record.id, await self._start_or_find(record, self.hosts)

    async def entered(self, name: str, enter: Callable[[], Awaitable[R]]) -> R:
        """Calls `enter`, which asks the instance of that name to let somebody in. While it answers
        that its node is away, although the database says that the node has a link, calls it again,
        for `LINKED_S`: whoever hosts it hears of the link in a moment, or hands it over to the
        process that has the link.

        Raises what `enter` raises, at last.
        """
        until, pause_s = trio.current_time() + LINKED_S, LINKED_AGAIN_S
        while True:
            try:
                return await enter()
            except InstanceAway:
                if trio.current_time() + pause_s > until or not await self._on_linked_node(name):
                    raise
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LINKED_AGAIN_MAX_S)

    async def _on_linked_node(self, name: str) -> bool:
        """Whether the node on which the instance lives has a link, as the database says."""
        store = self._config.store
        try:
            record = await store.instances.get((At.parse(name) if name else At(name)).id)
            if record is None or record.node is None:
                return False
            node = await store.host_nodes.get(record.node)
        except DatabaseUnavailable:
            return False
        return node is not None and node.status == "online"

    async def start(self, instance_id: str) -> Ref[InstanceMessage]:
        """The actor of an instance that this node hosts, started if it does not run.

        Raises:
            InstanceNotFound: it does not exist.
            Overloaded: this node does not host it any more.
            DatabaseUnavailable: it does not run, and can't be looked up now.
        """
        record = await self._config.store.instances.get(instance_id)
        if record is None:
            raise InstanceNotFound
        if self.hosts is None:
            return await self._start(record, None)
        holding = self.hosts.holding(record.id)
        if holding is None:
            raise Overloaded
        return await self._start(record, holding)

    async def _start_or_find(self, record: records.InstanceRecord, hosts: Hosts) -> InstanceRef:
        for _ in range(PLACED_AGAIN):
            where = await hosts.place(record.id)
            if isinstance(where, There):
                return self.elsewhere(record.id, where)
            with suppress(_HoldingEnded):
                return await self._start(record, where.holding)
        raise Overloaded

    async def _start(
        self, record: records.InstanceRecord, holding: Holding | None
    ) -> Ref[InstanceMessage]:
        recovery = RecoveryState(record, holding=holding)
        if record.node is not None and self.ports is not None:
            with suppress(NodeNotFound):  # then the instance is gone, too: its start finds that
                recovery.node = await self.ports.port(record.id, record.node)

        def gone(error: Exception | None) -> None:
            self._gone(recovery, error)

        def spec() -> Spec[InstanceMessage]:
            if holding is not None and holding.lost:
                raise _HoldingEnded  # while an earlier actor was stopping
            if holding is not None and self.relay is not None:
                self.relay.host(recovery, holding)
            if self.keeper is not None:
                recovery.keeper = self.keeper(recovery)
            self._states[record.id] = recovery
            return Spec(
                f"instance/{record.id}",
                lambda: self._actor(recovery),
                mailbox_limit=self._settings.mailbox_limit,
                gone=gone,
                rounds=self._config.rounds,
            )

        return await self._registry.get(record.id, spec)

    def record_gone(self, instance_id: str) -> None:
        """The database no longer has the instance: its actor here closes it."""
        ref = self._registry.find(instance_id)
        if ref is not None:
            ref.signal(RecordGone())

    def drop(self, instance_ids: Iterable[str]) -> None:
        """Ends actors without a word: this node has lost their instances."""
        for instance_id in instance_ids:
            self._registry.abandon(instance_id)

    async def exclude(self, servers: frozenset[str]) -> None:
        """Has the users of these servers leave all instances of this node, and those elsewhere that
        have players here. Returns once they are notified, or after `EXCLUSION_S`: then the busy
        instances do it later."""
        elsewhere = () if self.relay is None else self.relay.joined_elsewhere()
        with trio.move_on_after(EXCLUSION_S):
            async with trio.open_nursery() as nursery:
                for ref in (*self._registry.running().values(), *elsewhere):
                    nursery.start_soon(_excluded, ref, servers)

    def _actor(self, recovery: RecoveryState) -> InstanceActor:
        if self._recorder is None:
            return InstanceActor(recovery, self._config)
        return RecordedInstanceActor(recovery, self._config, self._recorder)

    def _gone(self, recovery: RecoveryState, error: Exception | None) -> None:
        """Cleans up after an actor that has ended; if it failed too often, tells those inside."""
        id_ = recovery.record.id
        self._config.directory.occupy(id_, None)
        holding, speaks = recovery.holding, True
        if recovery.remote is not None:
            recovery.remote.ended()
        if recovery.node is not None:
            recovery.node.ended()
        if recovery.keeper is not None:
            closed = recovery.rules is not None and recovery.rules.closed
            failed = error is not None and not isinstance(error, ReiletaError)
            recovery.keeper.ended(over=closed or failed)
        if self.hosts is not None and holding is not None:
            speaks = holding.valid()
            if not holding.lost:
                self.hosts.gave_up(id_)
                if error is None and recovery.rules is not None and not recovery.rules.closed:
                    return  # this node stops: the next host asks the gateways for their players
            elif self.lost is not None:
                recovery.refuse_unanswered()
                self.lost(recovery)
                return
            else:
                error = error or ActorStopped()
        if recovery.fanout is not None and error is not None and speaks:
            self._config.metrics.deliveries_out += recovery.fanout.flush()
            if recovery.remote is not None:
                recovery.remote.publish(recovery.fanout)
        for member in recovery.seated.values():
            member.seat_lost(id_)
            for sink in member.sinks:
                sink.seats.pop(id_, None)
                if error is not None:
                    sink.send(InstanceFrames.abandoned(id_, member.player))
        recovery.seated.clear()
        self._config.directory.interests.forget_instance(id_)
        if recovery.remote is not None and speaks:
            recovery.remote.publish(None)
        if recovery.rules is not None:
            notify_abandoned(recovery.rules, self._config.directory, self._config.address)

    async def sweep(self) -> None:
        """Deletes empty instances that have no actor.

        Their time came while the server or the database was down; or nobody ever entered; or their
        actor failed too often. None of them can start while it is marked or deleted, so an instance
        that starts meanwhile keeps its own mark. The writes run on the session of the server's
        lock, so that none takes effect once another server can have the instances.
        """
        lock = self._config.store.lock
        if not await lock.held():
            return  # another server may have the instances
        if self.hosts is not None:
            await self._sweep_unhosted(self.hosts)
            return
        try:
            now = self._config.clock.now_ms()
            instances = self._config.store.instances
            for id_ in await instances.in_use():
                async with self._registry.vacant(id_) as vacant:
                    if vacant:
                        async with lock.session() as queries:
                            await instances.over(queries).mark_empty(id_, now)
            before = now - int(self._settings.empty_instance_s * 1000)
            unused = now - int(self._settings.unused_instance_s * 1000)
            for record in await instances.abandoned(before, unused):
                async with self._registry.vacant(record.id) as vacant:
                    if not vacant:
                        continue
                    async with lock.session() as queries:
                        deleted = await instances.over(queries).delete_abandoned(
                            record.id, before, unused
                        )
                    if deleted:
                        self._config.activity.note(
                            log_events.INSTANCE_ENDED, None, instance=record.id, reason="empty"
                        )
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            _log.debug(log_events.SWEEP_POSTPONED)

    async def _sweep_unhosted(self, hosts: Hosts) -> None:
        """The same in a cluster, for instances that no node hosts; and gives places back for which
        no actor runs here."""
        for id_ in hosts.held():
            async with self._registry.vacant(id_) as vacant:
                if vacant:
                    hosts.gave_up(id_)
        store, now = self._config.store, self._config.clock.now_ms()
        try:
            deleted = await UnhostedSweep(store.database, store.instances).run(
                now,
                now - int(self._settings.empty_instance_s * 1000),
                now - int(self._settings.unused_instance_s * 1000),
            )
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            _log.debug(log_events.SWEEP_POSTPONED)
            return
        for record in deleted:
            self._config.activity.note(
                log_events.INSTANCE_ENDED, None, instance=record.id, reason="empty"
            )


class _HoldingEnded(Exception):
    """This node does not host the instance any more: it must be placed again."""


def _unreachable(instance_id: str, where: There) -> InstanceRef:
    raise Overloaded


async def _excluded(ref: InstanceRef, servers: frozenset[str]) -> None:
    with suppress(ReiletaError):  # it has stopped meanwhile, or is too busy to answer now
        await ref.ask(ExcludeServers(servers))
