"""Orders to instances that were carried out, for hosts to which they are repeated.

A node of a cluster gives each durable order an id. Its host writes the id, with the answer, in the
transaction of the order. If the host dies before it has answered, the next one finds both.

Times are of the database's clock.
"""

from __future__ import annotations

from typing import Final

from reileta.store.database import Queries

KEPT_MS: Final = 10 * 60 * 1000
FORGOTTEN: Final = 10_000
"""How many one call of `forget` deletes at most."""
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

NOTE_DEED: Final = (
    "INSERT INTO deeds_done (deed, answer, at) "  # noqa: S608
    f"VALUES ($1::text::uuid, $2, {_NOW}) ON CONFLICT (deed) DO NOTHING"
)
"""With the deed's id and its answer; adds no row if it is done already."""


class Deeds:
    """The deeds that are done. Methods raise DatabaseUnavailable."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def over(self, queries: Queries) -> Deeds:
        """The same deeds, over other queries."""
        return Deeds(queries)

    async def note(self, deed: str, answer: bytes) -> None:
        """The deed is done, and was answered so. Noting it again changes nothing."""
        await self._queries.execute(NOTE_DEED, deed, answer)

    async def answer(self, deed: str) -> bytes | None:
        """The deed's answer; None: it is not done, or was done longer than `KEPT_MS` ago."""
        answer: bytes | None = await self._queries.value(
            "SELECT answer FROM deeds_done WHERE deed = $1::text::uuid", deed
        )
        return answer

    async def forget(self) -> int:
        """Deletes those that were done longer than `KEPT_MS` ago; how many."""
        return await self._queries.execute(
            "DELETE FROM deeds_done WHERE deed IN (SELECT deed FROM deeds_done "  # noqa: S608
            f"WHERE at < {_NOW} - $1::bigint ORDER BY at LIMIT $2)",
            KEPT_MS,
            FORGOTTEN,
        )
