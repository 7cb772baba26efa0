"""Services: third parties' additions to the server.

A service acts as an account of its own, without a password, which its first token makes. Who locks
several of these rows does so in this order: the owner's, the service's, the account's.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, TypedDict, Unpack

from reileta.clock import Clock
from reileta.errors import PermissionDenied, ServiceExists, ServiceNotFound
from reileta.ids import new_id
from reileta.records import Cursor, DeletedUser, Page, Service
from reileta.store.database import Queries, Row
from reileta.store.query_builder import Where, assignments, page, tag_list
from reileta.store.quotas import DEFAULT, Quotas
from reileta.store.users import Users, ensure_not_suspended, revoke_credentials, user

TOKEN_MS: Final = 365 * 24 * 3600 * 1000
"""Lifetime of a service's token."""
_NAME_BYTES: Final = 12
_DISPLAYNAME: Final = 64


class ServiceUpdate(TypedDict, total=False):
    """The fields of a service that can change; a missing one stays."""

    title: str
    description: str | None
    url: str | None
    owner: str
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A new token of a service: its account (an id), when it expires (ms), and the ids of the
    sessions that ended for it."""

    account: str
    expires_at: int
    ended: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeletedService:
    """A deleted service, and its account, if it had one."""

    account: DeletedUser | None


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

        Raises ServiceExists, UserNotFound if its owner was deleted meanwhile, QuotaReached, and
        PermissionDenied if the owner is the account of a service: so the owner of a service is
        always somebody who answers for it.
        """
        async with self._queries.transaction() as transaction:
            await self._quotas.ensure_room(transaction, "services", owner)
            if await transaction.value("SELECT service FROM users WHERE id = $1", owner):
                raise PermissionDenied
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

    async def delete(self, id_: str) -> DeletedService | None:
        """Deletes the service, and its account as `Users.delete` does; None: there is none."""
        async with self._queries.transaction() as transaction:
            if not await transaction.fetch("SELECT 1 FROM services WHERE id = $1 FOR UPDATE", id_):
                return None
            users = Users(transaction, self._clock, self._quotas)
            account = await transaction.value("SELECT id FROM users WHERE service = $1", id_)
            gone = None if account is None else await users.delete(account)
            await transaction.execute("DELETE FROM services WHERE id = $1", id_)
        return DeletedService(gone)

    # Tokens ------------------------------------------------------------------------------------

    async def issue_token(self, id_: str, access_hash: bytes) -> ServiceToken:
        """Gives the service a token, and an account if it has none. The token before ends.

        Raises ServiceNotFound, and AccountSuspended if the owner is suspended.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            found = await self._locked(transaction, id_)
            row = await transaction.fetch_one(
                "SELECT id FROM users WHERE service = $1 FOR NO KEY UPDATE", id_
            )
            if row is None:
                row = await transaction.fetch_one(
                    "INSERT INTO users (id, username, displayname, service, created_at, "
                    "updated_at) VALUES ($1, $2, $3, $4, $5, $5) RETURNING id",
                    new_id("u"),
                    f"service_{secrets.token_hex(_NAME_BYTES)}",
                    found.title[:_DISPLAYNAME].strip() or id_[:_DISPLAYNAME],
                    id_,
                    now,
                )
            assert row is not None
            account, session, expires_at = row["id"], new_id("s"), now + TOKEN_MS
            ended = (await revoke_credentials(transaction, account, now)).sessions
            await transaction.execute(
                "INSERT INTO sessions (id, user_id, created_at, last_seen) VALUES ($1, $2, $3, $3)",
                session,
                account,
                now,
            )
            await transaction.execute(
                "INSERT INTO tokens (access_hash, session_id, user_id, created_at, "
                "access_expires, refresh_expires) VALUES ($1, $2, $3, $4, $5, $5)",
                access_hash,
                session,
                account,
                now,
                expires_at,
            )
        return ServiceToken(account, expires_at, ended)

    async def revoke_token(self, id_: str) -> tuple[str, ...]:
        """Ends the sessions of the service, and its token with them; returns their ids."""
        async with self._queries.transaction() as transaction:
            row = await transaction.fetch_one(
                "SELECT id FROM users WHERE service = $1 FOR NO KEY UPDATE", id_
            )
            if row is None:
                return ()
            now = self._clock.now_ms()
            return (await revoke_credentials(transaction, row["id"], now)).sessions

    async def _locked(self, transaction: Queries, id_: str) -> Service:
        """The service; its row and that of its owner are locked. Raises as `issue_token`."""
        owner = await transaction.value("SELECT owner FROM services WHERE id = $1", id_)
        row = await transaction.fetch_one(
            "SELECT * FROM users WHERE id = $1 FOR NO KEY UPDATE", owner
        )
        if row is not None:
            ensure_not_suspended(user(row), self._clock.now_ms())
        # A separate statement, so that it sees what the lock's previous holder did.
        found = await transaction.fetch_one(
            "SELECT * FROM services WHERE id = $1 AND owner = $2 FOR NO KEY UPDATE", id_, owner
        )
        if found is None:
            raise ServiceNotFound
        return service(found)


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
