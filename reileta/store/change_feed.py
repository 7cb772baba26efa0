"""The change feed: what other processes changed in the database, for a server to act on.

Triggers write a row for each user, session, token and instance of which a server remembers
something, with the process that changed it. A server asks for the rows of others since it last
asked (`ChangeFeed.next`). A transaction that began earlier can end later, so "since" is a snapshot
of the database's and not a number: a row can come within two answers, and is given out once.

Nothing is lost over an outage of the database, for the rows are in the transactions themselves.
They are kept for `KEPT_S`; a server that could not ask for longer is told so (`Changed.gap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from reileta.store.database import Database, Row

KEPT_S: Final = 3600
"""How long a row is kept."""
SWEEP_S: Final = 300.0
"""How often a server sweeps older ones out."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Ids of users that were changed, of sessions and tokens that ended, and of instances that have
    another owner. Of a user that was deleted, its sessions are told. `gap`: there may be others,
    for it was not asked for too long."""

    users: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    tokens: frozenset[bytes] = frozenset()
    instances: frozenset[str] = frozenset()
    gap: bool = False

    def __or__(self, other: Changed) -> Changed:
        return Changed(
            self.users | other.users,
            self.sessions | other.sessions,
            self.tokens | other.tokens,
            self.instances | other.instances,
            self.gap or other.gap,
        )


class ChangeFeed:
    """One reader of the change feed, from the time of `begin` on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mark = "0"
        """Transactions below this were seen, whole."""
        self._given: set[int] = set()
        """The numbers of rows that were given out and are not below the mark."""
        self._asked_at = 0.0
        self._swept_at = 0.0

    async def begin(self) -> None:
        """Begins: what is changed from now on will be told. Raises DatabaseUnavailable."""
        self._mark = await self._database.value(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
        )
        self._asked_at = self._swept_at = trio.current_time()
        rows = await self._rows()  # those are done: whoever begins knows nothing older
        self._given = {row["number"] for row in rows if row["number"] is not None}

    async def next(self) -> Changed:
        """What others have changed since the last time. Raises DatabaseUnavailable."""
        asked_at = trio.current_time()
        rows = await self._rows()
        gap = asked_at - self._asked_at > KEPT_S / 2
        self._asked_at = asked_at
        self._mark = rows[0]["mark"]
        news = [row for row in rows if row["number"] is not None]
        fresh = [row for row in news if row["number"] not in self._given]
        self._given = {row["number"] for row in news}
        if fresh or gap:
            self._database.reads.forget()
        if asked_at - self._swept_at > SWEEP_S:
            self._swept_at = asked_at
            await self._sweep()

        def of(kind: str) -> frozenset[str]:
            return frozenset(row["id"] for row in fresh if row["kind"] == kind)

        return Changed(
            users=of("user"),
            sessions=of("session"),
            tokens=frozenset(bytes.fromhex(one) for one in of("token")),
            instances=of("instance"),
            gap=gap,
        )

    async def _rows(self) -> list[Row]:
        """The rows from the mark on, with the mark for the next time; one row at least."""
        return await self._database.fetch(
            "SELECT now.mark, changes.number, changes.kind, changes.id "
            "FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark) AS now "
            "LEFT JOIN changes ON changes.xact >= $1::text::xid8 AND changes.origin <> $2 "
            "ORDER BY changes.number",
            self._mark,
            self._database.name,
        )

    async def _sweep(self) -> None:
        await self._database.execute(
            "DELETE FROM changes WHERE number IN (SELECT number FROM changes "
            "WHERE at < clock_timestamp() - make_interval(secs => $1::float8) "
            "FOR UPDATE SKIP LOCKED)",
            float(KEPT_S),
        )
