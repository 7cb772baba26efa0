"""The change feed: changes by other processes that a server must act on.

Triggers write a row for each change of a user, session, token, instance or rule, with
the process that made it. A server reads the rows of others since its last call (`ChangeFeed.next`).
A transaction that began earlier can commit later, so "since" is a database snapshot and not a
number: a row can be in two results, but is returned once.

An outage of the database loses nothing, since the rows belong to the transactions themselves. Rows
are kept for `KEPT_S`; a server that could not read for longer gets `Changed.gap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from reileta.store.database import Database, Row

KEPT_S: Final = 3600
"""Seconds for which a row is kept."""
SWEEP_S: Final = 300.0
"""Seconds between deletions of older rows."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Ids of changed users, ended sessions and tokens, instances with a new owner, numbers of new
    entries in the audit log, patterns of changed rules about other servers, and kinds of changed
    rules about clients.

    A deleted user is reported by its sessions. `gap`: changes may be missing, because the last call
    was too long ago.
    """

    users: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    tokens: frozenset[bytes] = frozenset()
    instances: frozenset[str] = frozenset()
    audits: frozenset[int] = frozenset()
    server_rules: frozenset[str] = frozenset()
    client_rules: frozenset[str] = frozenset()
    gap: bool = False

    def __or__(self, other: Changed) -> Changed:
        return Changed(
            self.users | other.users,
            self.sessions | other.sessions,
            self.tokens | other.tokens,
            self.instances | other.instances,
            self.audits | other.audits,
            self.server_rules | other.server_rules,
            self.client_rules | other.client_rules,
            self.gap or other.gap,
        )


class ChangeFeed:
    """One reader of the change feed, from `begin` on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mark = "0"
        """All transactions below this were read completely."""
        self._given: set[int] = set()
        """The numbers of rows that were returned and are not below the mark."""
        self._asked_at = 0.0
        self._swept_at = 0.0

    async def begin(self) -> None:
        """Starts: `next` returns changes from now on. Raises DatabaseUnavailable."""
        self._mark = await self._database.value(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
        )
        self._asked_at = self._swept_at = trio.current_time()
        rows = await self._rows()  # ignored: nothing older was read by this process
        self._given = {row["number"] for row in rows if row["number"] is not None}

    async def next(self) -> Changed:
        """Changes by other processes since the last call. Raises DatabaseUnavailable."""
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
            audits=frozenset(int(one) for one in of("audit")),
            server_rules=of("server_rule"),
            client_rules=of("client_rule"),
            gap=gap,
        )

    async def _rows(self) -> list[Row]:
        """The rows from the mark on, with the next mark; at least one row."""
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
