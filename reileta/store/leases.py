"""Leases: who has which resource (S, PROTOCOL §8).

Each is carried out by the rules of `reileta/rules/resource/resource.py` in one transaction, in
which the row of the lease is locked: so a resource never has two holders and a session never two
resources, however many servers are on one database; the table's own constraints say so, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from reileta.errors import ResourceNotFound, ResourceTypeUnknown, SessionNotFound
from reileta.records import Held, Lease
from reileta.rules.resource.resource import Claimant, ResourceKey
from reileta.store.database import Queries
from reileta.store.resource_rows import LostLease, ResourceTable

__all__ = ["Leases", "LostLease"]


class Leases(ResourceTable):
    async def acquire(self, name: ResourceKey, who: Claimant, *, until: int) -> Held:
        """`Resource.acquire`, in the database: until then (ms) the session keeps it without a
        WebSocket. Raises ResourceNotFound, SessionNotFound, and what that raises."""
        async with self.queries.transaction() as transaction:
            # The session's row is its turn: it acquires one thing at a time, and does not end
            # meanwhile.
            alive = await transaction.fetch_one(
                "SELECT 1 FROM sessions WHERE id = $1 AND ended_at IS NULL FOR NO KEY UPDATE",
                who.session,
            )
            if alive is None:
                raise SessionNotFound
            mine = await transaction.fetch_one(
                "SELECT type, number FROM leases WHERE session_id = $1", who.session
            )
            has = None if mine is None else ResourceKey(mine["type"], mine["number"])
            after = (await self.locked(transaction, name)).acquire(who, has, until)
            await self.lease(transaction, name.number, after.lease)
        return Held(after.record, after.lease.fence, until)

    async def release(self, name: ResourceKey, who: Claimant) -> LostLease | None:
        """`Resource.release`, in the database; None if nobody had it.

        Raises ResourceNotFound and ResourceTaken.
        """
        async with self.queries.transaction() as transaction:
            before = await self.locked(transaction, name)
            after = before.release(who)
            if after is before:
                return None
            await self.lease(transaction, name.number, after.lease)
        return LostLease(who.session, name, before.lease.fence)

    async def of_session(self, session_id: str) -> Held | None:
        """What the session has."""
        mine = await self.queries.fetch_one(
            "SELECT type, number FROM leases WHERE session_id = $1", session_id
        )
        if mine is None:
            return None
        try:
            found = await self.find(self.queries, ResourceKey(mine["type"], mine["number"]))
        except (ResourceNotFound, ResourceTypeUnknown):  # deleted now; or a type of before
            return None
        if found.lease.session != session_id:
            return None
        return Held(found.record, found.lease.fence, found.lease.until)

    async def keep(self, session_id: str, *, until: int) -> bool:
        """The session keeps what it has until then (ms) without a WebSocket; whether it has any."""
        kept = await self.queries.execute(
            "UPDATE leases SET until = $2 WHERE session_id = $1", session_id, until
        )
        return kept > 0

    async def lose(self, session_id: str) -> LostLease | int | None:
        """The session has been away: takes its resource, if its time is over.

        Else, until when it keeps it (ms), for some server says that it is there. None if it has
        none.
        """
        now = self.clock.now_ms()
        async with self.queries.transaction() as transaction:
            row = await transaction.fetch_one(
                "SELECT number, type, fence, until FROM leases WHERE session_id = $1 FOR UPDATE",
                session_id,
            )
            if row is None:
                return None
            if row["until"] > now:
                return int(row["until"])
            await self.lease(transaction, row["number"], Lease(row["fence"]))
        return LostLease(session_id, ResourceKey(row["type"], row["number"]), row["fence"])

    async def tend(self, present: Collection[str], *, until: int) -> list[LostLease]:
        """The sessions that have a WebSocket here keep what they have until then (ms); then
        whatever is overdue, of whatever server's, is taken.

        In this order, so that an outage of the database costs nobody a resource who is there.
        """
        async with self.queries.transaction() as transaction:
            await transaction.execute(
                "WITH mine AS (SELECT number FROM leases WHERE session_id = ANY($1) "
                "ORDER BY number FOR UPDATE) "
                "UPDATE leases SET until = greatest(until, $2) FROM mine "
                "WHERE mine.number = leases.number",
                list(present),
                until,
            )
            rows = await transaction.fetch(
                "WITH due AS (SELECT number, session_id FROM leases "
                "WHERE session_id IS NOT NULL AND until <= $1 "
                "ORDER BY number FOR UPDATE SKIP LOCKED) "
                "UPDATE leases SET session_id = NULL FROM due "
                "WHERE due.number = leases.number RETURNING due.session_id, leases.number, "
                "leases.type, leases.fence",
                self.clock.now_ms(),
            )
        return [
            LostLease(row["session_id"], ResourceKey(row["type"], row["number"]), row["fence"])
            for row in rows
        ]

    @asynccontextmanager
    async def unheld(self, name: ResourceKey, session_id: str | None) -> AsyncIterator[Queries]:
        """A transaction in which nobody but the session can have the resource.

        For changes that come by another way, such as R's face: they go into these queries.
        Raises ResourceNotFound and ResourceTaken.
        """
        async with self.queries.transaction() as transaction:
            (await self.locked(transaction, name)).ensure_unheld(session_id)
            yield transaction
