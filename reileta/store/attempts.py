"""Attempts that all nodes of a cluster count together: the generic cell rate algorithm in one
statement.

It is the algorithm of `reileta/rules/ratelimit.py`. Times are of the database's clock. A key is
stored as a hash, so that any text can be one and no name is kept.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from reileta.rules.ratelimit import Rate
from reileta.store.database import Queries

SWEEP_S: Final = 60.0
"""Seconds between deletions of keys whose allowance is full."""
_SWEPT: Final = 10_000
"""Keys that one statement deletes."""

_NOW: Final = "extract(epoch FROM clock_timestamp())::float8"
_NEXT: Final = "greatest(one.full_at + $2, excluded.full_at)"
"""When the allowance would be full again after the attempt. `excluded.full_at` is now and `$2`."""

# $1: key, $2: seconds that the attempt costs, $3: seconds that a full allowance lasts
_TAKE: Final = (
    f"WITH taken AS (INSERT INTO attempts AS one (key, full_at) SELECT $1, {_NOW} + $2 "  # noqa: S608
    f"ON CONFLICT (key) DO UPDATE SET full_at = {_NEXT} "
    f"WHERE {_NEXT} - (excluded.full_at - $2) - $3 <= 1e-6 RETURNING 1) "
    "SELECT (SELECT count(*) FROM taken) AS taken, "
    f"(SELECT full_at FROM attempts WHERE key = $1) + $2 - $3 - {_NOW} AS wait_s"
)


class Attempts:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def take(self, key: str, rate: Rate) -> float:
        """Counts an attempt of the key, if the limit allows it.

        Returns 0.0 if it may pass, else the seconds after which it will. A refused attempt costs
        nothing. Raises DatabaseUnavailable.
        """
        cost_s = 1.0 / rate.per_s
        row = await self._queries.fetch_one(_TAKE, _hash(key), cost_s, rate.burst * cost_s)
        if row is None or row["taken"]:
            return 0.0
        # It may be refused by an attempt that this statement did not see in the table.
        return max(float(row["wait_s"] or cost_s), 1e-3)

    async def give_back(self, key: str, rate: Rate) -> None:
        """Undoes one `take` of the key that should not count. Raises DatabaseUnavailable."""
        await self._queries.execute(
            "UPDATE attempts SET full_at = full_at - $2 WHERE key = $1",
            _hash(key),
            1.0 / rate.per_s,
        )

    async def sweep(self) -> int:
        """Deletes keys whose allowance is full; how many. Raises DatabaseUnavailable."""
        return await self._queries.execute(
            "DELETE FROM attempts WHERE key IN (SELECT key FROM attempts "  # noqa: S608
            f"WHERE full_at < {_NOW} LIMIT $1 FOR UPDATE SKIP LOCKED)",
            _SWEPT,
        )


def _hash(key: str) -> bytes:
    return blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()
