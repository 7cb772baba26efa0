"""Networks from which users have logged in before.

A stranger who guesses a user's password elsewhere can't lock the user out at these networks
(`api/http/password_check.py`). They survive restarts and expire after a while. Only their SHA-256
is stored.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock
from reileta.security.credentials import digest
from reileta.store.database import ConstraintBroken, Queries

KEPT: Final = 32
"""Networks per user; beyond that, the least recently used one is deleted."""
KEPT_MS: Final = 90 * 24 * 3600 * 1000
"""Time after the last use for which a network is known."""


class Networks:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def known(self, user_id: str, network: str) -> bool:
        """Whether the user has logged in from that network, within `KEPT_MS`."""
        row = await self._queries.fetch_one(
            "SELECT 1 FROM known_networks WHERE user_id = $1 AND network = $2 AND used_at > $3",
            user_id,
            digest(network),
            self._clock.now_ms() - KEPT_MS,
        )
        return row is not None

    async def add(self, user_id: str, network: str) -> None:
        """The user has logged in from that network. Does nothing for a deleted user."""
        now = self._clock.now_ms()
        try:
            async with self._queries.transaction() as transaction:
                # The lock serializes calls per user, so that no two of them delete the same rows.
                await transaction.fetch(
                    "SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id
                )
                await transaction.execute(
                    "INSERT INTO known_networks (user_id, network, used_at) VALUES ($1, $2, $3) "
                    "ON CONFLICT (user_id, network) DO UPDATE SET used_at = excluded.used_at",
                    user_id,
                    digest(network),
                    now,
                )
                rows = await transaction.fetch(
                    "SELECT network, used_at FROM known_networks WHERE user_id = $1 "
                    "ORDER BY used_at DESC, network",
                    user_id,
                )
                gone = [
                    row["network"]
                    for place, row in enumerate(rows)
                    if place >= KEPT or row["used_at"] <= now - KEPT_MS
                ]
                if gone:
                    await transaction.execute(
                        "DELETE FROM known_networks WHERE user_id = $1 AND network = ANY($2)",
                        user_id,
                        gone,
                    )
        except ConstraintBroken:
            pass
