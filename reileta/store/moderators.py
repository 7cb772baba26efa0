"""Moderators: users appointed by an instance's owner. They survive restarts."""

from __future__ import annotations

from reileta.errors import InstanceNotFound
from reileta.store.database import ConstraintBroken, Queries


class Moderators:
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def of(self, instance_id: str) -> list[str]:
        """The instance's moderators as references, in the order of their appointment."""
        rows = await self._queries.recall(
            "SELECT user_ref FROM moderators WHERE instance_id = $1 ORDER BY issued", instance_id
        )
        return [row["user_ref"] for row in rows]

    async def put(self, instance_id: str, user: str, *, by: str, now_ms: int) -> None:
        """Adds a moderator; an existing one keeps its position. Raises InstanceNotFound."""
        try:
            await self._queries.execute(
                "INSERT INTO moderators (instance_id, user_ref, by_ref, created_at) "
                "VALUES ($1, $2, $3, $4) ON CONFLICT (instance_id, user_ref) DO NOTHING",
                instance_id,
                user,
                by,
                now_ms,
            )
        except ConstraintBroken as error:
            raise InstanceNotFound from error

    async def remove(self, instance_id: str, user: str) -> bool:
        """Removes a moderator; whether there was one."""
        return (
            await self._queries.execute(
                "DELETE FROM moderators WHERE instance_id = $1 AND user_ref = $2",
                instance_id,
                user,
            )
            > 0
        )
