"""Resources: objects that sessions acquire, read and write.

The rules are in `reileta/rules/resource/resource.py`: a transaction reads the resource with its
lease locked, applies a rule, and writes the result. So a fencing number guards every write, also
between servers on one database, without communication between them.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock
from reileta.errors import UserNotFound, VersionConflict
from reileta.records import ADMIN_TAG, Page
from reileta.records import ResourceRecord as Record
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json, encode
from reileta.rules.resource.resource import Resource, ResourceKey
from reileta.rules.resource.types import WORLD, Content, ResourceTypes
from reileta.store import visibility
from reileta.store.database import ConstraintBroken, Queries
from reileta.store.query_builder import Where, page
from reileta.store.quotas import DEFAULT, Quotas, ensure_below
from reileta.store.resource_rows import LostLease, ResourceTable, record, table, world_columns
from reileta.store.worlds import Worlds


class Resources(ResourceTable):
    def __init__(
        self, queries: Queries, clock: Clock, types: ResourceTypes, quotas: Quotas = DEFAULT
    ) -> None:
        super().__init__(queries, clock, types)
        self.quotas: Final = quotas

    async def create(self, type_: str, who: Claimant, content: Content) -> Record:
        """Creates a resource of the user.

        Raises InvalidInput and PayloadTooLarge like the type's `check`, UserNotFound, and
        QuotaReached.
        """
        content = self.types.of(type_).check(content, admin=who.admin, before=None)
        if type_ == WORLD:
            made = await Worlds(self.queries, self.clock, self.quotas).create(
                title=content.title, owner=who.user, **world_columns(content.data)
            )
            return (await self.get(ResourceKey(WORLD, made.number))).record
        try:
            async with self.queries.transaction() as transaction:
                await self.quotas.ensure_room_for_document(transaction, who.user)
                row = await transaction.fetch_one(
                    "INSERT INTO resources (type, owner, title, data, created_at, updated_at) "
                    "VALUES ($1, $2, $3, $4, $5, $5) RETURNING *",
                    type_,
                    who.user,
                    content.title,
                    encode(content.data),
                    self.clock.now_ms(),
                )
                await self.quotas.ensure_weight(transaction, who.user)
        except ConstraintBroken as error:
            raise UserNotFound from error
        assert row is not None
        return record(type_, row, frozenset())

    async def get(self, name: ResourceKey) -> Resource:
        """The resource with its lease. Raises ResourceNotFound."""
        return await self.find(self.queries, name)

    async def search(
        self, type_: str, who: Claimant, *, query: str | None, limit: int, offset: int
    ) -> Page[Record]:
        """Resources that the user can see, by number: its own, shared and public ones.

        An admin can see all.
        """
        kind = self.types.of(type_)
        where = Where()
        where.contains(query)
        if type_ != WORLD:
            where.add("type = {}", type_)
        if type_ == WORLD:
            visibility.worlds(where, who.user, admin=who.admin)
        elif not kind.public:
            visibility.owned(where, who.user, admin=who.admin)
        return await page(
            self.queries,
            table(type_),
            where,
            lambda row: record(type_, row, frozenset()),
            order=("number",),
            limit=limit,
            offset=offset,
        )

    async def write(
        self,
        name: ResourceKey,
        who: Claimant,
        *,
        fence: int | None,
        patch: dict[str, Json],
        if_version: int | None,
    ) -> Record:
        """`Resource.write` in the database.

        Raises ResourceNotFound, the errors of `Resource.write`, and QuotaReached if a document grew
        too large.
        """
        async with self.queries.transaction() as transaction:
            if name.type != WORLD:
                # Locked before the lease, in the order of locks: a write can make the document
                # larger.
                await transaction.fetch(
                    "SELECT 1 FROM users WHERE id = "
                    "(SELECT owner FROM resources WHERE number = $1) FOR NO KEY UPDATE",
                    name.number,
                )
            before = await self.locked(transaction, name)
            after = before.write(who, fence, patch, if_version, self.clock.now_ms()).record
            values = [after.number, before.record.version, after.updated_at, after.title]
            if name.type == WORLD:
                world = world_columns(after.data)
                written = await transaction.execute(
                    "UPDATE worlds SET updated_at = $3, title = $4, description = $5, "
                    "capacity = $6, tags = $7 WHERE number = $1 AND version = $2",
                    *values,
                    world["description"],
                    world["capacity"],
                    sorted(world["tags"]),
                )
            else:
                written = await transaction.execute(
                    "UPDATE resources SET updated_at = $3, title = $4, data = $5, "
                    "version = version + 1 WHERE number = $1 AND version = $2",
                    *values,
                    encode(after.data),
                )
                if written and _weight(after) > _weight(before.record):
                    await self.quotas.ensure_weight(transaction, after.owner)
            if not written:  # a world, by someone who did not ask for its lease
                raise VersionConflict
        return after

    async def delete(
        self, name: ResourceKey, who: Claimant, *, fence: int | None, if_version: int | None
    ) -> Record:
        """Deletes the resource, with its lease and shares; returns it as it was.

        Raises ResourceNotFound, and the errors of `Resource.ensure_deletable`.
        """
        async with self.queries.transaction() as transaction:
            found = await self.locked(transaction, name)
            found.ensure_deletable(who, fence, if_version)
            await transaction.execute(
                f"DELETE FROM {table(name.type)} WHERE number = $1",  # noqa: S608 - one of ours
                name.number,
            )
        return found.record

    async def share(self, name: ResourceKey, who: Claimant, user_id: str) -> Record:
        """Lets another user use the resource.

        Raises ResourceNotFound, PermissionDenied, UserNotFound, and QuotaReached.
        """
        async with self.queries.transaction() as transaction:
            user = await transaction.fetch_one(
                "SELECT 1 FROM users WHERE id = $1 FOR KEY SHARE", user_id
            )
            shared = (await self.locked(transaction, name)).share(who, user_id)
            if user is None:
                raise UserNotFound
            count = await transaction.value(
                "SELECT count(*) FROM shares WHERE number = $1", name.number
            )
            added = await transaction.execute(
                "INSERT INTO shares (number, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                name.number,
                user_id,
            )
            if added:  # the lease's row is locked: no other share is added meanwhile
                ensure_below("shares", count, self.quotas.shares)
        return shared.record

    async def unshare(
        self, name: ResourceKey, who: Claimant, user_id: str
    ) -> tuple[Record | None, LostLease | None]:
        """Revokes a share.

        Returns the resource (None if the caller can't see it afterwards), and the lease that the
        user lost by it. Raises ResourceNotFound and PermissionDenied.
        """
        async with self.queries.transaction() as transaction:
            before = await self.locked(transaction, name)
            admin = await transaction.value(
                "SELECT $2 = ANY(tags) FROM users WHERE id = $1", user_id, ADMIN_TAG
            )
            after = before.unshare(who, user_id, admin=bool(admin))
            await transaction.execute(
                "DELETE FROM shares WHERE number = $1 AND user_id = $2", name.number, user_id
            )
            lost = None
            if before.lease.session is not None and after.lease.session is None:
                await self.lease(transaction, name.number, after.lease)
                lost = LostLease(before.lease.session, name, before.lease.fence)
        return after.record if after.visible_to(who) else None, lost


def _weight(record: Record) -> int:
    """The bytes of a document that count for its owner's quota."""
    return len(record.title.encode()) + len(encode(record.data).encode())
