"""Ends sockets at every node whose token, session or user has ended at one of them.

Three ways, since a revocation must not get lost:

- `revoked` on the bus tells all nodes at once.
- The change feed reads the same from the database within half a second (`actors/change_feed.py`).
- Every `CHECK_S`, and as soon as the bus is connected again, a node asks the database which tokens
  and sessions of its sockets are still good, in one query. It finds what both have missed, such as
  revoked tokens of guests, and what was lost of the notes between the nodes of one session.

So a socket is closed within a second, and within `CHECK_S` and a second if messages get lost.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Protocol

import msgspec
import structlog
import trio

from actors.cluster.facts import ClusterMember
from actors.directory import Directory
from actors.session.manager import SessionManager
from reileta.cluster.bus import BusError, BusMessage
from reileta.cluster.calls import pack, unpacked
from reileta.errors import DatabaseFault, DatabaseUnavailable
from reileta.observability import log_events
from reileta.store.live_credentials import LiveCredentials

REVOKED: Final = "revoked"
CHECK_S: Final = 15.0
AGAIN_S: Final = 1.0
"""Seconds until the check is tried again if the database is down."""

_log = structlog.get_logger()


class Revoked(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """Sessions and tokens that ended, and users that were deleted."""

    node: str
    sessions: list[str] = []
    tokens: list[bytes] = []
    users: list[str] = []


_revoked: Final = msgspec.msgpack.Decoder(Revoked)


class CredentialCache(Protocol):
    """Authenticated users, sessions and tokens that are remembered (`api.credentials.Auth`)."""

    def forget_user(self, user_id: str, /) -> None: ...
    def forget_session(self, session_id: str, /) -> None: ...
    def forget_token(self, token: bytes, /) -> None: ...
    def forget_all(self) -> None: ...


class DeletedUsers(Protocol):
    """What a node does for a user whom another node has deleted (`actors.node.Node`)."""

    def user_deleted_elsewhere(self, user_id: str, /) -> None: ...


class Revocations:
    """Tells and applies revocations. `bind` must be called before `run`."""

    def __init__(
        self, member: ClusterMember, directory: Directory, credentials: LiveCredentials
    ) -> None:
        self._member = member
        self._directory = directory
        self._good = credentials
        self._check_now = trio.Event()
        self._sessions: SessionManager
        self._users: DeletedUsers
        self._cache: CredentialCache | None = None
        self.checks = 0
        """How often the database was asked."""

    def bind(self, sessions: SessionManager, users: DeletedUsers) -> None:
        """Sets what revocations act on here."""
        self._sessions, self._users = sessions, users

    def use(self, cache: CredentialCache) -> None:
        """Sets the cache that forgets what is revoked."""
        self._cache = cache

    # To other nodes ----------------------------------------------------------------------------

    def session_ended(self, session_id: str) -> None:
        """The store has ended a session."""
        self._publish(Revoked(self._member.node, sessions=[session_id]))

    def token_revoked(self, token_hash: bytes) -> None:
        """The store has ended a token."""
        self._publish(Revoked(self._member.node, tokens=[token_hash]))

    def user_deleted(self, user_id: str) -> None:
        """The store has deleted a user."""
        self._publish(Revoked(self._member.node, users=[user_id]))

    def _publish(self, revoked: Revoked) -> None:
        with suppress(BusError):  # the change feed and the check of the others find it
            self._member.bus.publish(self._member.subject(REVOKED), pack(revoked))

    # MemberListener

    def reconnected(self) -> None:
        """Revocations may be missing: nothing that was remembered counts before the check."""
        if self._cache is not None:
            self._cache.forget_all()
        self._check_now.set()

    # At this node ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Applies revocations until cancelled."""
        bus, subject = self._member.bus, self._member.subject(REVOKED)
        async with bus.subscribe(subject) as subscription, trio.open_nursery() as nursery:
            nursery.start_soon(self._check_often)
            while True:
                for item in await subscription.receive():
                    if isinstance(item, BusMessage):
                        self._receive(item)
                    else:
                        self.reconnected()

    def _receive(self, item: BusMessage) -> None:
        revoked = unpacked(item.data, _revoked)
        if revoked is None or revoked.node == self._member.node:
            return
        for session_id in revoked.sessions:
            self._forget_session(session_id)
        for token in revoked.tokens:
            self._forget_token(token)
        for user_id in revoked.users:
            self.forget_user(user_id)
            self._users.user_deleted_elsewhere(user_id)

    async def _check_often(self) -> None:
        while True:
            pause_s = CHECK_S
            self._check_now = trio.Event()
            try:
                await self.check()
            except DatabaseFault:
                raise  # the supervisor shows it
            except DatabaseUnavailable:
                _log.debug(log_events.REVOCATIONS_POSTPONED)
                pause_s = AGAIN_S
            with trio.move_on_after(pause_s):
                await self._check_now.wait()

    async def check(self) -> None:
        """Closes the sockets here whose token or session is not good any more.

        Raises DatabaseUnavailable.
        """
        self.checks += 1
        with_sockets = {
            id_: (one.user.guest, frozenset(one.sockets.values()))
            for id_, one in self._sessions.recoveries.items()
            if one.sockets
        }
        if not with_sockets:
            return
        own = [id_ for id_, (guest, _) in with_sockets.items() if not guest]
        of_guests = [token for guest, tokens in with_sockets.values() if guest for token in tokens]
        good = await self._good.good(own, of_guests)
        for id_, (guest, tokens) in with_sockets.items():
            if not guest and id_ not in good.sessions:
                self._forget_session(id_)
                continue
            for token in tokens:
                if token not in good.tokens:
                    self._forget_token(token)
                elif not guest:
                    self._sessions.token_refreshed(id_, token, good.tokens[token])
            if not guest and self._directory.sessions_elsewhere(id_):
                self._sessions.state_moved(id_, good.sessions[id_])
                self._sessions.resource_moved(id_)

    def forget_user(self, user_id: str) -> None:
        """Another node has changed a user: it is authenticated anew."""
        if self._cache is not None:
            self._cache.forget_user(user_id)

    def _forget_session(self, session_id: str) -> None:
        if self._cache is not None:
            self._cache.forget_session(session_id)
        self._sessions.ended_elsewhere(session_id)

    def _forget_token(self, token: bytes) -> None:
        if self._cache is not None:
            self._cache.forget_token(token)
        self._sessions.token_ended_elsewhere(token)
