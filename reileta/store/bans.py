"""Bans: which users may not enter an instance. They survive restarts."""

from __future__ import annotations

from reileta.errors import InstanceNotFound
from reileta.records import Ban
from reileta.store.database import ConstraintBroken, Queries


class Bans:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def of(self, instance_id: str) -> list[Ban]:
        """All bans of the instance, oldest first, including expired ones."""
        rows = await self._queries.fetch(
            "SELECT * FROM bans WHERE instance_id = $1 ORDER BY created_at, user_ref", instance_id
        )
        return [
            Ban(
                instance_id=row["instance_id"],
                user=row["user_ref"],
                until=row["until"],
                reason=row["reason"],
                by=row["by_ref"],
                created_at=row["created_at"],
            )
            for row in rows
        ]

    async def put(self, ban: Ban) -> None:
        """Stores the ban and replaces an earlier one of the user. Raises InstanceNotFound."""
        try:
            await self._queries.execute(
                "INSERT INTO bans (instance_id, user_ref, until, reason, by_ref, created_at) "
                "VALUES ($1, $2, $3, $4, $5, $6) "
                "ON CONFLICT (instance_id, user_ref) DO UPDATE SET until = excluded.until, "
                "reason = excluded.reason, by_ref = excluded.by_ref, "
                "created_at = excluded.created_at",
                ban.instance_id,
                ban.user,
                ban.until,
                ban.reason,
                ban.by,
                ban.created_at,
            )
        except ConstraintBroken as error:
            raise InstanceNotFound from error

    async def remove(self, instance_id: str, user: str) -> bool:
        """Removes the ban; whether there was one."""
        return (
            await self._queries.execute(
                "DELETE FROM bans WHERE instance_id = $1 AND user_ref = $2", instance_id, user
            )
            > 0
        )
