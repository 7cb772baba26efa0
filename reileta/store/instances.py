"""Instances as they are stored; the players inside are not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypedDict, Unpack

from reileta.clock import Clock
from reileta.errors import InstanceExists, InstanceNotFound
from reileta.ids import is_id, new_id
from reileta.records import Cursor, InstanceRecord, Page
from reileta.store import visibility
from reileta.store.database import ConstraintBroken, Queries, Row
from reileta.store.host_nodes import ensure_room_on
from reileta.store.query_builder import Where, assignments, page, tag_list
from reileta.store.quotas import DEFAULT, Quotas

# $1: empty since before, $2: never entered, and made before
_ABANDONED: Final = (
    "empty_since < $1 AND (entered OR created_at < $2) AND 'avr:permanent' <> ALL(tags)"
)


class InstanceUpdate(TypedDict, total=False):
    """The fields of an instance that can change; a missing one stays."""

    name: str
    title: str | None
    description: str | None
    world: str
    owner: str
    capacity: int
    tags: frozenset[str]


class Instances:
    def __init__(self, queries: Queries, clock: Clock, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._clock = clock
        self._quotas = quotas

    def over(self, queries: Queries) -> Instances:
        """The same instances, over other queries."""
        return Instances(queries, self._clock, self._quotas)

    async def create(
        self,
        *,
        name: str,
        title: str | None,
        description: str | None,
        world: str,
        owner: str,
        capacity: int,
        tags: frozenset[str],
        node: str | None = None,
        position_key: str | None = None,
    ) -> InstanceRecord:
        """Creates an instance, which is empty from now on.

        Raises InstanceExists, UserNotFound if its owner was deleted meanwhile, QuotaReached, and
        the errors of `ensure_room_on`.
        """
        async with self._queries.transaction() as transaction:
            await self._quotas.ensure_room(transaction, "instances", owner)
            if node is not None:
                await ensure_room_on(transaction, node)
            row = await transaction.fetch_one(
                "INSERT INTO instances (owner, id, name, title, description, world, "
                "capacity, tags, empty_since, created_at, updated_at, node, position_key) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9, $10, $11) "
                "ON CONFLICT DO NOTHING RETURNING *",
                owner,
                new_id("i"),
                name,
                title,
                description,
                world,
                capacity,
                tag_list(tags),
                self._clock.now_ms(),
                node,
                position_key,
            )
            if row is None:
                raise InstanceExists.field("name", "is taken")
        return instance(row)

    async def get(self, ref: str) -> InstanceRecord | None:
        """The instance of that id or name; a name never looks like an id."""
        row = await (
            self._queries.recall_one("SELECT * FROM instances WHERE id = $1", ref)
            if is_id(ref, "i")
            else self._queries.recall_one("SELECT * FROM instances WHERE name = $1", ref)
        )
        return None if row is None else instance(row)

    async def search(
        self,
        *,
        query: str | None,
        world: str | None,
        owner: str | None,
        tag: str | None,
        exclude: Collection[str],
        viewer: str | None,
        admin: bool,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[InstanceRecord]:
        """Instances whose name, title or description contains the query, newest first.

        `world` with a version matches only that version, without one it matches any; `exclude` are
        ids to leave out. An instance that is not public is only listed and counted for its owner,
        if that is the viewer, and for admins.
        """
        where = Where()
        where.contains(query)
        where.tagged(tag)
        if world is not None:
            where.add("(world_base = {0} OR world = {0})", world)
        if owner is not None:
            where.add("owner = {}", owner)
        if exclude:
            where.add("id <> ALL({}::text[])", list(exclude))
        visibility.instances(where, viewer, admin=admin)
        return await page(
            self._queries,
            "instances",
            where,
            instance,
            order=("issued",),
            newest_first=True,
            limit=limit,
            offset=offset,
            after=after,
        )

    async def update(self, id_: str, **changes: Unpack[InstanceUpdate]) -> InstanceRecord:
        """Changes the instance and returns it. Raises InstanceNotFound, or InstanceExists for a
        name."""
        sets, values = assignments(changes, InstanceUpdate.__annotations__)
        try:
            row = await self._queries.fetch_one(
                f"UPDATE instances SET {sets}{',' if sets else ''} "  # noqa: S608 - columns of InstanceUpdate
                f"updated_at = ${len(values) + 1} WHERE id = ${len(values) + 2} RETURNING *",
                *values,
                self._clock.now_ms(),
                id_,
            )
        except ConstraintBroken as error:
            if error.constraint == "instances_name":
                raise InstanceExists.field("name", "is taken") from error
            raise
        if row is None:
            raise InstanceNotFound
        return instance(row)

    async def delete(self, id_: str) -> bool:
        """Deletes the instance with its bans and mutes; whether it existed."""
        return await self._queries.execute("DELETE FROM instances WHERE id = $1", id_) > 0

    async def occupied(self, id_: str, since_ms: int | None, *, entered: bool) -> bool:
        """Stores since when the instance has been empty (None: it is not empty), and whether a
        player has ever been inside.

        Returns whether the instance exists.
        """
        return (
            await self._queries.execute(
                "UPDATE instances SET empty_since = $2, entered = entered OR $3 WHERE id = $1",
                id_,
                since_ms,
                entered,
            )
            > 0
        )

    async def abandoned(self, before_ms: int, unused_before_ms: int) -> list[InstanceRecord]:
        """Instances that are not permanent and have been empty since before then, longest first.

        One that nobody has entered must also have been made before `unused_before_ms`.
        """
        rows = await self._queries.fetch(
            f"SELECT * FROM instances WHERE {_ABANDONED} ORDER BY empty_since, issued",  # noqa: S608
            before_ms,
            unused_before_ms,
        )
        return [instance(row) for row in rows]

    async def delete_abandoned(self, id_: str, before_ms: int, unused_before_ms: int) -> bool:
        """Deletes the instance if it is still one of `abandoned`; whether it was."""
        deleted = await self._queries.execute(
            f"DELETE FROM instances WHERE {_ABANDONED} AND id = $3",  # noqa: S608
            before_ms,
            unused_before_ms,
            id_,
        )
        return deleted > 0

    async def in_use(self) -> list[str]:
        """The ids of the instances that are not marked as empty."""
        rows = await self._queries.fetch("SELECT id FROM instances WHERE empty_since IS NULL")
        return [row["id"] for row in rows]

    async def mark_empty(self, id_: str, since_ms: int) -> None:
        """Marks an instance as empty, unless it is marked already."""
        await self._queries.execute(
            "UPDATE instances SET empty_since = $2 WHERE id = $1 AND empty_since IS NULL",
            id_,
            since_ms,
        )

    async def all_empty_from(self, now_ms: int) -> int:
        """Marks all instances as empty; returns how many were not marked so before.

        Instances that were empty already keep their time, unless the clock was set back and it lies
        ahead. For a server that starts.
        """
        return await self._queries.execute(
            "UPDATE instances SET empty_since = $1 WHERE empty_since IS NULL OR empty_since > $1",
            now_ms,
        )


def instance(row: Row) -> InstanceRecord:
    """The instance of a row of `instances`."""
    return InstanceRecord(
        id=row["id"],
        name=row["name"],
        title=row["title"],
        description=row["description"],
        world=row["world"],
        owner=row["owner"],
        capacity=row["capacity"],
        tags=frozenset(row["tags"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        entered=row["entered"],
        node=row["node"],
        position_key=row["position_key"],
    )
