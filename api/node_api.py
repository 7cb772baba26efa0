"""What the HTTP face sees of the actors and the database: the ports it is plugged into.

`actors.node.Node` is what stands behind `NodePort` when the server runs. The handlers ask for no
more than this page, so a test can stand a small fake in its place.
"""

from __future__ import annotations

from typing import Protocol

from actors.delivery.sink import Sink
from actors.hub.messages import HubMessage
from actors.hub.update_feed import Noun, Record
from actors.instance_service import InstanceService, ModerationRequest
from actors.runtime.ref import Ref
from actors.session.messages import SessionMessage
from reileta.clock import Clock
from reileta.observability.metrics import Metrics
from reileta.protocol.views.registry import Inside
from reileta.protocol.views.server import ServerView
from reileta.records import DeletedUser, Instance, InstanceChanges, User
from reileta.rules.instance.access import Principal
from reileta.settings import Settings
from reileta.store import ServerInfo, Store
from reileta.store.leases import LostLease


class NodePort(Protocol):
    """The living server, as its HTTP face sees it."""

    @property
    def store(self) -> Store: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def address(self) -> str:
        """The `ServerAt` that clients know this server by."""
        ...

    @property
    def secure(self) -> bool: ...
    @property
    def public_key(self) -> str:
        """Ed25519, base64url."""
        ...

    @property
    def ready_at(self) -> int | None:
        """Milliseconds since 1970 UTC at which it began to take connections."""
        ...

    @property
    def instance_service(self) -> InstanceService:
        """The way to live instances: queues, who is inside, moderation."""
        ...

    @property
    def draining(self) -> bool: ...
    @property
    def live_version(self) -> int:
        """Changes with each change of what `occupancy`, `full` and `status` tell."""
        ...

    def occupancy(self, instance_id: str) -> Inside: ...
    def full(self) -> frozenset[str]:
        """Ids of the instances without a free seat."""
        ...

    def status(self, user: User) -> str:
        """`offline` without an open WebSocket, else what the user set."""
        ...

    async def shows(self, instance: Instance, principal: Principal | None) -> bool:
        """Whether the asker may see an instance, by its id or name."""
        ...

    async def update_instance(
        self, instance_id: str, principal: Principal, changes: InstanceChanges
    ) -> Instance:
        """Changes a live instance and tells subscribers; raises `ReiletaError`s."""
        ...

    async def close_instance(self, instance_id: str, principal: Principal) -> None:
        """Everybody inside leaves and the instance is gone; raises `ReiletaError`s."""
        ...

    def changed(self, noun: Noun, record: Record, among: frozenset[str] | None = None) -> None:
        """Tells subscribers with an `update-*` event. `among`: what has changed of a user concerns
        these users, its friends, itself and admins alone."""
        ...

    async def user_deleted(self, deleted: DeletedUser) -> None:
        """After the store has deleted it: its sessions' sockets are closed, and what was its own
        has another owner, also where that is live."""
        ...

    def server_view(self, identity: ServerInfo) -> ServerView:
        """The server itself, as it is reached now."""
        ...

    def busy(self, user_id: str) -> frozenset[str]:
        """The user's sessions that have a WebSocket here."""
        ...

    async def end_session(self, session_id: str) -> None:
        """After the store has ended it: its sockets are closed, its players leave."""
        ...

    def credential_killed(self, access_hash: bytes) -> None:
        """After the store has killed the token of that id: sockets that came with it are closed."""
        ...

    def refreshed(self, session_id: str, token: bytes, expires: int) -> None:
        """A token has new keys, good until then (ms): its sockets stay open as long."""
        ...

    def resource_lost(self, lost: LostLease) -> None:
        """After the store has taken a session's resource: its sockets are told."""
        ...

    async def session(self, principal: Principal) -> Ref[SessionMessage]:
        """The actor of the asker's session, started if it does not run."""
        ...


class GatewayPort(NodePort, Protocol):
    """The living server, as its WebSockets see it."""

    @property
    def hub(self) -> Ref[HubMessage]: ...

    async def moderate(
        self,
        instance_id: str,
        principal: Principal,
        measure: ModerationRequest,
        sink: Sink,
        state: bytes | None,
    ) -> None:
        """Moderates someone; the instance answers on the socket, in order with its data."""
        ...
