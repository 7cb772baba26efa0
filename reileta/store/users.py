"""Users: the accounts of this server."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, TypedDict, Unpack

from reileta.clock import Clock
from reileta.errors import (
    AccountSuspended,
    AuthInvalid,
    Detail,
    Overloaded,
    UserCannotDelete,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
)
from reileta.ids import is_id, new_id
from reileta.records import ADMIN_TAG, DISABLED_TAG, Cursor, DeletedUser, Page, User
from reileta.store.blobs import hashes
from reileta.store.database import ConstraintBroken, Queries, Row
from reileta.store.moderation import ModerationLog
from reileta.store.query_builder import Where, assignments, page, tag_list
from reileta.store.quotas import DEFAULT, Quotas

ADMIN_PASSWORD_BYTES: Final = 18
"""144 random bits, 24 characters."""
TEMPORARY_NAME_BYTES: Final = 8
"""Random bytes in the username of a temporary account."""
TEMPORARY_RETRY_S: Final = 60.0
"""When to ask again for a temporary account, if there are as many as may be."""

# $1: a time. The accounts whose last session ended before it.
_LEFT: Final = (
    "temporary AND created_at <= $1 AND NOT EXISTS (SELECT 1 FROM sessions "
    "WHERE sessions.user_id = users.id AND (ended_at IS NULL OR ended_at > $1))"
)


class UserUpdate(TypedDict, total=False):
    """The fields of a user that can change; a missing one stays."""

    username: str
    displayname: str
    description: str | None
    email: str | None
    password_hash: str | None
    status: str
    tags: frozenset[str]
    home: str | None
    suspended_until: int | None
    suspension_reason: str | None


@dataclass(frozen=True, slots=True)
class Revoked:
    """Credentials that ended with a password, or with a suspension: session ids, and the `id`s of
    tokens of the session that was kept."""

    sessions: tuple[str, ...]
    tokens: tuple[bytes, ...]


class Users:
    def __init__(self, queries: Queries, clock: Clock, quotas: Quotas = DEFAULT) -> None:
        self._queries = queries
        self._clock = clock
        self._quotas = quotas

    async def create(
        self,
        *,
        username: str,
        displayname: str,
        password_hash: str | None,
        email: str | None = None,
        tags: frozenset[str] = frozenset(),
        autopilot: bool = False,
    ) -> User:
        """Creates a user. Raises AuthInvalid if the username is taken, ignoring case."""
        row = await self._insert(
            None, username, displayname, password_hash, email, tags, autopilot=autopilot
        )
        if row is None:
            raise AuthInvalid.field("username", "is taken")
        return user(row)

    async def create_temporary(self, displayname: str | None, *, limit: int) -> User:
        """Creates a temporary account with a random username.

        Args:
            displayname: None: "Guest" and a random number.
            limit: the number of temporary accounts at the same time.

        Raises Overloaded if there are as many already.
        """
        async with self._queries.transaction() as transaction:
            # One at a time: parallel ones can't exceed the limit.
            await transaction.fetch("SELECT 1 FROM users WHERE system = 'server' FOR NO KEY UPDATE")
            count = await transaction.value("SELECT count(*) FROM users WHERE temporary")
            if count >= limit:
                raise Overloaded(
                    Detail("temporary_accounts", f"there are {limit} already"),
                    retry_after_s=TEMPORARY_RETRY_S,
                )
            row = await Users(transaction, self._clock)._insert(
                None,
                f"temp_{secrets.token_hex(TEMPORARY_NAME_BYTES)}",
                displayname or f"Guest {secrets.randbelow(9_000) + 1_000}",
                None,
                None,
                frozenset(),
                temporary=True,
            )
        assert row is not None, "a random name is taken"
        return user(row)

    async def keep(self, id_: str, username: str, password_hash: str) -> User:
        """Makes a temporary account a full one.

        Raises UserInvalid for a taken username, and UserCannotUpdate if it is not temporary (any
        more): the password of a full account is not changed in this way.
        """
        try:
            row = await self._queries.fetch_one(
                "UPDATE users SET temporary = false, username = $2, password_hash = $3, "
                "updated_at = $4 WHERE id = $1 AND temporary RETURNING *",
                id_,
                username,
                password_hash,
                self._clock.now_ms(),
            )
        except ConstraintBroken as error:
            if error.constraint == "users_username":
                raise UserInvalid.field("username", "is taken") from error
            raise
        if row is None:
            raise UserCannotUpdate.field("password", "the account is not temporary any more")
        return user(row)

    async def left(self, before_ms: int, *, limit: int = 100) -> list[str]:
        """The ids of up to `limit` temporary accounts whose last session ended before that time;
        `delete` with the same `left_ms` deletes them."""
        rows = await self._queries.fetch(
            f"SELECT id FROM users WHERE {_LEFT} ORDER BY created_at LIMIT $2",  # noqa: S608
            before_ms,
            limit,
        )
        return [row["id"] for row in rows]

    async def by_id(self, id_: str) -> User | None:
        return _user(await self._queries.recall_one("SELECT * FROM users WHERE id = $1", id_))

    async def by_name(self, name: str) -> User | None:
        """The user of that username, ignoring case."""
        return _user(
            await self._queries.recall_one(
                "SELECT * FROM users WHERE lower(username) = lower($1)", name
            )
        )

    async def find(self, ref: str) -> User | None:
        """The user of that id or username; a username never looks like an id."""
        return await (self.by_id(ref) if is_id(ref, "u") else self.by_name(ref))

    async def credentials(self, username: str) -> tuple[User, str] | None:
        """The user and its password hash; None for an unknown user or one without a password."""
        row = await self._queries.fetch_one(
            "SELECT * FROM users WHERE lower(username) = lower($1) AND password_hash IS NOT NULL",
            username,
        )
        return None if row is None else (user(row), row["password_hash"])

    async def search(
        self, *, query: str | None, limit: int, offset: int, after: Cursor | None = None
    ) -> Page[User]:
        """Users whose username, displayname or description contains the query, oldest first."""
        where = Where()
        where.contains(query)
        return await page(
            self._queries,
            "users",
            where,
            user,
            order=("number",),
            limit=limit,
            offset=offset,
            after=after,
        )

    async def many(self, ids: Collection[str]) -> dict[str, User]:
        """The existing ones of these users, by id."""
        if not ids:
            return {}
        rows = await self._queries.recall("SELECT * FROM users WHERE id = ANY($1)", list(ids))
        return {row["id"]: user(row) for row in rows}

    async def update(self, id_: str, **changes: Unpack[UserUpdate]) -> User:
        """Changes the user and returns it. Raises UserNotFound, and UserInvalid for a taken
        username.

        Without `DISABLED_TAG` in new tags, a suspension ends; to suspend a user, call `suspend`.
        """
        if "tags" in changes and DISABLED_TAG not in changes["tags"]:
            changes |= {"suspended_until": None, "suspension_reason": None}
        sets, values = assignments(changes, UserUpdate.__annotations__)
        try:
            row = await self._queries.fetch_one(
                f"UPDATE users SET {sets}{',' if sets else ''} updated_at = ${len(values) + 1} "  # noqa: S608 - columns of UserUpdate
                f"WHERE id = ${len(values) + 2} RETURNING *",
                *values,
                self._clock.now_ms(),
                id_,
            )
        except ConstraintBroken as error:
            if error.constraint == "users_username":
                raise UserInvalid.field("username", "is taken") from error
            raise
        return _found(row)

    async def change_password(
        self,
        id_: str,
        password_hash: str,
        *,
        keep: str | None,
        keep_token: bytes | None = None,
    ) -> Revoked:
        """Changes the user's password, and ends its sessions at once, except for the one to keep.

        Of that session, all tokens but `keep_token` (its `id`) are revoked; None: no token is.

        Raises UserNotFound.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            # The lock that every change of the user's tokens takes first; see tokens.py.
            changed = await transaction.execute(
                "UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1",
                id_,
                password_hash,
                now,
            )
            if not changed:
                raise UserNotFound
            return await revoke_credentials(transaction, id_, now, keep, keep_token)

    async def suspend(
        self, id_: str, *, until: int | None, reason: str | None
    ) -> tuple[User, Revoked]:
        """Suspends the account until that time (None: until it is lifted), and ends its sessions
        and those of its services.

        A second suspension replaces the first one's time and reason.

        Raises UserNotFound, and UserCannotUpdate for the two accounts of the server itself: so
        there is always an admin who can lift a suspension.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            row = await transaction.fetch_one(
                "UPDATE users SET updated_at = $2, suspended_until = $3, suspension_reason = $4, "
                "tags = CASE WHEN $5 = ANY(tags) THEN tags ELSE array_append(tags, $5) END "
                "WHERE id = $1 AND system IS NULL RETURNING *",
                id_,
                now,
                until,
                reason,
                DISABLED_TAG,
            )
            if row is None and await transaction.fetch("SELECT 1 FROM users WHERE id = $1", id_):
                raise UserCannotUpdate.field("tags", "the server's own accounts can't be suspended")
            suspended = _found(row)
            revoked = await revoke_credentials(transaction, id_, now)
            of_services = await _end_services(transaction, id_, now)
        return suspended, replace(revoked, sessions=revoked.sessions + of_services)

    async def unsuspend(self, id_: str) -> User:
        """Lifts the suspension of an account; nothing changes if there is none. Raises
        UserNotFound."""
        row = await self._queries.fetch_one(
            "UPDATE users SET updated_at = CASE WHEN $3 = ANY(tags) THEN $2 ELSE updated_at END, "
            "tags = array_remove(tags, $3), suspended_until = NULL, suspension_reason = NULL "
            "WHERE id = $1 RETURNING *",
            id_,
            self._clock.now_ms(),
            DISABLED_TAG,
        )
        return _found(row)

    async def lift_expired_suspensions(self) -> list[User]:
        """Lifts the suspensions whose time is over; returns the users."""
        now = self._clock.now_ms()
        # Asked first: an UPDATE invalidates the cached rows of all users.
        if not await self._queries.fetch(
            "SELECT 1 FROM users WHERE suspended_until <= $1 LIMIT 1", now
        ):
            return []
        rows = await self._queries.fetch(
            "UPDATE users SET updated_at = $1, tags = array_remove(tags, $2), "
            "suspended_until = NULL, suspension_reason = NULL "
            "WHERE suspended_until <= $1 RETURNING *",
            now,
            DISABLED_TAG,
        )
        return [user(row) for row in rows]

    async def admins(self) -> list[User]:
        """The administrators, suspended ones too, oldest first."""
        rows = await self._queries.fetch(
            "SELECT * FROM users WHERE $1 = ANY(tags) ORDER BY number", ADMIN_TAG
        )
        return [user(row) for row in rows]

    async def delete(self, id_: str, *, left_ms: int | None = None) -> DeletedUser:
        """Deletes an account and its private data, and transfers its objects, at once.

        E-mail address, password, sessions, tokens, pictures, and follows in both directions are
        deleted, and instance nodes with the instances on them. Worlds, other instances and
        services, whose tokens end, are transferred to the server's own account, and the entries of
        the moderation log, of which that account keeps as many as every other owner.

        `left_ms`: only if it is a temporary account whose last session ended before that time.

        Raises UserNotFound, and UserCannotDelete for the two accounts of the server itself.
        """
        now = self._clock.now_ms()
        async with self._queries.transaction() as transaction:
            row = await transaction.fetch_one("SELECT * FROM users WHERE id = $1 FOR UPDATE", id_)
            gone = _found(row)
            if row is not None and row["system"] is not None:
                raise UserCannotDelete
            if left_ms is not None and not await transaction.fetch(
                f"SELECT 1 FROM users WHERE {_LEFT} AND id = $2",  # noqa: S608
                left_ms,
                id_,
            ):
                raise UserCannotDelete
            heir = (await Users(transaction, self._clock).server_account()).id
            hosts = await transaction.fetch("DELETE FROM hosts WHERE owner = $1 RETURNING id", id_)
            of_services = await _end_services(transaction, id_, now)
            handed = {}
            for table in ("worlds", "instances", "services"):
                rows = await transaction.fetch(
                    f"UPDATE {table} SET owner = $2, updated_at = $3 WHERE owner = $1 "  # noqa: S608 - those three
                    "RETURNING id",
                    id_,
                    heir,
                    now,
                )
                handed[table] = tuple(one["id"] for one in rows)
            await ModerationLog(transaction, self._quotas).transfer(id_, heir)
            sessions = await transaction.fetch(
                "SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL", id_
            )
            # In one order, so that two users who follow each other can be deleted at the same time.
            await transaction.execute(
                "WITH gone AS (SELECT follower, followed FROM follows "
                "WHERE follower = $1 OR followed = $1 ORDER BY follower, followed FOR UPDATE) "
                "DELETE FROM follows USING gone "
                "WHERE follows.follower = gone.follower AND follows.followed = gone.followed",
                id_,
            )
            pictures = await transaction.fetch(
                "DELETE FROM images WHERE user_id = $1 RETURNING hash", id_
            )
            # Sessions and tokens are deleted by foreign keys.
            await transaction.execute("DELETE FROM users WHERE id = $1", id_)
        return DeletedUser(
            user=gone,
            sessions=(*(one["id"] for one in sessions), *of_services),
            files=hashes(pictures),
            nodes=tuple(one["id"] for one in hosts),
            **handed,
        )

    async def grant(self, ref: str, tag: str) -> User:
        """Adds a tag to the user of that id or username.

        Raises UserNotFound, and UserCannotUpdate for a temporary account.
        """
        row = await self._queries.fetch_one(
            "UPDATE users SET updated_at = $3, "
            "tags = CASE WHEN $2 = ANY(tags) THEN tags ELSE array_append(tags, $2) END "
            "WHERE (id = $1 OR lower(username) = lower($1)) AND NOT temporary RETURNING *",
            ref,
            tag,
            self._clock.now_ms(),
        )
        if row is None and await self.find(ref) is not None:
            raise UserCannotUpdate.field("tags", "a temporary account has none")
        return _found(row)

    async def revoke(self, ref: str, tag: str) -> User:
        """Removes a tag from the user of that id or username.

        Raises UserNotFound, and UserCannotUpdate for the main admin.
        """
        row = await self._queries.fetch_one(
            "UPDATE users SET updated_at = $3, tags = array_remove(tags, $2) "
            "WHERE (id = $1 OR lower(username) = lower($1)) "
            "AND system IS DISTINCT FROM 'admin' RETURNING *",
            ref,
            tag,
            self._clock.now_ms(),
        )
        if row is None and await self.find(ref) is not None:
            raise UserCannotUpdate.field("tags", f"the main admin always has {tag}")
        return _found(row)

    async def main_admin(self) -> User:
        """The main administrator, `@admin`. Raises UserNotFound before the first start."""
        return await self._system("admin")

    async def server_account(self) -> User:
        """The server's own account, `@server`. Raises UserNotFound before the first start."""
        return await self._system("server")

    async def ensure_system_accounts(
        self, hash_password: Callable[[str], Awaitable[str]]
    ) -> str | None:
        """Creates `@server` and `@admin` if they don't exist.

        Returns the admin's password if the admin was created: show it once, on the terminal, and
        never log it. Both accounts are created or neither is. Raises AuthInvalid if users have
        these names.
        """
        made = await self._queries.value("SELECT count(*) FROM users WHERE system IS NOT NULL")
        if made == 2:
            return None
        password = secrets.token_urlsafe(ADMIN_PASSWORD_BYTES)
        hash_ = await hash_password(password)
        admin_tags = frozenset({ADMIN_TAG})
        async with self._queries.transaction() as transaction:
            users = Users(transaction, self._clock)
            await users._ensure("server", "Server", None, frozenset())
            created = await users._ensure("admin", "Admin", hash_, admin_tags)
        return password if created else None

    async def _ensure(
        self, name: str, displayname: str, hash_: str | None, tags: frozenset[str]
    ) -> bool:
        """Whether this process has created the system account."""
        if await self._insert(name, name, displayname, hash_, None, tags) is not None:
            return True
        if await self._queries.fetch_one("SELECT 1 FROM users WHERE system = $1", name) is None:
            raise AuthInvalid.field("username", f"{name} belongs to a user")
        return False

    async def _insert(
        self,
        system: str | None,
        username: str,
        displayname: str,
        password_hash: str | None,
        email: str | None,
        tags: frozenset[str],
        *,
        autopilot: bool = False,
        temporary: bool = False,
    ) -> Row | None:
        return await self._queries.fetch_one(
            "INSERT INTO users (id, system, username, displayname, password_hash, email, tags, "
            "autopilot, temporary, created_at, updated_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) ON CONFLICT DO NOTHING "
            "RETURNING *",
            new_id("u"),
            system,
            username,
            displayname,
            password_hash,
            email,
            tag_list(tags),
            autopilot,
            temporary,
            self._clock.now_ms(),
        )

    async def _system(self, name: str) -> User:
        return _found(await self._queries.recall_one("SELECT * FROM users WHERE system = $1", name))


def user(row: Row) -> User:
    """The user of a row of `users`."""
    return User(
        id=row["id"],
        number=row["number"],
        username=row["username"],
        displayname=row["displayname"],
        description=row["description"],
        email=row["email"],
        status=row["status"],
        tags=frozenset(row["tags"]),
        autopilot=row["autopilot"],
        home=row["home"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        suspended_until=row["suspended_until"],
        suspension_reason=row["suspension_reason"],
        temporary=row["temporary"],
    )


async def _end_services(transaction: Queries, owner: str, now: int) -> tuple[str, ...]:
    """Ends the sessions of the services of a user whose row is locked; returns their ids."""
    services = await transaction.fetch(
        "SELECT id FROM services WHERE owner = $1 ORDER BY id FOR NO KEY UPDATE", owner
    )
    accounts = await transaction.fetch(
        "SELECT id FROM users WHERE service = ANY($1) ORDER BY service FOR NO KEY UPDATE",
        [one["id"] for one in services],
    )
    ended: list[str] = []
    for one in accounts:
        ended += (await revoke_credentials(transaction, one["id"], now)).sessions
    return tuple(ended)


async def revoke_credentials(
    transaction: Queries,
    id_: str,
    now: int,
    keep: str | None = None,
    keep_token: bytes | None = None,
) -> Revoked:
    """Ends the sessions of a user whose row is locked, as `Users.change_password` says."""
    ended = await transaction.fetch(
        "UPDATE sessions SET ended_at = $3 WHERE user_id = $1 AND ended_at IS NULL "
        "AND id IS DISTINCT FROM $2 RETURNING id",
        id_,
        keep,
        now,
    )
    killed = await transaction.fetch(
        "UPDATE tokens SET killed_at = $3 WHERE user_id = $1 AND killed_at IS NULL "
        "AND (session_id IS DISTINCT FROM $2 "
        "OR ($4::bytea IS NOT NULL AND coalesce(first_hash, access_hash) <> $4)) "
        "RETURNING session_id, coalesce(first_hash, access_hash) AS id",
        id_,
        keep,
        now,
        keep_token,
    )
    return Revoked(
        tuple(row["id"] for row in ended),
        tuple(row["id"] for row in killed if row["session_id"] == keep),
    )


def ensure_not_suspended(account: User, now_ms: int) -> None:
    """Raises AccountSuspended, with the end and the reason of the suspension."""
    if account.suspended(now_ms):
        raise AccountSuspended.until(account.suspended_until, account.suspension_reason)


def _user(row: Row | None) -> User | None:
    return None if row is None else user(row)


def _found(row: Row | None) -> User:
    if row is None:
        raise UserNotFound
    return user(row)
