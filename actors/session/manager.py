"""The sessions of a node: start, find, notify and end them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from actors.elsewhere import SessionElsewhere
from actors.membership import MemberSessionEnded
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
    ResourceMoved,
    SeenElsewhere,
    SessionEnded,
    SessionMessage,
    StateMoved,
    TokenKilled,
    UserChanged,
)
from actors.session.presence import (
    notify_candidacies,
    notify_candidacies_of_admin,
    notify_candidacies_of_barred,
    presence_of,
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
        """The ids of the user's sessions that have a WebSocket, at any node."""
        recoveries = self._recoveries
        elsewhere = self._deps.directory.elsewhere.sessions_of(user_id)
        return frozenset(
            id_ for id_ in self.connected() if recoveries[id_].user.id == user_id
        ).union(id_ for id_, some in elsewhere.items() if any(one.sockets for one in some))

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
        """The user's sessions that are connected, or were a moment ago, and where they are."""
        sessions: dict[str, list[SessionElsewhere]] = {
            id_: [presence_of(recovery)]
            for id_, recovery in self._recoveries.items()
            if recovery.user.id == user_id
        }
        for id_, some in self._deps.directory.elsewhere.sessions_of(user_id).items():
            sessions.setdefault(id_, []).extend(some)
        return tuple(
            records.SessionPresence(
                id_,
                sum(one.sockets for one in some),
                {name: player for one in some for name, player in one.players.items()},
            )
            for id_, some in sessions.items()
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
        if self._deps.nodes is not None:
            self._deps.nodes.session_ended(session_id)
        self.ended_elsewhere(session_id)

    def ended_elsewhere(self, session_id: str) -> None:
        """As `end`, if all nodes know it or will know it without this one."""
        self._deps.revocations.add(session_id)
        if self._registry.find(session_id) is None:
            # It may have had seats before a restart.
            for instance in self._deps.instances.seating(session_id):
                instance.signal(MemberSessionEnded(session_id))
        self._signal(session_id, SessionEnded())
        self._deps.resources.session_ended(session_id)

    def end_token(self, token_hash: bytes) -> None:
        """Closes the sockets that authenticated with a token that the store has ended."""
        if self._deps.nodes is not None:
            self._deps.nodes.token_revoked(token_hash)
        self.token_ended_elsewhere(token_hash)

    def token_ended_elsewhere(self, token_hash: bytes) -> None:
        """As `end_token`, if all nodes know it or will know it without this one."""
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

    def exclude_accounts(self, users: Container[str]) -> None:
        """Closes the sockets of these users; their players leave, and they wait in no queue."""
        for session_id, recovery in list(self._recoveries.items()):
            if recovery.user.id in users:
                # Not in the revocations: the session goes on when the rule has ended.
                self._signal(session_id, SessionEnded())
        for user in self._deps.directory.candidates():
            if user in users:
                notify_candidacies_of_barred(user, self._deps)

    def refresh_token(self, session_id: str, token_hash: bytes, expires: int) -> None:
        """Keeps sockets of a token open that got new keys, valid until `expires` (ms)."""
        if self._deps.nodes is not None:
            self._deps.nodes.tell_token(session_id, token_hash, expires)
        self.token_refreshed(session_id, token_hash, expires)

    def token_refreshed(self, session_id: str, token_hash: bytes, expires: int) -> None:
        """As `refresh_token`, if another node has refreshed it."""
        self._signal(session_id, RefreshToken(token_hash, expires))

    def state_moved(self, session_id: str, version: int) -> None:
        """Another node has written the session's state, which has that version now."""
        self._signal(session_id, StateMoved(version))

    def resource_moved(self, session_id: str) -> None:
        """Another node has changed which resource the session has, or that resource."""
        self._signal(session_id, ResourceMoved())

    def seen_elsewhere(self, session_id: str) -> None:
        """The session has a socket at another node, which may know less or more than this one."""
        self._signal(session_id, SeenElsewhere())

    def lease_lost(self, lost: LostLease) -> None:
        """Tells a session that the store has taken its resource, and those who watch it."""
        self._deps.resources.changed(lost.name.number)
        if self._deps.nodes is not None:
            self._deps.nodes.tell_resource(lost.session_id)
        self._signal(lost.session_id, LeaseRevoked(lost.name.number, lost.fence))

    def user_changed(self, user: records.User, profile: records.Profile) -> None:
        """Tells the user's sessions, those that have a resource of it, and the instances in whose
        queue it waits."""
        self._recent_changes.add(user)
        if user.suspended(self._deps.clock.now_ms()):
            notify_candidacies_of_barred(user.id, self._deps)
        else:
            notify_candidacies_of_admin(user, self._deps)
        self._deps.resources.user_changed(user)
        self._signal_where(lambda recovery: recovery.user.id == user.id, UserChanged(user, profile))
        self._signal_where(lambda recovery: recovery.resource_owner == user.id, OwnerChanged(user))

    def user_deleted(self, user: records.User) -> None:
        """Tells the instances in whose queue the user waits. Its sessions are told one by one, with
        `end`."""
        if self._deps.nodes is not None:
            self._deps.nodes.user_deleted(user.id)
        self.user_deleted_elsewhere(user.id)

    def user_deleted_elsewhere(self, user_id: str) -> None:
        """As `user_deleted`, if all nodes know it or will know it without this one."""
        self._deps.revocations.add(user_id)
        notify_candidacies_of_barred(user_id, self._deps)

    def presence_changed(self, user_id: str) -> None:
        """A user came online or went offline by a socket at another node."""
        online = self._deps.directory.connected(user_id)
        notify_candidacies(user_id, self._deps, online=online)

    def tell_queues_again(self, user_id: str) -> None:
        """Has the instances here in whose queue the user waits tell it its place."""
        notify_candidacies(user_id, self._deps, online=True)

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
            self._deps.directory.note_session(id_, None)
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
