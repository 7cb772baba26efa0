"""Guests: users of other servers, who are here with a token that this server has issued.

Their own server introduces them (`admit`). Each has one session here, which outlives its tokens: a
guest who comes back with a new token has the same player. What guests may do here is decided where
it is done; this is about who may come, and who has to go.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

from actors.directory import Directory
from actors.federation.servers import Blocked, FederatedServers
from actors.instance.manager import InstanceManager
from actors.session.manager import SessionManager
from reileta.clock import Clock
from reileta.errors import GuestNotAllowed, ServerBlocked
from reileta.ids import server_of
from reileta.observability import log_events
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.records import Guest, IntegrityToken, User
from reileta.security.credentials import digest, new_public_id, new_token
from reileta.settings import Settings
from reileta.store import Store
from reileta.store.guests import Guests
from reileta.store.servers import Servers

TOKEN_MS: Final = 3_600_000
"""How long a token of a guest is valid."""
NEW_PER_HOUR: Final = 1000
"""Users of one server who may come for the first time in an hour, unless all may (`--guests
open`)."""
TIDY_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Introduction:
    """What another server says of its user. `user` is a `UserIDAt`, `follows` are bare ids of users
    of this server."""

    user: str
    displayname: str
    thumbnail: str | None = None
    follows: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Welcome:
    """A guest's new token, and those that were revoked for it."""

    token: str = field(repr=False)
    stored: IntegrityToken
    evicted: tuple[bytes, ...]


class Publish(Protocol):
    """Publishes a changed user (`Node.changed`)."""

    def __call__(self, user: User, among: frozenset[str] | None = None, /) -> None: ...


class GuestPolicy:
    """Which servers' users may be here."""

    def __init__(self, settings: Settings, servers: FederatedServers) -> None:
        self._settings = settings
        self._servers = servers

    def admits(self, server: str) -> bool:
        """Whether users of a server may be here, by its canonical address."""
        return self._settings.guests != "off" and self._servers.decision(server) == "allow"

    def admits_user(self, user: str) -> bool:
        """Whether a user may be here, by its `UserIDAt`; a bare id is of a user of this server."""
        server = server_of(user)
        return server is None or self.admits(server)

    def ensure_admitted(self, server: str) -> None:
        """Raises ServerBlocked, or GuestNotAllowed if only its users may not come."""
        if self._servers.is_blocked(server):
            raise ServerBlocked
        if not self.admits(server):
            raise GuestNotAllowed


class GuestService:
    """The guests of a node."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: Settings,
        policy: GuestPolicy,
        instances: InstanceManager,
        sessions: SessionManager,
        directory: Directory,
        activity: ActivityLog,
        metrics: Metrics,
        publish: Publish,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_per_hour = NEW_PER_HOUR if settings.guests == "known" else None
        self.policy = policy
        self._instances = instances
        self._sessions = sessions
        self._directory = directory
        self._activity = activity
        self._metrics = metrics
        self._publish = publish

    async def admit(self, server: str, introduction: Introduction) -> Welcome:
        """Issues a token to a user whom its server introduces.

        Raises:
            GuestNotAllowed, ServerBlocked: users of the server may not be here.
            ServerNotKnown: the server is not known.
            TooManyRequests: too many users of the server have come for the first time.
        """
        self.policy.ensure_admitted(server)
        token = new_token("ia")
        admitted = await self._store.guests.admit(
            introduction.user,
            server,
            displayname=introduction.displayname,
            thumbnail=introduction.thumbnail,
            follows=introduction.follows,
            token_hash=digest(token),
            token_id=new_public_id(),
            expires_at=self._clock.now_ms() + TOKEN_MS,
            new_per_hour=self._new_per_hour,
        )
        if not self.policy.admits(server):  # a rule has changed meanwhile
            await self._store.guests.revoke_all([server])
            raise GuestNotAllowed
        guest, before = admitted.guest, admitted.before
        self._metrics.guests_admitted += 1
        self._activity.note(log_events.GUEST_ADMITTED, server, user=guest.user, server=server)
        changed = before is not None and before.updated_at != guest.updated_at
        await self._publish_changes(guest, admitted.befriended, changed=changed)
        return Welcome(token, admitted.token, admitted.evicted)

    async def _publish_changes(
        self, guest: Guest, befriended: frozenset[str], *, changed: bool
    ) -> None:
        """Publishes the guest, and those whose friendship with it began or ended."""
        connected = [user for user in befriended if self._directory.connected(user)]
        among: frozenset[str] = frozenset()
        if connected:
            among = await self._store.follows.followers_among(guest.user, connected)
        if changed or among:
            self._publish(guest.as_user(), None if changed else among)
        users = await self._store.users.many(among)
        for user in users.values():
            self._publish(user, frozenset({guest.user}))

    def revoked(self, token: IntegrityToken, by: str) -> None:
        """A token was revoked: closes the sockets that it opened. `by`: a user or a server."""
        self._sessions.end_token(token.hash)
        self._metrics.guests_revoked += 1
        self._activity.note(log_events.GUEST_REVOKED, by, user=token.user, by=by)

    async def server_blocked(self, _: Blocked, /) -> None:
        """Lets the guests go whose servers' users may not be here any more: their players leave,
        their candidacies end, their sockets close, their tokens are revoked.

        Raises DatabaseUnavailable: the tokens are not revoked yet, but don't work, either.
        """
        here = {
            server_of(user) for user in (*self._sessions.users(), *self._directory.candidates())
        }
        await self._exclude(here)
        stored = await self._store.guests.servers()
        excluded = self._excluded(stored)
        if excluded:
            for token in await self._store.guests.revoke_all(excluded):
                self._sessions.end_token(token)
                self._metrics.guests_revoked += 1

    async def forget(self, server: str, *, by: str) -> tuple[bytes, ...] | None:
        """Forgets another server (a canonical address): its key, its tokens here, this server's
        token there, and its guests, whose sockets close. Returns the hashes of the guests' tokens,
        or None if the server was not known.

        If the two servers meet again, they are strangers.
        """
        async with self._store.database.transaction() as transaction:
            tokens = await Guests(transaction, self._clock).revoke_all([server])
            known = await Servers(transaction, self._clock).forget(server)
        for token in tokens:
            self._sessions.end_token(token)
            self._metrics.guests_revoked += 1
        if not known:
            return None
        self._activity.note(log_events.PEER_FORGOTTEN, None, server=server, by=by)
        return tuple(tokens)

    async def _exclude(self, servers: Collection[str | None]) -> None:
        excluded = self._excluded(servers)
        if excluded:
            for server in sorted(excluded):
                self._activity.note(log_events.GUESTS_EXCLUDED, None, server=server)
            await self._instances.exclude(excluded)
            self._sessions.exclude(excluded)

    def _excluded(self, servers: Collection[str | None]) -> frozenset[str]:
        return frozenset(
            server for server in servers if server is not None and not self.policy.admits(server)
        )

    async def tidy(self) -> None:
        """Deletes guests and tokens that have ended long ago. The node calls it every `TIDY_S`."""
        await self._store.guests.tidy()
