"""The moderation log: who moderated whom, when and why. It outlives the instance."""

from __future__ import annotations

from collections.abc import Collection

from reileta.records import Moderation, Page
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, page
from reileta.store.quotas import DEFAULT, Quotas


class ModerationLog:
    def __init__(self, queries: Queries, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._quotas = quotas

    async def trim(self, owners: Collection[str]) -> None:
        """Deletes the oldest entries of each owner beyond the limit."""
        for owner in sorted(owners):
            newest_over = await self._queries.value(
                "SELECT number FROM moderations WHERE owner = $1 "
                "ORDER BY number DESC OFFSET $2 LIMIT 1",
                owner,
                self._quotas.moderations,
            )
            if newest_over is not None:
                await self._queries.execute(
                    "DELETE FROM moderations WHERE owner = $1 AND number <= $2", owner, newest_over
                )

    async def note(self, moderation: Moderation) -> None:
        """Adds an entry. Adding it again, because the first result was lost, changes nothing."""
        await self._queries.execute(
            "INSERT INTO moderations "
            "(instance_id, owner, type, user_ref, by_ref, reason, until, created_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            moderation.instance_id,
            moderation.owner,
            moderation.type,
            moderation.user,
            moderation.by,
            moderation.reason,
            moderation.until,
            moderation.created_at,
        )

    async def of(
        self, instance_id: str, *, owner: str | None, limit: int, offset: int
    ) -> Page[Moderation]:
        """Entries of an instance, newest first; with `owner`, only those from that owner's time."""
        where = Where()
        where.add("instance_id = {}", instance_id)
        if owner is not None:
            where.add("owner = {}", owner)
        return await page(
            self._queries,
            "moderations",
            where,
            _moderation,
            order=("number",),
            newest_first=True,
            limit=limit,
            offset=offset,
        )


def _moderation(row: Row) -> Moderation:
    return Moderation(
        instance_id=row["instance_id"],
        owner=row["owner"],
        type=row["type"],
        user=row["user_ref"],
        by=row["by_ref"],
        reason=row["reason"],
        until=row["until"],
        created_at=row["created_at"],
    )
