"""Resources: objects that sessions acquire, read and write.

The rules are in `reileta/rules/resource/resource.py`: a transaction reads the resource with its
lease locked, applies a rule, and writes the result. So a fencing number guards every write, also
between servers on one database, without communication between them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

from reileta.clock import Clock
from reileta.errors import (
    DatabaseUnavailable,
    QuotaReached,
    ReiletaError,
    UserNotFound,
    VersionConflict,
)
from reileta.records import ADMIN_TAG, Cursor, Page, ResourceRecord
from reileta.rules.identity import Claimant
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.resource import Resource, ResourceKey, Write
from reileta.rules.resource.types import Content, ResourceTypes
from reileta.store.database import Queries
from reileta.store.query_builder import Where, page
from reileta.store.quotas import DEFAULT, Quotas, ensure_below
from reileta.store.resource_rows import LostLease, ResourceTable
from reileta.store.resource_storage import storage_of

Stamp: TypeAlias = tuple[object, ...]
"""What differs between two states of a resource; see `Resources.stamps`."""


def stamp_of(
    version: int, owner: str, session: str | None, fence: int, shares: frozenset[str]
) -> Stamp:
    return (version, owner, session, fence, shares)


_STAMPS: Final = (
    "SELECT thing.number, thing.version, thing.owner, leases.session_id, leases.fence, "
    "ARRAY(SELECT user_id FROM shares WHERE shares.number = thing.number) AS shares "
    "FROM {table} AS thing LEFT JOIN leases ON leases.number = thing.number "
    "WHERE thing.number = ANY($1)"
)


@dataclass(frozen=True, slots=True)
class Written:
    """The outcomes of writes: for each, the resource after it or the error that refused it.

    `after`: the resource with its lease, after all of them; None: not known.
    """

    outcomes: tuple[ResourceRecord | ReiletaError, ...]
    after: Resource | None


class Resources(ResourceTable):
    def __init__(
        self, queries: Queries, clock: Clock, types: ResourceTypes, quotas: Quotas = DEFAULT
    ) -> None:
        super().__init__(queries, clock, types)
        self.quotas: Final = quotas

    async def create(self, type_: str, who: Claimant, content: Content) -> ResourceRecord:
        """Creates a resource of the user.

        Raises InvalidInput and PayloadTooLarge like the type's `check`, UserNotFound, and
        QuotaReached.
        """
        content = self.types.of(type_).check(content, admin=who.admin, before=None)
        return await storage_of(type_).create(
            self.queries, self.clock, self.quotas, type_, who.user, content
        )

    async def get(self, name: ResourceKey) -> Resource:
        """The resource with its lease. Raises ResourceNotFound."""
        return await self.find(self.queries, name)

    async def stamps(self, names: Collection[ResourceKey]) -> dict[int, Stamp]:
        """What has changed if a resource or its lease has: a small value for each that exists."""
        tables: dict[str, list[int]] = {}
        for name in names:
            tables.setdefault(storage_of(name.type).table, []).append(name.number)
        stamps: dict[int, Stamp] = {}
        for table, numbers in tables.items():
            rows = await self.queries.fetch(_STAMPS.format(table=table), numbers)
            for row in rows:
                stamps[row["number"]] = stamp_of(
                    row["version"],
                    row["owner"],
                    row["session_id"],
                    row["fence"] or 0,
                    frozenset(row["shares"]),
                )
        return stamps

    async def search(
        self,
        type_: str,
        who: Claimant,
        *,
        query: str | None,
        limit: int,
        offset: int,
        after: Cursor | None = None,
    ) -> Page[ResourceRecord]:
        """Resources that the user can see, by number: its own, shared and public ones.

        An admin can see all.
        """
        kind, storage = self.types.of(type_), storage_of(type_)
        where = Where()
        where.contains(query)
        storage.restrict(where, kind, who)
        return await page(
            self.queries,
            storage.table,
            where,
            lambda row: storage.record(type_, row),
            order=("number",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def write(
        self,
        name: ResourceKey,
        who: Claimant,
        *,
        fence: int | None,
        patch: dict[str, Json],
        if_version: int | None,
    ) -> ResourceRecord:
        """`Resource.write` in the database.

        Raises ResourceNotFound, the errors of `Resource.write`, and QuotaReached if a document grew
        too large.
        """
        written = await self.write_all(name, [Write(who, fence, patch, if_version)])
        outcome = written.outcomes[0]
        if isinstance(outcome, ReiletaError):
            raise outcome
        return outcome

    async def write_all(self, name: ResourceKey, writes: Sequence[Write]) -> Written:
        """Several writes, in their order, in one transaction; one that is refused spoils no other.

        The outcome of each is the resource after it, or the error that `write` raises. Raises
        ResourceNotFound, and DatabaseUnavailable: none of them, or all, may have been carried out.
        """
        try:
            return await self._write_together(name, writes)
        except (QuotaReached, VersionConflict) as error:
            # The database refused the sum of them.
            if len(writes) == 1:
                return Written((error,), None)
        outcomes: list[ResourceRecord | ReiletaError] = []
        after: Resource | None = None
        for write in writes:
            try:
                alone = await self._write_together(name, [write])
            except DatabaseUnavailable as error:
                left = len(writes) - len(outcomes)
                return Written((*outcomes, *([error] * left)), None)
            except ReiletaError as error:
                outcomes.append(error)
            else:
                outcomes += alone.outcomes
                after = alone.after
        return Written(tuple(outcomes), after)

    async def _write_together(self, name: ResourceKey, writes: Sequence[Write]) -> Written:
        """All of the writes that the rules allow, or none.

        Raises also QuotaReached, and VersionConflict: a world, by someone who did not ask for its
        lease.
        """
        storage = storage_of(name.type)
        outcomes: list[ResourceRecord | ReiletaError] = []
        async with self.queries.transaction() as transaction:
            await storage.lock_owner(transaction, name.number)
            before = after = await self.locked(transaction, name)
            steps = [before.record]
            for write in writes:
                try:
                    after = after.write(
                        write.who, write.fence, write.patch, write.if_version, self.clock.now_ms()
                    )
                except ReiletaError as error:
                    outcomes.append(error)
                else:
                    outcomes.append(after.record)
                    steps.append(after.record)
            if storage.takes_several_versions:
                steps = [steps[0], *steps[1:][-1:]]
            for old, new in pairwise(steps):
                if not await storage.update(transaction, self.quotas, old, new):
                    raise VersionConflict
        return Written(tuple(outcomes), after)

    async def delete(
        self, name: ResourceKey, who: Claimant, *, fence: int | None, if_version: int | None
    ) -> ResourceRecord:
        """Deletes the resource, with its lease and shares; returns it as it was.

        Raises ResourceNotFound, and the errors of `Resource.ensure_deletable`.
        """
        async with self.queries.transaction() as transaction:
            found = await self.locked(transaction, name)
            found.ensure_deletable(who, fence, if_version)
            table = storage_of(name.type).table
            await transaction.execute(
                f"DELETE FROM {table} WHERE number = $1",  # noqa: S608 - one of our tables
                name.number,
            )
        return found.record

    async def share(self, name: ResourceKey, who: Claimant, user_id: str) -> ResourceRecord:
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
    ) -> tuple[ResourceRecord | None, LostLease | None]:
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
