"""Leases: which session holds which resource.

Each method applies the rules of `reileta/rules/resource/resource.py` in one transaction, with the
row of the lease locked. So a resource never has two holders and a session never holds two
resources, also with several servers on one database. Constraints of the table enforce this, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from reileta.clock import Clock
from reileta.errors import ResourceNotFound, ResourceTypeUnknown, SessionNotFound
from reileta.records import ADMIN_TAG, HeldResource, Lease, Page
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import ResourceTypes
from reileta.store.database import Queries
from reileta.store.database_time import DatabaseTime, database_time
from reileta.store.resource_rows import LostLease, ResourceTable

__all__ = ["Leases", "LostLease"]


RENEWED_AT_ONCE: Final = 1000
"""Leases per statement of a renewal, so that each statement is short."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A session, and the resource that it holds."""

    who: Claimant
    holds: ResourceKey | None


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A resource that a session holds until `until` (ms); a session that is there moves it on."""

    type: str
    number: int
    session: str
    user: str
    username: str
    until: int


class Leases(ResourceTable):
    """The leases. Times of arguments and results are of the server's clock.

    The table's are of the database's clock: it alone judges what has expired, so a server whose
    clock is wrong, or jumps, takes no resource too early.
    """

    def __init__(
        self,
        queries: Queries,
        clock: Clock,
        types: ResourceTypes,
        database_time: DatabaseTime = database_time,
        *,
        urgent: Queries | None = None,
    ) -> None:
        """`urgent`: what renews the leases; by default `queries`."""
        super().__init__(queries, clock, types)
        self._database_time = database_time
        self._urgent = queries if urgent is None else urgent

    async def _ahead_ms(self, queries: Queries) -> int:
        """By how much the database's clock is ahead of the server's."""
        return await self._database_time(queries) - self.clock.now_ms()

    async def acquire(self, name: ResourceKey, who: Claimant, *, until: int) -> HeldResource:
        """`Resource.acquire` in the database; without a WebSocket the session keeps it until
        `until` (ms).

        Raises ResourceNotFound, SessionNotFound, and the errors of `Resource.acquire`.
        """
        async with self.queries.transaction() as transaction:
            # The lock on the session's row: it acquires one resource at a time, and does not end
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
            ahead_ms = await self._ahead_ms(transaction)
            after = (await self.locked(transaction, name)).acquire(who, has, until + ahead_ms)
            await self.lease(transaction, name.number, after.lease)
        return HeldResource(after.record, after.lease.fence, until)

    async def release(self, name: ResourceKey, who: Claimant) -> LostLease | None:
        """`Resource.release` in the database; None if nobody held it.

        Raises ResourceNotFound and ResourceTaken.
        """
        async with self.queries.transaction() as transaction:
            before = await self.locked(transaction, name)
            after = before.release(who)
            if after is before:
                return None
            await self.lease(transaction, name.number, after.lease)
        return LostLease(who.session, name, before.lease.fence)

    async def of_session(self, session_id: str) -> HeldResource | None:
        """The resource that the session holds."""
        mine = await self.queries.fetch_one(
            "SELECT type, number FROM leases WHERE session_id = $1", session_id
        )
        if mine is None:
            return None
        try:
            found = await self.find(self.queries, ResourceKey(mine["type"], mine["number"]))
        except (ResourceNotFound, ResourceTypeUnknown):  # deleted now, or of an unknown type
            return None
        if found.lease.session != session_id:
            return None
        until = found.lease.until - await self._ahead_ms(self.queries)
        return HeldResource(found.record, found.lease.fence, until)

    async def held(self, *, query: str | None, limit: int, offset: int) -> Page[HeldLease]:
        """The leases that are in force, by type and number. `query`: text in the username."""
        now = await self._database_time(self.queries)
        ahead_ms = now - self.clock.now_ms()
        rows = await self.queries.fetch(
            "SELECT leases.type, leases.number, leases.session_id, leases.until, users.id, "
            "users.username, count(*) OVER () AS total FROM leases "
            "JOIN sessions ON sessions.id = leases.session_id "
            "JOIN users ON users.id = sessions.user_id "
            "WHERE leases.until > $1 AND ($2 = '' OR position($2 IN users.username) > 0) "
            "ORDER BY leases.type, leases.number LIMIT $3 OFFSET $4",
            now,
            (query or "").lower(),
            limit,
            offset,
        )
        items = tuple(
            HeldLease(
                row["type"],
                row["number"],
                row["session_id"],
                row["id"],
                row["username"],
                row["until"] - ahead_ms,
            )
            for row in rows
        )
        return Page(items, rows[0]["total"] if rows else 0, limit, offset)

    async def claim_of(self, session_id: str) -> Claim | None:
        """The session as the rules of resources see it; None: it has ended."""
        row = await self.queries.fetch_one(
            "SELECT users.id, users.autopilot, $2 = ANY(users.tags) AS admin, leases.type, "
            "leases.number FROM sessions JOIN users ON users.id = sessions.user_id "
            "LEFT JOIN leases ON leases.session_id = sessions.id "
            "WHERE sessions.id = $1 AND sessions.ended_at IS NULL",
            session_id,
            ADMIN_TAG,
        )
        if row is None:
            return None
        who = Claimant(session_id, row["id"], bool(row["admin"]), row["autopilot"])
        holds = None if row["number"] is None else ResourceKey(row["type"], row["number"])
        return Claim(who, holds)

    async def renew(self, session_id: str, *, until: int) -> bool:
        """Extends the session's lease to `until` (ms); whether it has one."""
        kept = await self.queries.execute(
            "UPDATE leases SET until = $2 WHERE session_id = $1",
            session_id,
            until + await self._ahead_ms(self.queries),
        )
        return kept > 0

    async def expire_one(self, session_id: str) -> LostLease | int | None:
        """Takes the resource of a session that has been away, if its lease has expired.

        Otherwise returns the lease's end (ms): another server has renewed it. None if the session
        has no lease.
        """
        async with self.queries.transaction() as transaction:
            row = await transaction.fetch_one(
                "SELECT number, type, fence, until FROM leases WHERE session_id = $1 FOR UPDATE",
                session_id,
            )
            if row is None:
                return None
            now = await self._database_time(transaction)
            if row["until"] > now:
                return int(row["until"]) - now + self.clock.now_ms()
            await self.lease(transaction, row["number"], Lease(row["fence"]))
        return LostLease(session_id, ResourceKey(row["type"], row["number"]), row["fence"])

    async def renew_all(
        self, present: Collection[str], *, as_of: int, until: int
    ) -> list[LostLease]:
        """Extends the leases of the sessions with a WebSocket here to `until` (ms), then takes
        every lease that had expired at `as_of` (ms), also those of other servers' sessions.

        In this order, so that an outage of the database costs no connected session its resource.
        `as_of` is when `present` was taken: a database that hangs meanwhile must not cost a session
        its resource that came back in time.
        """
        sessions = list(present)
        async with self._urgent.transaction() as transaction:
            now = await self._database_time(transaction)
            ahead_ms = now - self.clock.now_ms()
            due = as_of + ahead_ms
            for first in range(0, len(sessions), RENEWED_AT_ONCE):
                await transaction.execute(
                    "WITH mine AS (SELECT number FROM leases WHERE session_id = ANY($1) "
                    "ORDER BY number FOR UPDATE) "
                    "UPDATE leases SET until = greatest(until, $2) FROM mine "
                    "WHERE mine.number = leases.number",
                    sessions[first : first + RENEWED_AT_ONCE],
                    until + ahead_ms,
                )
            rows = await transaction.fetch(
                "WITH due AS (SELECT number, session_id FROM leases "
                "WHERE session_id IS NOT NULL AND until <= $1 "
                "ORDER BY number FOR UPDATE SKIP LOCKED) "
                "UPDATE leases SET session_id = NULL FROM due "
                "WHERE due.number = leases.number RETURNING due.session_id, leases.number, "
                "leases.type, leases.fence",
                min(due, now),
            )
        return [
            LostLease(row["session_id"], ResourceKey(row["type"], row["number"]), row["fence"])
            for row in rows
        ]

    @asynccontextmanager
    async def unheld(self, name: ResourceKey, session_id: str | None) -> AsyncIterator[Queries]:
        """A transaction in which no other session can hold the resource.

        For changes by another API, such as the registry API: run them with the yielded queries.
        Raises ResourceNotFound and ResourceTaken.
        """
        async with self.queries.transaction() as transaction:
            (await self.locked(transaction, name)).ensure_unheld(session_id)
            yield transaction
