"""Sessions: a user's activity that outlives tokens and connections."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import UserNotFound
from reileta.ids import new_id
from reileta.records import Cursor, Page, SessionRecord
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page
from reileta.store.quotas import DEFAULT, Quotas
from reileta.store.tokens import EXPIRES

BIRTH_MS: Final = 60_000
"""Time for which a new session can be without a token."""
ENDED_KEPT: Final = 32
"""Ended sessions that are kept per user; opening another one deletes the rest."""
SEEN_EVERY_MS: Final = 3_600_000
"""Resolution of `last_seen`."""

# The state is not read here: it can be large, and `session_states.py` reads it.
_COLUMNS: Final = "id, user_id, created_at, ended_at"

# $2: now, $3: opened before
_WITHOUT_TOKEN: Final = (
    "ended_at IS NULL AND created_at <= $3 AND NOT EXISTS (SELECT 1 FROM tokens "  # noqa: S608
    "WHERE tokens.session_id = sessions.id AND killed_at IS NULL "
    f"AND {EXPIRES} > $2)"
)


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A new session."""

    session: SessionRecord
    ended: tuple[str, ...]
    """The ids of sessions that were ended for it; their sockets must be closed."""


class Sessions:
    def __init__(self, queries: Queries, clock: Clock, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._clock = clock
        self._quotas = quotas

    async def open(self, user_id: str) -> SessionRecord:
        """`make_room_and_open`, for a user without sockets."""
        return (await self.make_room_and_open(user_id)).session

    async def make_room_and_open(
        self, user_id: str, *, busy: Collection[str] = ()
    ) -> OpenedSession:
        """Opens a session for the user. Over the quota, it ends the session that was idle longest.

        Args:
            busy: the ids of sessions with a WebSocket, which are ended last.

        Raises UserNotFound.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            # The lock of every transaction that adds a session: parallel ones can't exceed the
            # quota.
            if not await transaction.fetch(
                "SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id
            ):
                raise UserNotFound
            over = await transaction.fetch(
                "SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL "
                "ORDER BY id = ANY($2) DESC, last_seen DESC, issued DESC OFFSET $3",
                user_id,
                list(busy),
                self._quotas.sessions - 1,
            )
            for one in over:
                await self._end(transaction, one["id"])
            gone = await transaction.fetch(
                "SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NOT NULL "
                "ORDER BY ended_at DESC, issued DESC OFFSET $2",
                user_id,
                ENDED_KEPT,
            )
            if gone:  # a DELETE invalidates the cached rows of all tables
                await transaction.execute(
                    "DELETE FROM sessions WHERE id = ANY($1)", [one["id"] for one in gone]
                )
            row = await transaction.fetch_one(
                "INSERT INTO sessions (id, user_id, created_at, last_seen) "
                "VALUES ($1, $2, $3, $3) RETURNING *",
                new_id("s"),
                user_id,
                now,
            )
        assert row is not None
        return OpenedSession(session(row), tuple(one["id"] for one in over))

    async def seen(self, ids: Collection[str]) -> None:
        """These sessions are in use. Stored once per `SEEN_EVERY_MS`."""
        now = self._clock.now_ms()
        await self._queries.execute(
            "WITH mine AS (SELECT id FROM sessions WHERE id = ANY($1) AND last_seen <= $3 "
            "ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) "
            "UPDATE sessions SET last_seen = $2 FROM mine WHERE mine.id = sessions.id",
            list(ids),
            now,
            now - SEEN_EVERY_MS,
        )

    async def get(self, id_: str) -> SessionRecord | None:
        """The session of that id, live or ended."""
        row = await self._queries.fetch_one(
            f"SELECT {_COLUMNS} FROM sessions WHERE id = $1",  # noqa: S608 - columns of ours
            id_,
        )
        return None if row is None else session(row)

    async def of_user(
        self, user_id: str, *, limit: int, offset: int, after: Cursor | None = None
    ) -> Page[SessionRecord]:
        """The user's live sessions, newest first."""
        where = Where()
        where.add("user_id = {}", user_id)
        where.add("ended_at IS NULL")
        return await page(
            self._queries,
            "sessions",
            where,
            session,
            order=("created_at", "id"),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def end(self, id_: str) -> bool:
        """Ends the session, with its tokens, state and resource, at once; whether it was live."""
        async with self._queries.transaction() as transaction:
            await _lock_user(transaction, id_)
            return await self._end(transaction, id_)

    async def expire(self, id_: str) -> bool:
        """Ends the session if it has no valid token; whether it did.

        A session gets its first token a moment after it was opened, so a new one has `BIRTH_MS`.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            # The lock of every transaction that issues a token: none can be added after this check.
            await _lock_user(transaction, id_)
            expired = await transaction.fetch(
                f"SELECT 1 FROM sessions WHERE id = $1 AND {_WITHOUT_TOKEN}",  # noqa: S608
                id_,
                now,
                now - BIRTH_MS,
            )
            return bool(expired) and await self._end(transaction, id_)

    async def expire_all(self, *, limit: int = 100) -> list[str]:
        """Ends up to `limit` sessions without a valid token; returns their ids."""
        now = self._clock.now_ms()
        rows = await self._queries.fetch(
            f"SELECT id FROM sessions WHERE {_WITHOUT_TOKEN} "  # noqa: S608
            "ORDER BY created_at LIMIT $1",
            limit,
            now,
            now - BIRTH_MS,
        )
        return [row["id"] for row in rows if await self.expire(row["id"])]

    async def _end(self, transaction: Queries, id_: str) -> bool:
        now = self._clock.now_ms()
        # Triggers of the database delete its state and lease, however a session ends.
        ended = await transaction.execute(
            "UPDATE sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL", id_, now
        )
        await transaction.execute(
            "UPDATE tokens SET killed_at = $2 WHERE session_id = $1 AND killed_at IS NULL",
            id_,
            now,
        )
        return ended > 0


async def _lock_user(transaction: Queries, session_id: str) -> None:
    """Takes the lock that every change of the user's tokens takes first; see tokens.py."""
    await transaction.fetch(
        "SELECT 1 FROM users WHERE id = (SELECT user_id FROM sessions WHERE id = $1) "
        "FOR NO KEY UPDATE",
        session_id,
    )


def session(row: Row) -> SessionRecord:
    """The session of a row of `sessions`."""
    return SessionRecord(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )
