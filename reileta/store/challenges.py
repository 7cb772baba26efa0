"""Challenges that this server has begun, until the other server fetches them.

The id is the secret of a challenge: who knows it could get the token instead of this server. So
only its hash is stored, with the first characters for lists.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock
from reileta.records import Challenge, Cursor, Page
from reileta.security.credentials import digest
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page

LIFETIME_MS: Final = 60_000
"""Time for which a challenge can be fetched."""
KEPT_MS: Final = 3600_000
"""Time after which a challenge is deleted, for lists."""
HINT_LENGTH: Final = 6


class Challenges:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def begin(self, id_: str, server: str, nonce: str) -> Challenge:
        """Stores a challenge for that server, which can fetch it once."""
        now = self._clock.now_ms()
        row = await self._queries.fetch_one(
            "INSERT INTO challenges (id_hash, id_hint, server, nonce, created_at, expires_at) "
            "VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
            digest(id_),
            id_[:HINT_LENGTH],
            server,
            nonce,
            now,
            now + LIFETIME_MS,
        )
        assert row is not None
        return _challenge(row)

    async def fetch(self, id_: str) -> Challenge | None:
        """The challenge with that id, once: it counts as fetched in the same statement. None if
        there is none, if its time is over, and if it was fetched before."""
        row = await self._queries.fetch_one(
            "UPDATE challenges SET fetched_at = $2 WHERE id_hash = $1 AND fetched_at IS NULL "
            "AND expires_at > $2 RETURNING *",
            digest(id_),
            self._clock.now_ms(),
        )
        return None if row is None else _challenge(row)

    async def end(self, id_: str) -> None:
        """From now on, nobody can fetch the challenge with that id."""
        now = self._clock.now_ms()
        await self._queries.execute(
            "UPDATE challenges SET expires_at = least(expires_at, $2) WHERE id_hash = $1",
            digest(id_),
            now,
        )

    async def search(
        self, *, limit: int, offset: int, after: Cursor | None = None
    ) -> Page[Challenge]:
        """Challenges of the last hour, the newest first."""
        return await page(
            self._queries,
            "challenges",
            Where(),
            _challenge,
            order=("created_at", "id_hint"),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def trim(self) -> None:
        """Deletes challenges that are older than `KEPT_MS`."""
        before = self._clock.now_ms() - KEPT_MS
        # Asked first: a DELETE invalidates the cached rows of all tables.
        old = await self._queries.value(
            "SELECT 1 FROM challenges WHERE created_at <= $1 LIMIT 1", before
        )
        if old is not None:
            await self._queries.execute("DELETE FROM challenges WHERE created_at <= $1", before)


def _challenge(row: Row) -> Challenge:
    return Challenge(
        hint=row["id_hint"],
        server=row["server"],
        nonce=row["nonce"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        fetched_at=row["fetched_at"],
    )
