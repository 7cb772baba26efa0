"""The sessions of a node: start, find, notify and end them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from actors.resource_access import OpenSockets
from actors.runtime.actor import Spec
from actors.runtime.mailbox import Ref
from actors.runtime.registry import Registry
from actors.session.actor import SessionActor
from actors.session.config import SessionDeps
from actors.session.messages import (
    LeaseRevoked,
    OwnerChanged,
    RefreshToken,
    SessionEnded,
    SessionMessage,
    TokenKilled,
    UserChanged,
)
from actors.session.presence import (
    notify_candidacies_of_admin,
    notify_candidacies_of_barred,
    publish_status,
    socket_closed,
)
from actors.session.recent_changes import RecentUserChanges
from actors.session.recovery import SessionRecovery
from reileta import records
from reileta.errors import DatabaseUnavailable
from reileta.ids import server_of
from reileta.protocol.close_codes import CloseCode
from reileta.rules.identity import Principal
from reileta.store.leases import LostLease

FORGET_S: Final = 10.0
MAILBOX_LIMIT: Final = 1024


class SessionManager:
    """One actor for each session that is connected, or was a moment ago."""

    def __init__(self, registry: Registry[str, SessionMessage], deps: SessionDeps) -> None:
        self._registry = registry
        self._deps = deps
        self._recoveries: dict[str, SessionRecovery] = {}
        self._recent_changes = RecentUserChanges(deps.clock)

    # Lookups -----------------------------------------------------------------------------------

    async def live(self, principal: Principal) -> Ref[SessionMessage]:
        """The actor of the principal's session, started if it does not run.

        Raises:
            ActorStopped: the node is stopping.
        """
        id_ = principal.session_id
        profile = records.NO_PROFILE
        if self._registry.find(id_) is None:
            with suppress(DatabaseUnavailable):  # the session works without its user's profile
                profile = await self._deps.store.profiles.of(principal.user.id)

        def spec() -> Spec[SessionMessage]:
            recovery = SessionRecovery(self._recent_changes.of(principal.user), profile)
            self._recoveries[id_] = recovery
            return Spec(
                f"session/{id_}",
                lambda: SessionActor(id_, recovery, self._deps),
                mailbox_limit=MAILBOX_LIMIT,
                gone=lambda error: self._gone(id_, recovery, error),
            )

        return await self._registry.get(id_, spec)

    def find(self, session_id: str) -> Ref[SessionMessage] | None:
        """The session's actor, if it runs and takes messages."""
        return self._registry.find(session_id)

    def connected(self) -> list[str]:
        """The ids of the sessions that have a WebSocket here."""
        return [id_ for id_, recovery in self._recoveries.items() if recovery.sockets]

    def connected_of(self, user_id: str) -> frozenset[str]:
        """The ids of the user's sessions that have a WebSocket here."""
        recoveries = self._recoveries
        return frozenset(id_ for id_ in self.connected() if recoveries[id_].user.id == user_id)

    @property
    def recoveries(self) -> Mapping[str, SessionRecovery]:
        """The sessions that are connected, or were a moment ago, by id; only to be read."""
        return self._recoveries

    def sockets(self, session_id: str) -> OpenSockets:
        """The session's open sockets here."""
        recovery = self._recoveries.get(session_id)
        if recovery is None:
            return OpenSockets()
        session = recovery.session_sockets
        registry = tuple(sink for sink in recovery.sockets if sink not in session)
        return OpenSockets(registry, tuple(session.values()))

    def user(self, user_id: str) -> records.User | None:
        """The user of that id as it is now, if one of its sessions is here."""
        users = (one.user for one in self._recoveries.values() if one.user.id == user_id)
        return next(users, None)

    def presence(self, user_id: str) -> tuple[records.SessionPresence, ...]:
        """The user's sessions that are here, and where they are."""
        return tuple(
            records.SessionPresence(
                id_,
                len(recovery.sockets),
                {name: joined.player for name, joined in recovery.joined_instances.items()},
            )
            for id_, recovery in self._recoveries.items()
            if recovery.user.id == user_id
        )

    def users(self) -> frozenset[str]:
        """The ids of the users whose sessions are here; `UserIDAt`s for guests."""
        return frozenset(recovery.user.id for recovery in self._recoveries.values())

    def current(self, principal: Principal) -> Principal:
        """The principal with its user as it is now.

        A socket can be open for longer than its user stays as it was when the socket opened.
        """
        recovery = self._recoveries.get(principal.session_id)
        return principal if recovery is None else replace(principal, user=recovery.user)

    async def friends(self, user: records.User) -> frozenset[str]:
        """The user's friends, as `UserIDAt`s. Raises DatabaseUnavailable."""
        return await self._deps.friends(user)

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "sessions": len(self._registry.running()),
            "recoveries": len(self._recoveries),
            "revocations": len(self._deps.revocations),
            "recent changes": len(self._recent_changes),
        }

    # Changes in the database -------------------------------------------------------------------

    def end(self, session_id: str) -> None:
        """Closes the sockets of a session that the store has ended; its players leave."""
        self._deps.revocations.add(session_id)
        self._signal(session_id, SessionEnded())
        self._deps.resources.session_ended(session_id)

    def end_token(self, token_hash: bytes) -> None:
        """Closes the sockets that authenticated with a token that the store has ended."""
        self._deps.revocations.add(token_hash)
        self._signal_where(
            lambda recovery: token_hash in recovery.sockets.values(), TokenKilled(token_hash)
        )

    def exclude(self, servers: Container[str]) -> None:
        """Closes the sockets of all guests from these servers; their players leave."""
        for session_id, recovery in list(self._recoveries.items()):
            if server_of(recovery.user.id) in servers:
                # Not in the revocations: the session is the guest's own for ever.
                self._signal(session_id, SessionEnded("server-blocked"))

    def refresh_token(self, session_id: str, token_hash: bytes, expires: int) -> None:
        """Keeps sockets of a token open that got new keys, valid until `expires` (ms)."""
        self._signal(session_id, RefreshToken(token_hash, expires))

    def lease_lost(self, lost: LostLease) -> None:
        """Tells a session that the store has taken its resource, and those who watch it."""
        self._deps.resources.changed(lost.name.number)
        self._signal(lost.session_id, LeaseRevoked(lost.name.number, lost.fence))

    def user_changed(self, user: records.User, profile: records.Profile) -> None:
        """Tells the user's sessions, those that have a resource of it, and the instances in whose
        queue it waits."""
        self._recent_changes.add(user)
        if user.suspended(self._deps.clock.now_ms()):
            notify_candidacies_of_barred(user, self._deps)
        else:
            notify_candidacies_of_admin(user, self._deps)
        self._deps.resources.user_changed(user)
        self._signal_where(lambda recovery: recovery.user.id == user.id, UserChanged(user, profile))
        self._signal_where(lambda recovery: recovery.resource_owner == user.id, OwnerChanged(user))

    def user_deleted(self, user: records.User) -> None:
        """Tells the instances in whose queue the user waits. Its sessions are told one by one, with
        `end`."""
        self._deps.revocations.add(user.id)
        notify_candidacies_of_barred(user, self._deps)

    def _signal(self, session_id: str, message: SessionMessage) -> None:
        ref = self._registry.find(session_id)
        if ref is not None:
            ref.signal(message)

    def _signal_where(
        self, matches: Callable[[SessionRecovery], bool], message: SessionMessage
    ) -> None:
        for session_id, recovery in list(self._recoveries.items()):
            if matches(recovery):
                self._signal(session_id, message)

    # Cleaning up -------------------------------------------------------------------------------

    def _gone(self, id_: str, recovery: SessionRecovery, error: Exception | None) -> None:
        """Cleans up after an actor that ended; `error`: it crashed too often."""
        if self._recoveries.get(id_) is recovery:
            del self._recoveries[id_]
        if error is None:  # the node stops: the gateway closes the sockets
            return
        last = [socket_closed(id_, recovery, sink, self._deps) for sink in recovery.sockets]
        for sink in recovery.sockets:
            sink.close(CloseCode.TRY_AGAIN_LATER, "the session failed")
        if any(last):
            publish_status(id_, recovery, self._deps)

    async def forget_old(self) -> None:
        """Forgets old revocations and user changes; the node calls it every `FORGET_S`."""
        self._deps.revocations.forget()
        self._recent_changes.forget()
