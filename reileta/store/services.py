"""Services: third parties' additions to the server."""

from __future__ import annotations

from typing import TypedDict, Unpack

from reileta.clock import Clock
from reileta.errors import ServiceExists, ServiceNotFound
from reileta.records import Cursor, Page, Service
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, assignments, page, tag_list
from reileta.store.quotas import DEFAULT, Quotas


class ServiceUpdate(TypedDict, total=False):
    """The fields of a service that can change; a missing one stays."""

    title: str
    description: str | None
    url: str | None
    owner: str
    tags: frozenset[str]


class Services:
    def __init__(self, queries: Queries, clock: Clock, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._clock = clock
        self._quotas = quotas

    async def create(
        self,
        *,
        id: str,  # noqa: A002 - the record's name for it
        title: str,
        description: str | None,
        url: str | None,
        owner: str,
        tags: frozenset[str],
    ) -> Service:
        """Creates a service.

        Raises ServiceExists, UserNotFound if its owner was deleted meanwhile, and QuotaReached.
        """
        async with self._queries.transaction() as transaction:
            await self._quotas.ensure_room(transaction, "services", owner)
            row = await transaction.fetch_one(
                "INSERT INTO services (owner, id, title, description, url, tags, created_at, "
                "updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) "
                "ON CONFLICT DO NOTHING RETURNING *",
                owner,
                id,
                title,
                description,
                url,
                tag_list(tags),
                self._clock.now_ms(),
            )
            if row is None:
                raise ServiceExists.field("id", "is taken")
        return service(row)

    async def get(self, id_: str) -> Service | None:
        row = await self._queries.recall_one("SELECT * FROM services WHERE id = $1", id_)
        return None if row is None else service(row)

    async def search(
        self,
        *,
        query: str | None,
        owner: str | None,
        tag: str | None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[Service]:
        """Services whose id, title or description contains the query, newest first."""
        where = Where()
        where.contains(query)
        where.tagged(tag)
        if owner is not None:
            where.add("owner = {}", owner)
        return await page(
            self._queries,
            "services",
            where,
            service,
            order=("issued",),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def update(self, id_: str, **changes: Unpack[ServiceUpdate]) -> Service:
        """Changes the service and returns it. Raises ServiceNotFound."""
        sets, values = assignments(changes, ServiceUpdate.__annotations__)
        row = await self._queries.fetch_one(
            f"UPDATE services SET {sets}{',' if sets else ''} updated_at = ${len(values) + 1} "  # noqa: S608 - columns of ServiceUpdate
            f"WHERE id = ${len(values) + 2} RETURNING *",
            *values,
            self._clock.now_ms(),
            id_,
        )
        if row is None:
            raise ServiceNotFound
        return service(row)

    async def delete(self, id_: str) -> bool:
        """Deletes the service; whether it existed."""
        return await self._queries.execute("DELETE FROM services WHERE id = $1", id_) > 0


def service(row: Row) -> Service:
    """The service of a row of `services`."""
    return Service(
        id=row["id"],
        title=row["title"],
        description=row["description"],
        url=row["url"],
        owner=row["owner"],
        tags=frozenset(row["tags"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
