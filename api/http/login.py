"""Logging in, on either face: the proof, the session to go on with, the token (PROTOCOL §4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from pydantic import Field

from api.http.endpoint import ApiDeps
from api.http.password_check import PasswordCheck
from reileta.errors import SessionNotFound
from reileta.ids import is_id
from reileta.protocol.input_types import GivenPassword, Input, Reference
from reileta.records import Session, Token, User
from reileta.rules.session.tokens import Lifetimes
from reileta.security.credentials import digest, new_token
from reileta.security.passwords import Passwords

T = TypeVar("T")
Answering: TypeAlias = Callable[[User, Session, str | None], Awaitable[T]]
"""Answers with a token of a user's session, made by `LoginService.issue`; it gets the proof for
that.
"""


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


class LoginService:
    """Logs users in, and issues the tokens that they then speak with."""

    def __init__(self, edge: ApiDeps, passwords: Passwords) -> None:
        self._node, self._auth = edge.node, edge.auth
        self._sessions = edge.node.store.sessions
        self._tokens = edge.node.store.tokens
        self._tokens_per_user = edge.node.settings.tokens_per_user
        self.proofs = PasswordCheck(edge, passwords)

    async def log_in(self, given: Login, ip: str, answer: Answering[T]) -> T:
        """Proves who it is, and answers from the session to go on with, or from a new one.

        Args:
            ip: the address that the request comes from.
            answer: issues a token of the session, if the password is still the one whose hash it
                gets. It is asked again, with a new session, when it raises SessionNotFound: the
                one before was ended in between.

        Raises:
            LoginInvalid: no such user, no password, or not this one.
            TooManyRequests: too many passwords were tried for the name.
            Overloaded: too many passwords wait to be checked.
        """
        user, proof = await self.proofs.by_name(given.username, given.password, ip)
        session = await self._alive(user, given.session_id) or await self.open(user)
        try:
            answered = await answer(user, session, proof)
        except SessionNotFound:
            answered = await answer(user, await self.open(user), proof)
        await self.proofs.logged_in(user, ip)
        return answered

    async def register(self, user: User, ip: str, answer: Answering[T]) -> T:
        """Logs in someone who has just registered from that address."""
        answered = await answer(user, await self.open(user), None)
        await self.proofs.logged_in(user, ip)
        return answered

    async def open(self, user: User) -> Session:
        """A new session. Over the quota, the user's session that was idle longest ends."""
        opened = await self._sessions.make_room_and_open(user.id, busy=self._node.busy(user.id))
        for session_id in opened.ended:
            self._auth.forget_session(session_id)
            await self._node.end_session(session_id)
        return opened.session

    async def _alive(self, user: User, session_id: str | None) -> Session | None:
        """The session of that id, if it is the user's own and has not ended."""
        if session_id is None or not is_id(session_id, "s"):
            return None
        session = await self._sessions.get(session_id)
        if session is None or session.user_id != user.id or session.ended_at is not None:
            return None
        return session

    async def issue(
        self, user: User, session: Session, lifetimes: Lifetimes, proof: str | None
    ) -> NewToken:
        """A new token of the session. The user's oldest over the limit die at once.

        Raises SessionNotFound if the session is not the user's or has ended, and LoginInvalid if
        the password was changed since it was proven against the hash `proof`.
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
            proof=proof,
        )
        for evicted in token.evicted:
            self.killed(evicted)
        return NewToken(token, access, refresh)

    def killed(self, token: bytes) -> None:
        """After the store has killed the token of that id: no one is let in by it any more, and
        the sockets that came with it are closed."""
        self._auth.forget_token(token)
        self._node.credential_killed(token)
