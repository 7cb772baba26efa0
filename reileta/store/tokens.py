"""Tokens: credentials of a session, of which only hashes are kept (PROTOCOL §§3, 4).

Whatever adds to a user's tokens or ends several of them locks the user's row first: so two logins
at once can't both count the tokens before the other's is there, and no deadlock can come of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import SessionNotFound
from reileta.records import Session, Token, User
from reileta.store.postgres import Queries, Row
from reileta.store.users import user

KEPT_MS: Final = 30 * 24 * 3600 * 1000
"""How long a token that is good for nothing more is kept. The next one issued sweeps it out."""


@dataclass(frozen=True, slots=True)
class Issued(Token):
    """A token that was just issued."""

    evicted: tuple[bytes, ...]
    """The `access_hash`es of the tokens that had to go for it, whose sockets are to be closed."""


class Tokens:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def issue(
        self,
        *,
        session_id: str,
        user_id: str,
        access_hash: bytes,
        refresh_hash: bytes | None,
        access_expires: int,
        refresh_expires: int,
        limit: int,
    ) -> Issued:
        """A new token; the user's oldest live ones over `limit` die in the same transaction.

        Expiries are milliseconds since 1970; a token lives until the later of the two. Raises
        SessionNotFound if the session is not the user's or has ended.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            await transaction.fetch("SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id)
            # A statement of its own, so that it sees what whoever had the lock before has done.
            alive = await transaction.fetch_one(
                "SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2 AND ended_at IS NULL",
                session_id,
                user_id,
            )
            if alive is None:
                raise SessionNotFound
            await transaction.execute(
                "DELETE FROM tokens WHERE user_id = $1 "
                "AND least(killed_at, greatest(access_expires, refresh_expires)) < $2",
                user_id,
                now - KEPT_MS,
            )
            row = await transaction.fetch_one(
                "INSERT INTO tokens (access_hash, refresh_hash, session_id, user_id, created_at, "
                "access_expires, refresh_expires) VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *",
                access_hash,
                refresh_hash,
                session_id,
                user_id,
                now,
                access_expires,
                refresh_expires,
            )
            evicted = await transaction.fetch(
                "UPDATE tokens SET killed_at = $2 WHERE access_hash IN ("
                "SELECT access_hash FROM tokens WHERE user_id = $1 AND killed_at IS NULL "
                "AND greatest(access_expires, refresh_expires) > $2 "
                "ORDER BY issued DESC OFFSET $3) RETURNING access_hash",
                user_id,
                now,
                limit,
            )
        assert row is not None
        return _issued(row, tuple(gone["access_hash"] for gone in evicted))

    async def by_access(self, access_hash: bytes) -> tuple[Token, Session, User] | None:
        """The token, its session and its user, alive or not: the caller judges."""
        row = await self._queries.fetch_one(
            "SELECT users.*, tokens.access_hash, tokens.refresh_hash, tokens.session_id, "
            "tokens.created_at AS token_created_at, tokens.access_expires, "
            "tokens.refresh_expires, tokens.killed_at, "
            "sessions.created_at AS session_created_at, sessions.ended_at "
            "FROM tokens JOIN sessions ON sessions.id = tokens.session_id "
            "JOIN users ON users.id = tokens.user_id WHERE tokens.access_hash = $1",
            access_hash,
        )
        if row is None:
            return None
        session = Session(
            id=row["session_id"],
            user_id=row["id"],
            created_at=row["session_created_at"],
            ended_at=row["ended_at"],
        )
        token = Token(
            access_hash=row["access_hash"],
            refresh_hash=row["refresh_hash"],
            session_id=row["session_id"],
            user_id=row["id"],
            created_at=row["token_created_at"],
            access_expires=row["access_expires"],
            refresh_expires=row["refresh_expires"],
            killed_at=row["killed_at"],
        )
        return token, session, user(row)

    async def kill(self, access_hash: bytes, now_ms: int) -> bool:
        """Ends one token; whether it had not been ended before."""
        killed = await self._queries.execute(
            "UPDATE tokens SET killed_at = $2 WHERE access_hash = $1 AND killed_at IS NULL",
            access_hash,
            now_ms,
        )
        return killed > 0


def _issued(row: Row, evicted: tuple[bytes, ...]) -> Issued:
    return Issued(
        access_hash=row["access_hash"],
        refresh_hash=row["refresh_hash"],
        session_id=row["session_id"],
        user_id=row["user_id"],
        created_at=row["created_at"],
        access_expires=row["access_expires"],
        refresh_expires=row["refresh_expires"],
        killed_at=row["killed_at"],
        evicted=evicted,
    )
