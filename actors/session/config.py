"""The dependencies that all sessions of a node share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from actors.directory import Directory
from actors.hub.messages import HubMessage
from actors.membership import Instances
from actors.resource_access import ResourceAccess
from actors.runtime.mailbox import Ref
from actors.server import LiveServer
from actors.session.revocations import RevocationList
from reileta.clock import Clock
from reileta.ids import at
from reileta.records import User
from reileta.rules.session.session import SessionLimits
from reileta.store import Store

RENEW_S: Final = 20.0
"""How often a node tells the database which sessions have a WebSocket here."""


class OtherNodes(Protocol):
    """Tells other nodes about sessions (`actors.cluster.shared.Shared`)."""

    @property
    def node(self) -> str:
        """The id of this node."""
        ...

    def session_ended(self, session_id: str, /) -> None:
        """The store has ended a session."""
        ...

    def token_revoked(self, token_hash: bytes, /) -> None:
        """The store has ended a token."""
        ...

    def user_deleted(self, user_id: str, /) -> None:
        """The store has deleted a user."""
        ...

    def tell_state(self, session_id: str, version: int, /) -> None:
        """A session's state has that version in the database."""
        ...

    def tell_resource(self, session_id: str, /) -> None:
        """What a session holds was changed in the database."""
        ...

    def tell_token(self, session_id: str, token_hash: bytes, expires: int, /) -> None:
        """A token of a session is valid until `expires` (ms)."""
        ...


@dataclass(frozen=True, slots=True)
class SessionDeps:
    """The dependencies and limits of a node's sessions."""

    store: Store
    clock: Clock
    server: LiveServer
    directory: Directory
    hub: Ref[HubMessage]
    instances: Instances
    resources: ResourceAccess
    revocations: RevocationList
    limits: SessionLimits
    admits: Callable[[str], bool] = lambda _: True
    """Whether a user (`UserIDAt` or bare id) may be here: not one of a server that is blocked."""
    ensure_account: Callable[[str], None] = lambda _: None
    """Raises ClientBlocked if a rule refuses the user (`UserIDAt` or bare id)."""
    nodes: OtherNodes | None = None
    """The other nodes; None: there are none."""

    @property
    def address(self) -> str:
        """The node's `ServerAt`."""
        return self.server.address

    def lease_until(self, *, present: bool) -> int:
        """The time (ms) until which a session keeps its resource, counted from now."""
        renewal_ms = int(RENEW_S * 1000) if present else 0
        return self.clock.now_ms() + self.limits.away_ms + renewal_ms

    async def friends(self, user: User) -> frozenset[str]:
        """The user's friends, as `UserIDAt`s. Raises DatabaseUnavailable."""
        friends = await self.store.follows.friends(user.id)
        return frozenset(at(friend, self.address) for friend in friends)
