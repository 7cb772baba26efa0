"""Sessions: contexts of a user's activity that outlive tokens and connections (S `Session`)."""

from __future__ import annotations

from reileta.clock import Clock
from reileta.errors import UserNotFound
from reileta.ids import new_id
from reileta.records import Session
from reileta.store.postgres import ConstraintBroken, Queries, Row


class Sessions:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def open(self, user_id: str) -> Session:
        """A new session of that user. Raises UserNotFound."""
        try:
            row = await self._queries.fetch_one(
                "INSERT INTO sessions (id, user_id, created_at, last_seen) "
                "VALUES ($1, $2, $3, $3) RETURNING *",
                new_id("s"),
                user_id,
                self._clock.now_ms(),
            )
        except ConstraintBroken as error:
            raise UserNotFound from error
        assert row is not None
        return session(row)

    async def get(self, id_: str) -> Session | None:
        """The session of that id, alive or ended."""
        row = await self._queries.fetch_one("SELECT * FROM sessions WHERE id = $1", id_)
        return None if row is None else session(row)

    async def end(self, id_: str) -> bool:
        """Ends the session and kills all its tokens, at once; whether it was alive."""
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            # The user's row is the lock that whoever changes the user's tokens takes first; see
            # tokens.py.
            await transaction.fetch(
                "SELECT 1 FROM users WHERE id = (SELECT user_id FROM sessions WHERE id = $1) "
                "FOR NO KEY UPDATE",
                id_,
            )
            ended = await transaction.execute(
                "UPDATE sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL", id_, now
            )
            await transaction.execute(
                "UPDATE tokens SET killed_at = $2 WHERE session_id = $1 AND killed_at IS NULL",
                id_,
                now,
            )
        return ended > 0


def session(row: Row) -> Session:
    """The session in a row with the columns of `sessions`."""
    return Session(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )
