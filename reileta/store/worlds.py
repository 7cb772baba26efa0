"""Worlds."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypedDict, Unpack

from reileta.clock import Clock
from reileta.errors import WorldExists, WorldNotFound
from reileta.ids import new_id
from reileta.records import Cursor, Page, World
from reileta.rules import visibility
from reileta.rules.visibility import Audience
from reileta.store import visibility as visible_rows
from reileta.store.blobs import hashes
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, assignments, page, tag_list
from reileta.store.quotas import DEFAULT, Quotas


class WorldUpdate(TypedDict, total=False):
    """The fields of a world that can change; a missing one stays."""

    title: str
    description: str | None
    capacity: int
    owner: str
    tags: frozenset[str]


class Worlds:
    def __init__(self, queries: Queries, clock: Clock, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._clock = clock
        self._quotas = quotas

    async def create(
        self,
        *,
        title: str,
        description: str | None,
        capacity: int,
        owner: str,
        tags: frozenset[str],
        id: str | None = None,  # noqa: A002 - the record's name for it
    ) -> World:
        """Creates a world.

        Raises WorldExists for an id that is taken, UserNotFound if its owner was deleted meanwhile,
        and QuotaReached.
        """
        async with self._queries.transaction() as transaction:
            await self._quotas.ensure_room(transaction, "worlds", owner)
            row = await transaction.fetch_one(
                "INSERT INTO worlds (owner, id, title, description, capacity, tags, "
                "created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) "
                "ON CONFLICT DO NOTHING RETURNING *",
                owner,
                id or new_id("w"),
                title,
                description,
                capacity,
                tag_list(tags),
                self._clock.now_ms(),
            )
            if row is None:
                raise WorldExists
        return world(row)

    async def get(self, id_: str) -> World | None:
        row = await self._queries.recall_one("SELECT * FROM worlds WHERE id = $1", id_)
        return None if row is None else world(row)

    async def existing(self, ids: Collection[str]) -> set[str]:
        """Those of these ids that worlds have."""
        rows = await self._queries.fetch("SELECT id FROM worlds WHERE id = ANY($1)", list(ids))
        return {row["id"] for row in rows}

    async def by_number(self, number: int) -> World | None:
        """The world with that number, its id in the session API."""
        row = await self._queries.recall_one("SELECT * FROM worlds WHERE number = $1", number)
        return None if row is None else world(row)

    async def audience(self, world: World) -> Audience:
        """The users who can see the world. Queries the database only for private worlds."""
        shares: frozenset[str] = frozenset()
        if visibility.is_private(world.tags):
            rows = await self._queries.recall(
                "SELECT user_id FROM shares WHERE number = $1", world.number
            )
            shares = frozenset(row["user_id"] for row in rows)
        return visibility.of_world(world.owner, world.tags, shares)

    async def search(
        self,
        *,
        query: str | None,
        owner: str | None,
        tag: str | None,
        viewer: str | None,
        admin: bool,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[World]:
        """Worlds whose title or description contains the query, newest first.

        A private world is only listed and counted for its owner, users it is shared with, and
        admins.
        """
        where = Where()
        where.contains(query)
        where.tagged(tag)
        if owner is not None:
            where.add("owner = {}", owner)
        visible_rows.worlds(where, viewer, admin=admin)
        return await page(
            self._queries,
            "worlds",
            where,
            world,
            order=("number",),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def update(self, id_: str, **changes: Unpack[WorldUpdate]) -> World:
        """Changes the world and returns it. Raises WorldNotFound."""
        sets, values = assignments(changes, WorldUpdate.__annotations__)
        row = await self._queries.fetch_one(
            f"UPDATE worlds SET {sets}{',' if sets else ''} updated_at = ${len(values) + 1} "  # noqa: S608 - columns of WorldUpdate
            f"WHERE id = ${len(values) + 2} RETURNING *",
            *values,
            self._clock.now_ms(),
            id_,
        )
        if row is None:
            raise WorldNotFound
        return world(row)

    async def delete(self, id_: str) -> frozenset[str]:
        """Deletes the world, its assets and its picture.

        Returns the hashes of their files, to release them. Raises WorldNotFound.
        """
        async with self._queries.transaction() as transaction:
            # The lock keeps assets and pictures from being added meanwhile.
            if not await transaction.fetch("SELECT FROM worlds WHERE id = $1 FOR UPDATE", id_):
                raise WorldNotFound
            gone = [
                *await transaction.fetch(
                    "DELETE FROM assets WHERE world_id = $1 RETURNING hash", id_
                ),
                *await transaction.fetch(
                    "DELETE FROM images WHERE world_id = $1 RETURNING hash", id_
                ),
            ]
            await transaction.execute("DELETE FROM worlds WHERE id = $1", id_)
        return hashes(gone)


def world(row: Row) -> World:
    """The world of a row of `worlds`."""
    return World(
        id=row["id"],
        number=row["number"],
        title=row["title"],
        description=row["description"],
        capacity=row["capacity"],
        owner=row["owner"],
        tags=frozenset(row["tags"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
