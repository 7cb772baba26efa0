"""Rows of resources: finding and locking them, and writing leases.

Locks are taken in one order: user, session, lease, resource.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import ResourceNotFound
from reileta.records import Lease
from reileta.rules.resource.resource import Resource, ResourceKey
from reileta.rules.resource.types import ResourceTypes
from reileta.store.database import Queries
from reileta.store.resource_storage import storage_of


@dataclass(frozen=True, slots=True)
class LostLease:
    """A session no longer has a resource."""

    session_id: str
    name: ResourceKey
    fence: int


_FOUND: Final = (
    "SELECT thing.*, leases.fence, leases.session_id, leases.until, sessions.user_id AS holder, "
    "ARRAY(SELECT user_id FROM shares WHERE shares.number = thing.number) AS shares "
    "FROM {table} AS thing LEFT JOIN leases ON leases.number = thing.number "
    "LEFT JOIN sessions ON sessions.id = leases.session_id WHERE thing.number = $1"
)


class ResourceTable:
    """Common queries of `Resources` and `Leases`.

    `types` are the known types; another name raises ResourceTypeUnknown.
    """

    def __init__(self, queries: Queries, clock: Clock, types: ResourceTypes) -> None:
        self.queries: Final = queries
        self.clock: Final = clock
        self.types: Final = types

    async def find(self, queries: Queries, name: ResourceKey) -> Resource:
        kind, storage = self.types.of(name.type), storage_of(name.type)
        row = await queries.fetch_one(_FOUND.format(table=storage.table), name.number)
        if row is None or not storage.holds(row, name.type):
            raise ResourceNotFound
        lease = Lease(row["fence"] or 0)
        if row["session_id"] is not None:
            lease = Lease(row["fence"], row["session_id"], row["holder"], row["until"])
        return Resource(storage.record(name.type, row, frozenset(row["shares"])), lease, kind)

    async def locked(self, transaction: Queries, name: ResourceKey) -> Resource:
        """The resource, with its lease locked until the transaction's end.

        Raises ResourceNotFound.
        """
        self.types.of(name.type)
        storage = storage_of(name.type)
        row = await transaction.fetch_one(
            "INSERT INTO leases (number, type) "  # noqa: S608 - one of our tables
            f"SELECT number, $2 FROM {storage.table} WHERE number = $1 "
            f"{'AND type = $2 ' if storage.shared_by_types else ''}"
            "ON CONFLICT (number) DO UPDATE SET type = excluded.type RETURNING 1",
            name.number,
            name.type,
        )
        if row is None:
            raise ResourceNotFound
        # A separate statement, so that it sees the changes of the lock's previous holder.
        return await self.find(transaction, name)

    async def lease(self, transaction: Queries, number: int, lease: Lease) -> None:
        await transaction.execute(
            "UPDATE leases SET fence = $2, session_id = $3, until = $4 WHERE number = $1",
            number,
            lease.fence,
            lease.session,
            lease.until,
        )
