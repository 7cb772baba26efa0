"""Which of the tokens and sessions that have sockets are still good, in one query."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from reileta.store.database import Queries
from reileta.store.tokens import EXPIRES


@dataclass(frozen=True, slots=True)
class GoodCredentials:
    """What is still good.

    `sessions`: those of users of this server that have not ended, each with its state's version.
    `tokens`: those of these sessions that were not revoked, and such ones of guests, each with when
    it expires (ms).
    """

    sessions: dict[str, int] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)


class LiveCredentials:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def good(
        self, sessions: Collection[str], guest_tokens: Collection[bytes]
    ) -> GoodCredentials:
        """Those of these sessions, with all their tokens, and of these tokens of guests."""
        rows = await self._queries.fetch(
            "SELECT sessions.id, sessions.version, NULL::bytea AS hash, NULL::bigint AS expires "  # noqa: S608
            "FROM sessions WHERE id = ANY($1) AND ended_at IS NULL "
            "UNION ALL SELECT NULL, NULL, coalesce(first_hash, access_hash), "
            f"{EXPIRES} FROM tokens WHERE session_id = ANY($1) AND killed_at IS NULL "
            "UNION ALL SELECT NULL, NULL, hash, expires_at FROM integrity_tokens "
            "WHERE hash = ANY($2) AND revoked_at IS NULL",
            list(sessions),
            list(guest_tokens),
        )
        return GoodCredentials(
            {row["id"]: row["version"] for row in rows if row["id"] is not None},
            {row["hash"]: row["expires"] for row in rows if row["hash"] is not None},
        )
