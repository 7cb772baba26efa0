"""The audit log: what admins and commands did.

An entry is written before its action (`begin`), and completed after it (`finish`). So no action is
missing in the log, even if the server is killed meanwhile: then the entry has no result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reileta.clock import Clock
from reileta.records import AuditEntry, AuditVia, Cursor, Page
from reileta.rules.resource.json_values import Json, encode, load
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page

DAY_MS: Final = 24 * 3600 * 1000
ENTRIES_KEPT: Final = 1_000_000
"""Entries that are kept at most; the oldest are deleted first."""


class AuditLog:
    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def begin(
        self,
        action: str,
        *,
        via: AuditVia,
        by_id: str | None,
        by_name: str,
        target: str | None = None,
        target_name: str | None = None,
        details: Mapping[str, Json] | None = None,
        done: bool = False,
    ) -> int:
        """Adds an entry; returns its number.

        `done`: the action belongs to the same transaction, so it has its result already.
        """
        return int(
            await self._queries.value(
                "INSERT INTO audit_log (created_at, via, by_id, by_name, action, target, "
                "target_name, details, result) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) "
                "RETURNING number",
                self._clock.now_ms(),
                via,
                by_id,
                by_name,
                action,
                target,
                target_name,
                encode(dict(details or {})),
                "done" if done else None,
            )
        )

    async def finish(
        self,
        number: int,
        *,
        error: int | None,
        target: str | None,
        target_name: str | None,
        details: Mapping[str, Json],
    ) -> None:
        """Completes an entry; `error` is the code of the error that refused the action."""
        await self._queries.execute(
            "UPDATE audit_log SET target = $2, target_name = $3, details = $4, result = $5, "
            "error = $6 WHERE number = $1",
            number,
            target,
            target_name,
            encode(dict(details)),
            "done" if error is None else "refused",
            error,
        )

    async def search(
        self,
        *,
        by: str | None = None,
        target: str | None = None,
        action: str | None = None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[AuditEntry]:
        """Entries, newest first; with `by`, `target` or `action` only those of that admin's id, of
        that object's id, or of that action."""
        where = Where()
        for column, value in (("by_id", by), ("target", target), ("action", action)):
            if value is not None:
                where.add(f"{column} = {{}}", value)
        return await page(
            self._queries,
            "audit_log",
            where,
            _entry,
            order=("number",),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def many(self, numbers: list[int]) -> list[AuditEntry]:
        """The entries of these numbers that still exist, oldest first."""
        rows = await self._queries.fetch(
            "SELECT * FROM audit_log WHERE number = ANY($1) ORDER BY number", numbers
        )
        return [_entry(row) for row in rows]

    async def trim(self, kept_days: int) -> None:
        """Deletes entries that are older than so many days, and the oldest beyond
        `ENTRIES_KEPT`."""
        before = self._clock.now_ms() - kept_days * DAY_MS
        newest_over = await self._queries.value(
            "SELECT number FROM audit_log ORDER BY number DESC OFFSET $1 LIMIT 1", ENTRIES_KEPT
        )
        # Asked first: a DELETE invalidates the cached rows of all tables.
        old = await self._queries.value(
            "SELECT 1 FROM audit_log WHERE created_at < $1 LIMIT 1", before
        )
        if newest_over is not None or old is not None:
            await self._queries.execute(
                "DELETE FROM audit_log WHERE created_at < $1 OR number <= $2",
                before,
                newest_over or 0,
            )


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        number=row["number"],
        created_at=row["created_at"],
        via=row["via"],
        by_id=row["by_id"],
        by_name=row["by_name"],
        action=row["action"],
        target=row["target"],
        target_name=row["target_name"],
        details=load(row["details"]),
        result=row["result"],
        error=row["error"],
    )
