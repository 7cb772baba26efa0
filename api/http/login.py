"""Login for both APIs: password, session, tokens, refresh, logout.

The registry API (`/api/auth/…`) and the session API (`/auth/…`) differ in the lifetimes of their
tokens and in the form of their answers. Everything else is here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import structlog
from pydantic import Field

from api.http.endpoint import ApiDeps
from api.http.password_check import PasswordCheck
from api.rate_limits import network
from reileta.errors import (
    AccountSuspended,
    CredentialInvalid,
    DatabaseUnavailable,
    LoginInvalid,
    ReiletaError,
    SessionNotFound,
    TooManyRequests,
)
from reileta.ids import is_id, is_username
from reileta.observability import log_events
from reileta.protocol.input_types import GivenPassword, Input, Reference
from reileta.records import SessionRecord, Token, User
from reileta.rules.identity import Principal
from reileta.rules.session.tokens import Lifetimes
from reileta.security.credentials import digest, new_seed, new_token, successor
from reileta.security.passwords import Passwords
from reileta.store.tokens import Theft
from reileta.store.users import ensure_not_suspended

T = TypeVar("T")
MakeAnswer: TypeAlias = Callable[[User, SessionRecord, str | None], Awaitable[T]]
"""Issues a token of the session (`LoginService.issue`) and makes the answer from it. The last
argument is the hash that the password was checked against; None if no password was checked."""

_log = structlog.get_logger()


class Login(Input):
    """A username and its password."""

    username: Reference = Field(description="The username.", examples=["ada"])
    password: GivenPassword = Field(repr=False)
    session_id: Reference | None = Field(
        default=None,
        description="A session of the user to continue. If it has ended, a new one is opened.",
        examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"],
    )


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just issued, and its keys. The database holds only their hashes."""

    token: Token
    access: str = field(repr=False)
    refresh: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefreshedToken(NewToken):
    """A token with new keys, its session and its user."""

    session: SessionRecord
    user: User


class LoginService:
    """Logs users in, and issues, refreshes and revokes their tokens.

    Args:
        lifetimes: how long the keys of its tokens are valid.
    """

    def __init__(self, deps: ApiDeps, passwords: Passwords, lifetimes: Lifetimes) -> None:
        self._deps, self._node = deps, deps.node
        self._sessions = deps.node.store.sessions
        self._tokens = deps.node.store.tokens
        self._tokens_per_user = deps.node.settings.tokens_per_user
        self._lifetimes = lifetimes
        self.password_check = PasswordCheck(deps, passwords)

    async def log_in(self, login: Login, ip: str, answer: MakeAnswer[T]) -> T:
        """Checks the password, and answers for the session to continue or for a new one.

        Args:
            ip: the address that the request comes from.
            answer: called again, with a new session, if it raises SessionNotFound because the
                session ended in the meantime.

        Raises:
            LoginInvalid: unknown user, no password, or a wrong one.
            AccountSuspended: the password is right, but the account is suspended.
            TooManyRequests: too many passwords were tried for the name.
            Overloaded: too many passwords wait to be checked.
        """
        try:
            user, hash_ = await self.password_check.by_name(login.username, login.password, ip)
            ensure_not_suspended(user, self._node.clock.now_ms())
        except (LoginInvalid, AccountSuspended, TooManyRequests) as refused:
            await self._note_refused(login.username, ip, refused)
            raise
        session = await self._own_session(user, login.session_id) or await self.open(user)
        try:
            result = await answer(user, session, hash_)
        except SessionNotFound:
            result = await answer(user, await self.open(user), hash_)
        await self.password_check.logged_in(user, ip)
        return result

    async def _note_refused(self, username: str, ip: str, refused: ReiletaError) -> None:
        """Logs a refused login; the user only if there is one of that name, as people type
        passwords there too."""
        activity = self._node.activity
        if not activity.admits(log_events.LOGIN_REFUSED, network(ip)):
            return
        user = None
        if is_username(username):
            with suppress(DatabaseUnavailable):
                user = await self._node.store.users.by_name(username)
        activity.write(
            log_events.LOGIN_REFUSED,
            address=ip,
            user=None if user is None else user.id,
            username=None if user is None else user.username,
            error=refused.code,
        )

    async def register(self, user: User, ip: str, answer: MakeAnswer[T]) -> T:
        """Logs in a user that has just registered from that address."""
        result = await answer(user, await self.open(user), None)
        await self.password_check.logged_in(user, ip)
        return result

    async def open(self, user: User) -> SessionRecord:
        """Opens a session. If the user has too many, the one that was idle longest ends."""
        opened = await self._sessions.make_room_and_open(
            user.id, busy=self._node.sessions.connected_of(user.id)
        )
        for session_id in opened.ended:
            await self._deps.session_ended(session_id)
        return opened.session

    async def _own_session(self, user: User, session_id: str | None) -> SessionRecord | None:
        """The session of that id, if it belongs to the user and has not ended."""
        if session_id is None or not is_id(session_id, "s"):
            return None
        session = await self._sessions.get(session_id)
        if session is None or session.user_id != user.id or session.ended_at is not None:
            return None
        return session

    async def issue(self, user: User, session: SessionRecord, hash_: str | None) -> NewToken:
        """Issues a token of the session. If the user has too many, the oldest are revoked.

        Args:
            hash_: the password hash that was checked; None if none was.

        Raises:
            SessionNotFound: the session does not belong to the user, or has ended.
            LoginInvalid: the user's password hash has changed since it was checked.
        """
        access, refresh = new_token("ua"), new_token("ur")
        pair = self._lifetimes.pair(digest(access), digest(refresh), self._node.clock.now_ms())
        token = await self._tokens.issue(
            session_id=session.id,
            user_id=user.id,
            access_hash=pair.access_hash,
            refresh_hash=pair.refresh_hash,
            access_expires=pair.access_expires,
            refresh_expires=pair.refresh_expires,
            limit=self._tokens_per_user,
            proof=hash_,
        )
        for evicted in token.evicted:
            self._deps.token_revoked(evicted)
        return NewToken(token, access, refresh)

    async def refresh(self, refresh_key: str) -> RefreshedToken:
        """Gives a token new keys. Its lifetimes start again.

        A key that was used within the last `REPEAT_MS` gives the same new keys again.

        Raises CredentialInvalid for a key that is unknown, expired, revoked or already used. The
        use of an old key means that a key was stolen, so the token is revoked.
        """
        seed = new_seed()
        refreshed = await self._tokens.rotate(
            digest(refresh_key),
            access_hash=digest(successor(refresh_key, seed, "ua")),
            new_refresh_hash=digest(successor(refresh_key, seed, "ur")),
            seed=seed,
            lifetimes=self._lifetimes,
        )
        if refreshed is None:
            raise CredentialInvalid
        if isinstance(refreshed, Theft):
            _log.warning(
                log_events.TOKEN_REUSED, session=refreshed.session_id, user=refreshed.user_id
            )
            self._deps.token_revoked(refreshed.token)
            raise CredentialInvalid
        if refreshed.user.suspended(self._node.clock.now_ms()):
            raise CredentialInvalid
        token, session = refreshed.token, refreshed.session
        self._deps.auth.forget_keys(refreshed.superseded)
        self._node.sessions.refresh_token(session.id, token.id, refreshed.expires)
        await self._sessions.seen([session.id])
        access, refresh = "", refresh_key
        for seed in refreshed.seeds:
            access, refresh = successor(refresh, seed, "ua"), successor(refresh, seed, "ur")
        return RefreshedToken(token, access, refresh, session, refreshed.user)

    async def log_out(self, principal: Principal) -> None:
        """Revokes the token that was used. Its session stays open."""
        await self._tokens.kill(principal.token_hash, self._node.clock.now_ms())
        self._deps.token_revoked(principal.token_hash)

    async def end_session(self, principal: Principal) -> None:
        """Ends the session that was used: its tokens, its sockets and its players."""
        await self._sessions.end(principal.session_id)
        await self._deps.session_ended(principal.session_id)
