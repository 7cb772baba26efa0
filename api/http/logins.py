"""Logging in, on either face: the proof, the session to go on with, the token (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import Field

from api.operations import Edge
from reileta.credentials import digest, new_token
from reileta.errors import LoginInvalid, SessionNotFound
from reileta.ids import is_id, is_username
from reileta.passwords import Passwords
from reileta.records import Session, Token, User
from reileta.tokens import Lifetimes
from reileta.validation import GivenPassword, Input, Reference

T = TypeVar("T")


class Login(Input):
    """A username and its password."""

    username: Reference = Field(examples=["ada"])
    password: GivenPassword = Field(repr=False)
    session_id: Reference | None = Field(
        default=None,
        description="A session of the user's to go on with; a new one opens if it is not alive.",
        examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"],
    )


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was just issued, and its keys, which are known to nobody else yet."""

    token: Token
    access: str = field(repr=False)
    refresh: str = field(repr=False)


class Logins:
    """Logs users in, and issues the tokens that they then speak with."""

    def __init__(self, edge: Edge, passwords: Passwords) -> None:
        self._node, self._auth, self._limits = edge.node, edge.auth, edge.limits
        self._users, self._sessions = edge.node.store.users, edge.node.store.sessions
        self._tokens = edge.node.store.tokens
        self._tokens_per_user = edge.node.settings.tokens_per_user
        self._passwords = passwords

    async def log_in(self, given: Login, answer: Callable[[User, Session], Awaitable[T]]) -> T:
        """Proves who it is, and answers from the session to go on with, or from a new one.

        Args:
            answer: issues a token of the session. It is asked again, with a new session, when it
                raises SessionNotFound: the one before was ended in between.

        Raises:
            LoginInvalid: no such user, no password, or not this one.
            TooManyRequests: too many logins for the name.
            Overloaded: too many passwords wait to be checked.
        """
        user = await self._proven(given.username, given.password)
        session = await self._alive(user, given.session_id)
        if session is None:
            session = await self._sessions.open(user.id)
        try:
            return await answer(user, session)
        except SessionNotFound:
            return await answer(user, await self._sessions.open(user.id))

    async def _proven(self, username: str, password: str) -> User:
        self._limits.guess(username)
        known = await self._users.credentials(username) if is_username(username) else None
        hash_ = None if known is None else known[1]
        if not await self._passwords.verify(hash_, password) or known is None:
            raise LoginInvalid
        return known[0]

    async def _alive(self, user: User, session_id: str | None) -> Session | None:
        """The session of that id, if it is the user's own and has not ended."""
        if session_id is None or not is_id(session_id, "s"):
            return None
        session = await self._sessions.get(session_id)
        if session is None or session.user_id != user.id or session.ended_at is not None:
            return None
        return session

    async def issue(self, user: User, session: Session, lifetimes: Lifetimes) -> NewToken:
        """A new token of the session. The user's oldest over the limit die at once.

        Raises SessionNotFound if the session is not the user's or has ended.
        """
        access, refresh = new_token("ua"), new_token("ur")
        pair = lifetimes.pair(digest(access), digest(refresh), self._node.clock.now_ms())
        token = await self._tokens.issue(
            session_id=session.id,
            user_id=user.id,
            access_hash=pair.access_hash,
            refresh_hash=pair.refresh_hash,
            access_expires=pair.access_expires,
            refresh_expires=pair.refresh_expires,
            limit=self._tokens_per_user,
        )
        for evicted in token.evicted:
            self.killed(evicted)
        return NewToken(token, access, refresh)

    def killed(self, token: bytes) -> None:
        """After the store has killed the token of that id: no one is let in by it any more, and
        the sockets that came with it are closed."""
        self._auth.forget_token(token)
        self._node.credential_killed(token)
