"""A node: the supervision tree of one server process, and its services.

    root
    ├── hub          subscriptions and publications
    ├── instances    one actor for each live instance, started on first use
    ├── resources    one actor for each resource that is used, watched or waited for
    └── sessions     one actor for each session that is connected, or was a moment ago

Sessions stop first, then resources, then instances, then the hub: the reverse of the order in which
they start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from actors.clients import ModeratedClients
from actors.cluster.cluster import Cluster
from actors.cluster.facts import ClusterMember
from actors.cluster.orders import Orders
from actors.cluster.shared import Shared
from actors.console.console import Console
from actors.console.watches import Watches
from actors.delivery.pacing import CoreLoad
from actors.directory import Directory
from actors.federation.guests import TIDY_S, GuestPolicy, GuestService
from actors.federation.trust import Trust
from actors.federation.visits import Visits
from actors.hub.actor import HubActor, Listeners
from actors.hub.messages import HubMessage, Publish
from actors.hub.notices import Notices
from actors.hub.update_feed import Noun, Record, UpdateFeed
from actors.instance.config import InstanceConfig
from actors.instance.manager import InstanceManager
from actors.instance.messages import InstanceMessage, ReassignOwner
from actors.instance.recording_writer import RecordingWriter, open_recorder
from actors.instance.visibility import InstanceVisibility
from actors.instance_service import InstanceService
from actors.kept_seats import KeptSeats
from actors.links.direct_proofs import DirectProofs
from actors.links.host_links import HostLinks
from actors.resource.config import ResourceDeps
from actors.resource.interests import Interests
from actors.resource.manager import POLL_S, ResourceManager
from actors.resource.messages import ResourceMessage
from actors.resource_access import OpenSockets
from actors.runtime.actor import Spec
from actors.runtime.background import BackgroundTasks
from actors.runtime.clock_steps import EVERY_S, ClockSteps
from actors.runtime.instruments import Instruments
from actors.runtime.mailbox import Ref
from actors.runtime.registry import Registry
from actors.runtime.rounds import Rounds
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timers
from actors.runtime.trace_watch import STEP_S, TraceWatch
from actors.server import LiveServer
from actors.session.config import SessionDeps
from actors.session.lease_renewal import LeaseRenewer
from actors.session.manager import FORGET_S, SessionManager
from actors.session.messages import SessionMessage
from actors.session.revocations import RevocationList
from reileta import records
from reileta.clock import Clock
from reileta.errors import ClientBlocked, DatabaseUnavailable, Overloaded
from reileta.federation.challenger import RENEW_S
from reileta.federation.knowledge import Knowledge
from reileta.federation.peers import HttpClient, NoClient
from reileta.federation.remote_reads import RemoteReads
from reileta.ids import server_of, user_ref
from reileta.observability import log_events
from reileta.observability.activity_log import REPORT_S, ActivityLog
from reileta.observability.metrics import Metrics
from reileta.protocol import events
from reileta.protocol.frames import encode
from reileta.protocol.views.federation import peer_change
from reileta.protocol.views.server import NoticeView
from reileta.rules.console import figures
from reileta.rules.instance.state import InstanceLimits
from reileta.rules.session.session import SessionLimits
from reileta.security.server_key import ServerKey
from reileta.security.tickets import Ticket, issue
from reileta.settings import Settings
from reileta.site import gateway_at
from reileta.store import Store
from reileta.store.live_credentials import LiveCredentials

HUB_MAILBOX_LIMIT: Final = 65_536
SUSPENSIONS_S: Final = 5.0
"""How often suspensions whose time is over are lifted. Logins don't wait for that."""
AUDIT_TRIM_S: Final = 3600.0
TRUST_TRIM_S: Final = 3600.0
RULES_S: Final = 5.0
"""How often rules about servers whose time is over stop acting. Requests don't wait for that."""


@dataclass(frozen=True, slots=True)
class GatewaySeen:
    """How clients reach another process of the cluster."""

    secure: bool
    address: str


class Node:
    """The actors of one server process and the services over them; made by `Node.open`.

    Attributes:
        has_key: whether it has the server's key, with which it signs; `take_key` replaces it. A
            process that only hosts instances needs none.
        server: the running server's address, public key and start time.
        directory: occupancy of instances and presence of users, for anyone to read.
        instances: finds and starts instances.
        instance_service: requests to instances, on behalf of a principal.
        resources: asks resources, and notifies them.
        sessions: finds and starts sessions, and notifies them.
        updates: publishes changes of records.
        notices: what admins tell everyone who is connected.
        hub: takes subscriptions.
        background: the loops of this process, supervised.
        activity: logs what users and admins do.
        trust: challenges, keys and tokens between this server and others.
        clients: refuses clients, by the rules about them.
        servers: decides about other servers; a block acts there.
        peers: asks other servers.
        guests: users of other servers who are here.
        host_links: the links of instance nodes to this process.
        kept_seats: keeps seats and queues over a restart; None in a cluster, whose nodes do.
        visits: our users' tokens at other servers.
        remote_reads: reads and caches objects of other servers.
        supervisors: those of the actors, for the console.
        traces: the traces that the console shows.
        console: what admins see, of all nodes.
        watches: the sockets of admins that watch it.
        draining: whether the server is stopping.
        rounds: those in which the sockets are read.
        load: how busy the event loop's core is.
        unready: each returns why this process is not ready; None: it is.
        cluster: this process's part in the cluster; None if it is the only one.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        address: str,
        key: ServerKey | None,
        hub: Ref[HubMessage],
        directory: Directory,
        instances: Registry[str, InstanceMessage],
        resources: Registry[int, ResourceMessage],
        sessions: Registry[str, SessionMessage],
        recorder: RecordingWriter | None,
        background: BackgroundTasks,
        client: HttpClient | None = None,
        shared: Shared | None = None,
        listeners: Listeners | None = None,
        cluster: Cluster | None = None,
        public_key: str = "",
        supervisors: Sequence[Supervisor] = (),
        traces: TraceWatch | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.metrics = metrics
        self.address = address
        self._key = key
        self.server = LiveServer(
            address,
            settings.secure,
            public_key if key is None else key.public_base64url,
            base_path=settings.base_path or "",
            gateway=settings.gateway_address or "",
            links=() if key is None else key.links,
            temporary_accounts=settings.temporary_accounts > 0,
        )
        self.draining = False
        self.rounds = Rounds()
        self.load = CoreLoad()
        self.unready: list[Callable[[], str | None]] = []
        self.shared = shared
        self._listeners = Listeners() if listeners is None else listeners
        self.cluster = cluster
        self.supervisors = supervisors
        self.traces = traces or TraceWatch()
        self.background = background
        self.activity = ActivityLog(clock, addresses=settings.log_addresses)
        self.trust = Trust(
            settings=settings,
            store=store,
            clock=clock,
            metrics=metrics,
            activity=self.activity,
            address=address,
            client=client or NoClient(),
            key=lambda: self.key,
            publish=self._peer_changed,
        )
        self.clients = ModeratedClients(store.client_rules, clock, self.activity, metrics, address)
        self.servers, self.peers = self.trust.servers, self.trust.peers
        policy = self._policy = GuestPolicy(settings, self.servers)
        knowledge = Knowledge(store, self.peers)
        self.remote_reads = RemoteReads(
            self.peers,
            address=address,
            source=knowledge.source,
            existing=knowledge.existing,
            clock=clock,
            metrics=metrics,
            activity=self.activity,
            limited=settings.rate_limits == "on",
        )
        self.servers.listeners.append(self.remote_reads)
        self.hub = hub
        self.notices = Notices(
            store.identity, hub, clock, None if shared is None else shared.hub.announced
        )
        self.directory = directory
        revocations = RevocationList(clock)
        self.instances = InstanceManager(
            instances,
            InstanceConfig(
                store=store,
                clock=clock,
                server=self.server,
                limits=InstanceLimits.from_settings(settings),
                directory=directory,
                metrics=metrics,
                activity=self.activity,
                hub=hub,
                relay=None if shared is None else shared.hub,
                ended=revocations,
                admits=policy.admits_user,
                ensure_account=self._ensure_account,
                backlog_limit_bytes=settings.backlog_limit_bytes,
                paced=settings.rate_limits == "on",
                sign=None if key is None else self.sign,
                fenced=_ignore if cluster is None else cluster.hosting.fenced,
                load=self.load,
                in_turns=not settings.deflate,
                rounds=self.rounds,
            ),
            InstanceVisibility(store, directory, address),
            settings,
            recorder,
        )
        self.resources = ResourceManager(
            resources,
            ResourceDeps(
                store=store,
                clock=clock,
                metrics=metrics,
                sessions=self,
                interests=Interests(),
                offer_ms=int(settings.resource_offer_s * 1000),
                grace_ms=int(settings.away_s * 1000),
                tell_elsewhere=None if shared is None else shared.notes.tell_queue,
                present_elsewhere=None if shared is None else shared.present,
            ),
        )
        session_deps = SessionDeps(
            store=store,
            clock=clock,
            server=self.server,
            directory=directory,
            hub=hub,
            instances=self.instances,
            resources=self.resources,
            revocations=revocations,
            limits=SessionLimits.from_settings(settings),
            admits=policy.admits_user,
            ensure_account=self._ensure_account,
            nodes=shared,
        )
        self.sessions = SessionManager(sessions, session_deps)
        self.lease_renewer = LeaseRenewer(self.sessions, session_deps)
        self.updates = UpdateFeed(
            store=store,
            hub=hub,
            directory=directory,
            metrics=metrics,
            server=self.server,
            users=self.sessions,
        )
        self.instance_service = InstanceService(
            self.instances,
            self.sessions,
            users=store.users,
            stored=store.instances,
            interests=directory.interests,
            address=address,
        )

        self.guests = GuestService(
            store=store,
            clock=clock,
            settings=settings,
            policy=policy,
            instances=self.instances,
            sessions=self.sessions,
            directory=directory,
            activity=self.activity,
            metrics=metrics,
            publish=partial(self.changed, "user"),
        )
        self.servers.listeners.append(self.guests)
        self.servers.connected_guests = self._connected_guests
        self.host_links = HostLinks(
            store.host_nodes,
            clock,
            activity=self.activity,
            grace_s=settings.link_grace_s,
            process=lambda: "here" if cluster is None else cluster.member.node,
            changed=partial(self.changed, "node"),
            gone=self.instances.record_gone,
            proofs=DirectProofs(client or NoClient()),
            metrics=metrics,
        )
        self.instances.ports = self.host_links
        self.kept_seats = None
        if cluster is None:
            self.kept_seats = KeptSeats(
                store,
                self.instances,
                limits=InstanceLimits.from_settings(settings),
                now_ms=clock.now_ms,
                admits=self._admits,
            )
        self.visits = Visits(
            store=store,
            clock=clock,
            peers=self.peers,
            address=address,
            activity=self.activity,
            metrics=metrics,
        )
        self.console = Console(self)
        self.watches = Watches(self.console)
        if shared is not None:
            shared.bind(self, self.sessions, self.resources)
            if cluster is not None:
                self.console.serve(cluster.calls)
                shared.keep_lines(cluster.calls)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        settings: Settings,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        instruments: Instruments,
        address: str,
        key: ServerKey | None,
        public_key: str = "",
        client: HttpClient | None = None,
        member: ClusterMember | None = None,
        name: str = "",
        traces: TraceWatch | None = None,
    ) -> AsyncIterator[Node]:
        """The node for the block. At its end the actors finish their messages, in bounded time.

        `key`: None for a process that only hosts instances; `public_key` is the server's then.
        `traces` takes what is logged about traces; None: the console shows none.
        `client` reaches other servers; None: there are none. `member` is this process's part in a
        cluster; None: as the settings say. `name`: that of a node of a cluster, for operators.
        Raises StartupError.
        """
        timers = Timers()
        background = BackgroundTasks()
        metrics.background = lambda: background.tasks
        directory = Directory(metrics)
        shutdown_s = settings.shutdown_s / 5
        async with trio.open_nursery() as nursery:
            background.run(nursery, "timers", timers.run)
            async with (
                _cluster(settings, store, name) as cluster,
                open_recorder(settings, clock, background) as recorder,
                Supervisor.open("root", timers, instruments, shutdown_s=shutdown_s) as root,
                Supervisor.open("instances", timers, instruments, shutdown_s=shutdown_s) as second,
                Supervisor.open("resources", timers, instruments, shutdown_s=shutdown_s) as third,
                Supervisor.open("sessions", timers, instruments, shutdown_s=shutdown_s) as fourth,
            ):
                shared = None
                if cluster is not None:
                    member = cluster.member
                if member is not None:
                    credentials = LiveCredentials(store.database)
                    shared = Shared(
                        member, directory, metrics, address=address, credentials=credentials
                    )
                    if cluster is not None:
                        cluster.member.listeners.append(shared)
                instances: Registry[str, InstanceMessage] = Registry(second)
                resources: Registry[int, ResourceMessage] = Registry(third)
                sessions: Registry[str, SessionMessage] = Registry(fourth)
                listeners = Listeners()
                hub = await root.start(
                    Spec(
                        "hub",
                        lambda: HubActor(listeners, directory, instances, clock),
                        mailbox_limit=HUB_MAILBOX_LIMIT,
                    )
                )
                node = cls(
                    settings=settings,
                    store=store,
                    clock=clock,
                    metrics=metrics,
                    address=address,
                    key=key,
                    hub=hub,
                    directory=directory,
                    instances=instances,
                    resources=resources,
                    sessions=sessions,
                    recorder=recorder,
                    background=background,
                    client=client,
                    shared=shared,
                    listeners=listeners,
                    cluster=cluster,
                    public_key=public_key,
                    supervisors=(root, second, third, fourth),
                    traces=traces,
                )
                metrics.mailbox_depths = lambda: {
                    "hub": root.deepest_mailbox,
                    "instance": second.deepest_mailbox,
                    "resource": third.deepest_mailbox,
                    "session": fourth.deepest_mailbox,
                }
                if cluster is not None:
                    cluster.hosting.drained = node.send_links_away
                    node.instance_service.orders = Orders(node.instances, store.deeds.answer)
                    node.unready.append(lambda: cluster.unready)
                    await cluster.start(
                        nursery,
                        background,
                        node.instances,
                        metrics,
                        directory,
                        node.server,
                        node.host_links,
                    )
                node.start_background(nursery)
                node.start_federation(nursery)
                steps = ClockSteps(clock, timers)
                background.repeat(nursery, "clock", steps.check, every_s=EVERY_S)
                yield node
            nursery.cancel_scope.cancel()

    def start_background(self, nursery: trio.Nursery) -> None:
        """Starts the node's own loops."""
        instances, leases = self.instances, self.lease_renewer
        background = self.background
        background.run(nursery, "links", self.host_links.run)
        # A gateway hosts the instances of the instance nodes that are linked to it.
        background.repeat(nursery, "sweep", instances.sweep, every_s=instances.sweep_every_s)
        background.repeat(nursery, "sessions", self.sessions.forget_old, every_s=FORGET_S)
        background.repeat(nursery, "leases", leases.renew, every_s=leases.every_s, delayed=True)
        background.repeat(nursery, "resources", self.resources.poll, every_s=POLL_S)
        background.run(nursery, "updates", self.updates.run)
        background.repeat(nursery, "figures", self.console.step, every_s=figures.EVERY_S)
        background.run(nursery, "watches", self.watches.run)
        background.run(nursery, "interests", partial(self.directory.interests.run, self.load))
        background.run(nursery, "traces", self._step_traces)
        background.repeat(nursery, "activity", self.activity.report, every_s=REPORT_S, delayed=True)
        if self.shared is not None:
            for name, loop in self.shared.loops.items():
                background.run(nursery, name, loop)

    def start_federation(self, nursery: trio.Nursery) -> None:
        """Starts the loops that are about other servers."""
        background = self.background
        background.repeat(nursery, "servers", self.servers.follow_time, every_s=RULES_S)
        if "reil" not in self.settings.roles:
            return
        background.run(nursery, "visits", self.visits.run)
        background.repeat(nursery, "guests", self.tidy_guests, every_s=TIDY_S)
        background.repeat(nursery, "tokens", self.trust.renew, every_s=RENEW_S, delayed=True)
        background.repeat(nursery, "challenges", self.trust.trim, every_s=TRUST_TRIM_S)

    @property
    def has_key(self) -> bool:
        """Whether this process has the server's key."""
        return self._key is not None

    @property
    def key(self) -> ServerKey:
        """The server's key, with which it signs."""
        assert self._key is not None, "a process that only hosts instances signs nothing"
        return self._key

    def sign(self, ticket: Ticket) -> str:
        """Signs a ticket for a direct connection to an instance node."""
        return issue(self.key, ticket)

    @property
    def turns_away(self) -> bool:
        """Whether new sockets are closed at once, to come back elsewhere."""
        return self.draining or (self.cluster is not None and self.cluster.member.isolated)

    def gateway(self, *, besides: str | None = None) -> GatewaySeen | None:
        """Another process by which clients can reach the server, the least busy of those that take
        clients; None: none is known. `besides`: one at another URL than this."""
        if self.cluster is None:
            return None
        member = self.cluster.member
        able = [
            one
            for one in member.nodes.values()
            if one.id != member.node and "reil" in one.roles and one.state == "up" and one.url
        ]
        able = [one for one in able if one.url != besides]
        best = min(able, key=lambda one: (one.load, one.id), default=None)
        if best is None or best.url is None:
            return None
        return GatewaySeen(*gateway_at(best.url))

    def instead(self) -> GatewaySeen | None:
        """The gateway to which clients with new WebSockets are sent; None: they are taken here.

        A node that is drained takes them if all gateways have one address: nobody could be sent
        anywhere by it.
        """
        if self.settings.registry_alone:
            return self.gateway()
        if self.cluster is None or not self.cluster.hosting.draining:
            return None
        return self.gateway(besides=self.server.site.url)

    def instead_for_links(self) -> GatewaySeen | None:
        """The gateway to which instance nodes are sent. Behind one address for all gateways, they
        find another one there."""
        draining = self.cluster is not None and self.cluster.hosting.draining
        return self.gateway() if draining else None

    def send_links_away(self) -> None:
        """Ends the links of instance nodes, if another gateway can take them."""
        if self.gateway() is not None:
            self.host_links.send_away()

    async def take_key(self, key: ServerKey) -> None:
        """Signs with another key from now on, and publishes it. Raises DatabaseUnavailable; then
        the key is in use, and only not published. The database learns it at the next start."""
        known, self._key = self.key, key
        self.server.take_key(key)
        self.host_links.take_key(key.public_base64url)
        await self.store.identity.replace_public_key(
            key.public_base64url, known=known.public_base64url
        )
        self.changed("server", await self.store.identity.get())

    async def _step_traces(self) -> None:
        """Puts watched traces together, while somebody looks at them."""
        while True:
            await self.traces.looked_at()
            self.traces.step()
            await trio.sleep(STEP_S)

    async def lift_suspensions(self) -> None:
        """Lifts suspensions whose time is over, and publishes their users."""
        with suppress(DatabaseUnavailable):  # the next time
            for user in await self.store.users.lift_expired_suspensions():
                self.changed("user", user)
                self.activity.note(
                    log_events.ACCOUNT_UNSUSPENDED, None, user=user.id, username=user.username
                )

    async def delete_user(
        self,
        id_: str,
        forget: Callable[[records.DeletedUser], None] | None = None,
        *,
        left_ms: int | None = None,
    ) -> records.DeletedUser:
        """Deletes an account, its private data and its pictures, and ends its sessions.

        Args:
            forget: called when the database has no account any more, before its sockets close.
            left_ms: see `Users.delete`, which also says what this raises.
        """
        async with self.store.blobs.releasing() as loose:
            deleted = await self.store.users.delete(id_, left_ms=left_ms)
            loose.update(deleted.files)
            if forget is not None:
                forget(deleted)
            await self.user_deleted(deleted)
        return deleted

    async def tidy_guests(self) -> None:
        """Deletes guests and visits that have ended long ago."""
        with suppress(DatabaseUnavailable):
            async with self.store.lock.alone("guests") as alone:
                if alone:
                    await self.guests.tidy()

    async def sweep_attempts(self) -> None:
        """Deletes attempts to log in that don't count any more."""
        with suppress(DatabaseUnavailable):  # the next time
            await self.store.attempts.sweep()

    async def trim_audit(self) -> None:
        """Deletes entries of the audit log that are too old."""
        with suppress(DatabaseUnavailable):
            async with self.store.lock.alone("audit") as alone:
                if alone:
                    await self.store.audit.trim(self.settings.audit_kept_days)

    def changed(self, noun: Noun, record: Record, among: frozenset[str] | None = None) -> None:
        """Publishes `update-*` for a changed record. Live instances publish their own changes.

        `among`: the change of a user concerns only these users, its friends, itself and admins.
        """
        self.updates.changed(noun, record, among)
        if isinstance(record, records.World):
            self.resources.changed(record.number)
        if self.shared is not None:
            self.shared.hub.changed(noun, record.id, among)

    def _changed_id(self, noun: Noun, id_: str) -> None:
        """As `changed`, for a record that is still to be loaded."""
        self.updates.changed_id(noun, id_)
        if self.shared is not None:
            self.shared.hub.changed(noun, id_, None)

    def _connected_guests(self) -> Mapping[str, int]:
        """How many guests are connected now, by their server."""
        here = filter(self.directory.connected, self.sessions.users())
        servers = map(server_of, {*here, *self.directory.elsewhere.users})
        return Counter(server for server in servers if server is not None)

    def _peer_changed(self, server: records.PeerServer) -> None:
        """Publishes `update-peer`, for admins, at all nodes."""
        self._publish_peer(server)
        if self.shared is not None:
            self.shared.hub.peer_changed(server.address)

    def _publish_peer(self, server: records.PeerServer) -> None:
        data = encode(peer_change(server, self.servers.decision(server.address)))
        with suppress(Overloaded):  # the hub counts what it refuses
            self.hub.tell(
                Publish(
                    events.UPDATE_PEER,
                    server.address,
                    lambda viewer: data if viewer.admin else None,
                )
            )

    def exclude_accounts(self) -> None:
        """Ends what users have here whom a rule about clients refuses."""
        if self.clients.about_accounts:
            self.sessions.exclude_accounts(self.clients.accounts())

    def _admits(self, user: str) -> bool:
        """Whether the rules about servers and clients let a user (`UserIDAt`) be here."""
        try:
            self._ensure_account(user)
        except ClientBlocked:
            return False
        return self._policy.admits_user(user_ref(user, self.address))

    def _ensure_account(self, user: str) -> None:
        if self.clients.about_accounts:
            self.clients.ensure_account(user_ref(user, self.address))

    def session_connected(self, session_id: str) -> bool:
        """Whether the session has a WebSocket, at any node."""
        recovery = self.sessions.recoveries.get(session_id)
        if recovery is not None and recovery.sockets:
            return True
        return self.shared is not None and self.shared.present(session_id)

    def sockets(self, session_id: str) -> OpenSockets:
        """The session's open sockets here."""
        return self.sessions.sockets(session_id)

    async def user_deleted(self, deleted: records.DeletedUser) -> None:
        """Ends the sessions of a user that the store has deleted; publishes its objects' new owner.

        The user's instances, worlds and services belong to the server's account by now.
        """
        for session_id in deleted.sessions:
            self.sessions.end(session_id)
        self.sessions.user_deleted(deleted.user)
        if deleted.instances:
            owner = (await self.store.users.server_account()).id
            for instance_id in deleted.instances:
                await self.owner_changed(instance_id, owner)
        for world_id in deleted.worlds:
            self._changed_id("world", world_id)
        self.resources.all_changed()
        for node_id in deleted.nodes:
            self.host_links.deleted(node_id)
            self._changed_id("node", node_id)  # closes its link at another process, too
        for service_id in deleted.services:
            self._changed_id("service", service_id)
        self._publish_followers(deleted.user.id)

    def _publish_followers(self, deleted: str) -> None:
        """Publishes the users here who followed a user that was deleted."""
        for recovery in list(self.sessions.recoveries.values()):
            if deleted in recovery.profile.following:
                self.updates.changed("user", recovery.user, frozenset())

    # Changes at other nodes --------------------------------------------------------------------

    def user_deleted_elsewhere(self, user_id: str) -> None:
        """Another process has deleted a user; its sessions are ended one by one."""
        self.sessions.user_deleted_elsewhere(user_id)
        self._publish_followers(user_id)

    def owner_changed_elsewhere(self, record: records.InstanceRecord) -> None:
        """Another process has given an instance to its owner."""
        ref = self.instances.running(record.id)
        if ref is not None:
            ref.signal(ReassignOwner(record.owner))
        elif self.directory.live(record.id) is None:  # else its host publishes it
            self.updates.changed("instance", record)

    def changed_elsewhere(self, noun: Noun, id_: str, among: frozenset[str] | None) -> None:
        """Another node has changed a record."""
        if noun == "user" and self.shared is not None:
            self.shared.revocations.forget_user(id_)
        self.updates.changed_id(noun, id_, among)
        if noun == "node":
            self.host_links.refresh(id_)

    def publish_here(self, message: Publish) -> None:
        """Publishes an event of another node's instance to the sockets here."""
        if message.inside is not None and self.instances.relay is not None:
            entering = self.instances.relay.entering(message.inside)
            if entering:
                message = replace(message, informed=message.informed | entering)
        with suppress(Overloaded):  # the hub counts what it refuses
            self.hub.tell(message)

    async def peer_changed_elsewhere(self, address: str) -> None:
        """Another node has changed what is known of a server."""
        with suppress(DatabaseUnavailable):  # the next event shows the whole server
            # The rules may have changed with it: the event shows what they say, and they act here.
            await self.servers.apply()
            server = await self.store.servers.get(address)
            if server is not None:
                self._publish_peer(server)

    def announced_elsewhere(self, notice: NoticeView) -> None:
        """Another node has changed the server's notice."""
        self.notices.announced_elsewhere(notice)

    async def look_for_notice(self) -> None:
        """A message about the server's notice may have been missed."""
        await self.notices.load()

    def tell_queues_again(self, users: Collection[str]) -> None:
        """Has the instances here tell these candidates, who are elsewhere, their places."""
        for user_id in users:
            self.sessions.tell_queues_again(user_id)

    def presence_changed(self, users: frozenset[str]) -> None:
        """These users came online or went offline by sockets at other nodes."""
        for user_id in users:
            self.sessions.presence_changed(user_id)
            if self._listeners.hear_of(user_id):
                self.updates.changed_id("user", user_id, frozenset())

    async def owner_changed(self, instance_id: str, owner: str) -> None:
        """Tells an instance, or its subscribers, that the store gave it to an owner (a bare id)."""
        ref = None
        with suppress(Overloaded):  # its host reads the record when the instance moves
            ref = await self.instances.find(instance_id)
        if ref is not None:
            ref.signal(ReassignOwner(owner))
            return
        record = await self.store.instances.get(instance_id)
        if record is not None:
            self.changed("instance", record)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "instances": len(self.instances),
            **self.resources.debug_counts(),
            **self.sessions.debug_counts(),
            **self.directory.debug_counts(),
            **self.trust.debug_counts(),
            **self.remote_reads.debug_counts(),
            **self.host_links.debug_counts(),
            "players": self.metrics.players,
        }


def _ignore(_: object) -> None:
    """Without a cluster, no write is fenced."""


@asynccontextmanager
async def _cluster(settings: Settings, store: Store, name: str) -> AsyncIterator[Cluster | None]:
    """The node's part in the cluster, which it leaves after the block."""
    if settings.nats is None:
        yield None
        return
    async with Cluster.open(settings, store, name) as cluster:
        yield cluster
        # The actors have stopped, and nothing more is said for their instances.
        await cluster.member.withdraw()
