"""A small stand-in for the living server, over the real database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from actors.clients import ModeratedClients
from actors.console.console import Console
from actors.federation.guests import GuestPolicy
from actors.federation.trust import Trust
from actors.hub.messages import Announce
from actors.hub.notices import Notices
from actors.hub.update_feed import Noun, Record
from actors.node import Node
from actors.runtime.background import BackgroundTasks
from actors.runtime.mailbox import Ref
from actors.runtime.supervisor import Supervisor
from actors.runtime.trace_watch import TraceWatch
from actors.server import LiveServer
from actors.session.messages import SessionMessage
from reileta.errors import InstanceNotFound, PermissionDenied
from reileta.federation.knowledge import Knowledge
from reileta.federation.peers import HttpClient, NoClient
from reileta.federation.remote_reads import RemoteReads
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.records import (
    UNSET,
    DeletedUser,
    InstanceChanges,
    InstanceRecord,
    PeerServer,
    SessionPresence,
    User,
)
from reileta.rules.identity import Principal
from reileta.rules.instance.access import access_of
from reileta.rules.tags import INSTANCE_TAGS
from reileta.rules.visibility import of_instance
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store
from reileta.store.leases import LostLease
from tests.conftest import ManualClock

ADDRESS = "play.example.org:3032"


@dataclass(frozen=True)
class FakeOccupancy:
    connected: int = 0
    queued: int = 0
    master: str | None = None


class FakeResources:
    """A `ResourceManager` without actors: the store carries everything out."""

    def __init__(self, store: Store) -> None:
        self.read = store.resources.get
        self.share = store.resources.share
        self.unshare = store.resources.unshare
        self.changes: list[int] = []

    def changed(self, number: int) -> None:
        self.changes.append(number)

    async def queue(self, *_: object) -> None:
        raise AssertionError("nobody asks a resource's actor here")

    unqueue = queue


@dataclass
class FakeNode:
    """A `Node` without actors, which is its own directory, instances, sessions and updates.

    Calls stand in its lists.
    """

    store: Store
    clock: ManualClock
    settings: Settings = field(default_factory=lambda: Settings(rate_limits="off"))
    metrics: Metrics = field(default_factory=Metrics)
    address: str = ADDRESS
    secure: bool = False
    public_key: str = "c2VydmVyLWtleQ"
    ready_at: int | None = 1_790_000_000_000
    draining: bool = False
    shared: None = None
    cluster: None = None
    clients: ModeratedClients = field(init=False)
    unready: list[Callable[[], str | None]] = field(default_factory=list)
    background: BackgroundTasks = field(default_factory=BackgroundTasks)
    inside: dict[str, FakeOccupancy] = field(default_factory=dict)
    filled: frozenset[str] = frozenset()
    online: dict[str, str] = field(default_factory=dict)
    told: list[tuple[Noun, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    killed: list[bytes] = field(default_factory=list)
    admitted: list[tuple[str, bytes, int]] = field(default_factory=list)
    lost: list[LostLease] = field(default_factory=list)
    deleted: list[DeletedUser] = field(default_factory=list)
    client: HttpClient = field(default_factory=NoClient)
    key: ServerKey = field(default_factory=ServerKey.generate)
    refreshed: list[str] = field(default_factory=list)
    """Nodes whose links were to be looked at."""
    peers_told: list[PeerServer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._traces = TraceWatch()
        self.console: Any = Console(cast(Node, self))
        hub: Any = SimpleNamespace(signal=lambda message: self.announced.append(message))
        self.notices = Notices(self.store.identity, hub, self.clock, None)
        self.activity = ActivityLog(self.clock)
        self.clients = ModeratedClients(
            self.store.client_rules, self.clock, self.activity, self.metrics, self.address
        )
        self.instance_service: Any = self
        self.resources = FakeResources(self.store)
        self.trust = Trust(
            settings=self.settings,
            store=self.store,
            clock=self.clock,
            metrics=self.metrics,
            activity=self.activity,
            address=self.address,
            client=self.client,
            key=lambda: self.key,
            publish=self.peers_told.append,
        )
        self.servers, self.peers = self.trust.servers, self.trust.peers
        self.guests: Any = SimpleNamespace(policy=GuestPolicy(self.settings, self.servers))
        self.host_links: Any = SimpleNamespace(
            refresh=self.refreshed.append,
            deleted=lambda node, instances: self.refreshed.append(node),
        )
        knowledge = Knowledge(self.store, self.peers)
        self.remote_reads = RemoteReads(
            self.peers,
            address=self.address,
            source=knowledge.source,
            existing=knowledge.existing,
            clock=self.clock,
            metrics=self.metrics,
            activity=self.activity,
        )

    supervisors: Sequence[Supervisor] = ()
    announced: list[Announce] = field(default_factory=list)

    @property
    def traces(self) -> TraceWatch:
        return self._traces

    directory = instances = sessions = updates = property(lambda self: self)

    def as_node(self) -> Node:
        """The fake, for handlers, which take a node."""
        return cast(Node, self)

    @property
    def server(self) -> LiveServer:
        return LiveServer(
            self.address,
            self.secure,
            self.public_key,
            self.ready_at,
            temporary_accounts=self.settings.temporary_accounts > 0,
        )

    def occupancy(self, instance_id: str) -> FakeOccupancy:
        return self.inside.get(instance_id, FakeOccupancy())

    @property
    def version(self) -> int:
        return hash((tuple(self.inside.items()), self.filled, tuple(self.online.items())))

    def full(self) -> frozenset[str]:
        return self.filled

    def status(self, user: User) -> str:
        return self.online.get(user.id, "offline")

    async def shows(self, instance: InstanceRecord, principal: Principal | None) -> bool:
        """As of an instance that does not run, and has no moderators."""
        audience = of_instance(
            access_of(instance.tags), owner=instance.owner, moderators=(), inside=()
        )
        if principal is None:
            return audience.admits(None)
        return audience.admits(principal.user.id, admin=principal.user.admin)

    async def update(
        self, instance_id: str, principal: Principal, changes: InstanceChanges
    ) -> InstanceRecord:
        instance = await self._own(instance_id, principal)
        wanted = {
            name: value
            for name in ("title", "description", "capacity")
            if (value := getattr(changes, name)) is not UNSET
        }
        if changes.tags is not UNSET:
            wanted["tags"] = INSTANCE_TAGS.resolve(
                changes.tags, admin=principal.user.admin, before=instance.tags
            )
        instance = await self.store.instances.update(instance.id, **wanted)
        self.changed("instance", instance)
        return instance

    async def close(self, instance_id: str, principal: Principal) -> None:
        instance = await self._own(instance_id, principal)
        await self.store.instances.delete(instance.id)

    async def _own(self, instance_id: str, principal: Principal) -> InstanceRecord:
        instance = await self.store.instances.get(instance_id)
        if instance is None:
            raise InstanceNotFound
        if instance.owner != principal.user.id and not principal.user.admin:
            raise PermissionDenied
        return instance

    def changed(self, noun: Noun, record: Record, among: frozenset[str] | None = None) -> None:
        self.told.append((noun, record.id))

    async def delete_user(
        self,
        id_: str,
        forget: Callable[[DeletedUser], None] | None = None,
        *,
        left_ms: int | None = None,
    ) -> DeletedUser:
        return await Node.delete_user(self.as_node(), id_, forget, left_ms=left_ms)

    async def user_deleted(self, deleted: DeletedUser) -> None:
        self.deleted.append(deleted)

    def presence(self, user_id: str) -> tuple[SessionPresence, ...]:
        return ()

    @property
    def recoveries(self) -> dict[str, Any]:
        return {}

    def states(self) -> dict[str, Any]:
        return {}

    def state(self, instance_id: str) -> None:
        return None

    def session_connected(self, session_id: str) -> bool:
        return session_id in self.online

    def candidacies(self, user_id: str) -> tuple[str, ...]:
        return ()

    def connected_of(self, user_id: str) -> frozenset[str]:
        return frozenset()

    def end(self, session_id: str) -> None:
        self.ended.append(session_id)

    def end_token(self, token_hash: bytes) -> None:
        self.killed.append(token_hash)

    def refresh_token(self, session_id: str, token: bytes, expires: int) -> None:
        self.admitted.append((session_id, token, expires))

    def lease_lost(self, lost: LostLease) -> None:
        self.lost.append(lost)

    async def live(self, principal: Principal) -> Ref[SessionMessage]:
        raise AssertionError("nobody asks a session's actor here")
