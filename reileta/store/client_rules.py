"""Rules about clients (`reileta/rules/client_rules.py`)."""

from __future__ import annotations

from reileta.clock import Clock
from reileta.errors import Overloaded
from reileta.records import Cursor, Page
from reileta.rules.client_rules import (
    AGENT_RULES_LIMIT,
    RULES_LIMIT,
    ClientRule,
    ClientRuleKind,
)
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page


class ClientRules:
    """The stored rules. Patterns are in their canonical spelling."""

    def __init__(self, queries: Queries, clock: Clock) -> None:
        self._queries = queries
        self._clock = clock

    async def all(self) -> list[ClientRule]:
        """All rules whose time is not over."""
        rows = await self._queries.fetch(
            "SELECT * FROM client_rules WHERE until IS NULL OR until > $1 ORDER BY name",
            self._clock.now_ms(),
        )
        return [_rule(row) for row in rows]

    async def search(
        self,
        *,
        kind: ClientRuleKind | None = None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[ClientRule]:
        """Rules in the order of kind and pattern."""
        where = Where()
        if kind is not None:
            where.add("kind = {}", kind)
        return await page(
            self._queries,
            "client_rules",
            where,
            _rule,
            order=("name",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def put(
        self,
        kind: ClientRuleKind,
        pattern: str,
        *,
        by: str,
        reason: str | None,
        until: int | None,
    ) -> ClientRule:
        """Stores a rule, in the place of an earlier one with that pattern. Rules that have ended
        are deleted.

        Raises Overloaded if there are too many already.
        """
        now = self._clock.now_ms()
        await self._queries.execute("DELETE FROM client_rules WHERE until <= $1", now)
        row = await self._queries.fetch_one(
            "INSERT INTO client_rules (kind, pattern, reason, by_ref, until, created_at) "
            "SELECT $1, $2, $3, $4, $5::bigint, $6::bigint "
            "WHERE ((SELECT count(*) FROM client_rules) < $7 AND "
            "(SELECT count(*) FROM client_rules WHERE kind = $1) < $8) "
            "OR EXISTS (SELECT 1 FROM client_rules WHERE kind = $1 AND pattern = $2) "
            "ON CONFLICT (name) DO UPDATE SET reason = excluded.reason, "
            "by_ref = excluded.by_ref, until = excluded.until, created_at = excluded.created_at "
            "RETURNING *",
            kind,
            pattern,
            reason,
            by,
            until,
            now,
            RULES_LIMIT,
            AGENT_RULES_LIMIT if kind == "agent" else RULES_LIMIT,
        )
        if row is None:
            raise Overloaded
        return _rule(row)

    async def delete(self, kind: ClientRuleKind, pattern: str) -> bool:
        """Deletes the rule; whether there was one."""
        deleted = await self._queries.execute(
            "DELETE FROM client_rules WHERE kind = $1 AND pattern = $2", kind, pattern
        )
        return deleted > 0


def _rule(row: Row) -> ClientRule:
    return ClientRule(
        kind=row["kind"],
        pattern=row["pattern"],
        by=row["by_ref"],
        created_at=row["created_at"],
        reason=row["reason"],
        until=row["until"],
    )
