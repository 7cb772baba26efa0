"""The parts of a node that HTTP and WebSocket handlers use, as protocols.

`actors.node.Node` implements them. Tests use a small fake.
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
    """The running server, as HTTP handlers see it."""

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
        """The address that clients know this server by (`ServerAt`)."""
        ...

    @property
    def secure(self) -> bool: ...
    @property
    def public_key(self) -> str:
        """Ed25519, base64url."""
        ...

    @property
    def ready_at(self) -> int | None:
        """When it began to accept connections, in milliseconds since 1970 UTC."""
        ...

    @property
    def instance_service(self) -> InstanceService:
        """Requests to live instances: queues, players, moderation."""
        ...

    @property
    def draining(self) -> bool: ...
    @property
    def live_version(self) -> int:
        """A number that grows with each change of `occupancy`, `full` or `status`."""
        ...

    def occupancy(self, instance_id: str) -> Inside: ...
    def full(self) -> frozenset[str]:
        """Ids of the instances without a free seat."""
        ...

    def status(self, user: User) -> str:
        """`offline` without an open WebSocket, else the status that the user has set."""
        ...

    async def shows(self, instance: Instance, principal: Principal | None) -> bool:
        """Whether the principal may see the instance."""
        ...

    async def update_instance(
        self, instance_id: str, principal: Principal, changes: InstanceChanges
    ) -> Instance:
        """Changes an instance and publishes the change. Raises ReiletaErrors."""
        ...

    async def close_instance(self, instance_id: str, principal: Principal) -> None:
        """Removes all players and closes the instance. Raises ReiletaErrors."""
        ...

    def changed(self, noun: Noun, record: Record, among: frozenset[str] | None = None) -> None:
        """Publishes an `update-*` event to subscribers. `among`: only these users, the user's
        friends, the user itself and admins get it."""
        ...

    async def user_deleted(self, deleted: DeletedUser) -> None:
        """Call after the store has deleted a user: closes the sockets of its sessions, and changes
        the owner of its live instances."""
        ...

    def server_view(self, identity: ServerInfo) -> ServerView:
        """The view of the server, with its present address."""
        ...

    def busy(self, user_id: str) -> frozenset[str]:
        """Ids of the user's sessions that have a WebSocket on this server."""
        ...

    async def end_session(self, session_id: str) -> None:
        """Call after the store has ended a session: closes its sockets, removes its players."""
        ...

    def credential_killed(self, access_hash: bytes) -> None:
        """Call after the store has killed the token of that id: closes the sockets that used it."""
        ...

    def refreshed(self, session_id: str, token: bytes, expires: int) -> None:
        """Call after a token got new keys: its sockets may stay open until `expires` (ms)."""
        ...

    def resource_lost(self, lost: LostLease) -> None:
        """Call after the store has taken a session's resource away: notifies its sockets."""
        ...

    async def session(self, principal: Principal) -> Ref[SessionMessage]:
        """The actor of the principal's session. Starts it if it is not running."""
        ...


class GatewayPort(NodePort, Protocol):
    """The running server, as WebSockets see it."""

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
        """Moderates a user. The instance answers on the socket, in order with its data."""
        ...
