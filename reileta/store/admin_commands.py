"""Database work of the command line; works with or without a running server.

Each change is in the audit log, in the same transaction. Bots are too many for one transaction:
their entry is written before it, and completed after it.
"""

from __future__ import annotations

import os
import pwd
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from reileta.errors import UserCannotUpdate
from reileta.records import ADMIN_TAG, AuditEntry, User
from reileta.rules.resource.json_values import Json
from reileta.security.passwords import Passwords
from reileta.security.server_key import key_path, load_or_create, prepare
from reileta.settings import Settings
from reileta.store import Store, bulk_accounts, open_store
from reileta.store.audit_log import AuditLog
from reileta.store.bulk_accounts import BotBatch
from reileta.store.database_clock import DatabaseClock
from reileta.store.server_info import ServerInfos
from reileta.store.users import ADMIN_PASSWORD_BYTES, Users

T = TypeVar("T")


def create_bots(settings: Settings, count: int, *, autopilot: bool = False) -> list[str]:
    """Creates `count` bot accounts and returns a token for each; see `bulk_accounts.create`."""

    async def work(store: Store, clock: DatabaseClock) -> list[str]:
        details: dict[str, Json] = {"count": count}
        async with _noted(store.audit, "create_bots", details):
            return await bulk_accounts.create(
                store.database, count=count, now_ms=clock.now_ms(), autopilot=autopilot
            )

    return run(settings, work)


def list_bots(settings: Settings) -> list[BotBatch]:
    """The batches of bots, oldest first."""

    async def work(store: Store, _clock: DatabaseClock) -> list[BotBatch]:
        return await bulk_accounts.batches(store.database)

    return run(settings, work)


def remove_bots(settings: Settings, batch: str | None) -> int:
    """Deletes the accounts of a batch of bots (None: of all); returns their number."""

    async def work(store: Store, _clock: DatabaseClock) -> int:
        existing = await bulk_accounts.batches(store.database)
        if not any(batch in (None, one.name) for one in existing):
            return 0
        details: dict[str, Json] = {} if batch is None else {"batch": batch}
        async with _noted(store.audit, "remove_bots", details):
            removed = await bulk_accounts.remove(store, batch)
            details["count"] = removed
        return removed

    return run(settings, work)


def rotate_key(settings: Settings) -> str:
    """Makes a new key for the server, which it takes at SIGHUP or at its next start; returns the
    public half.

    Raises StartupError if there is no key yet, or a new one already waits.
    """

    async def work(store: Store, _clock: DatabaseClock) -> str:
        public_key = prepare(key_path(settings))
        async with _noted(store.audit, "rotate_key", {"public_key": public_key}):
            return public_key

    return run(settings, work)


def revoke_admin(settings: Settings, username: str) -> bool:
    """Takes the administrator role from the user of that name; False if there is no such user.

    Raises UserCannotUpdate for the main admin.
    """

    async def work(users: Users, user: User) -> None:
        await users.revoke(user.id, ADMIN_TAG)

    return _change(settings, username, "revoke_admin", work)


def grant_admin(settings: Settings, username: str) -> bool:
    """Makes the user of that name an administrator; False if there is no such user."""

    async def work(users: Users, user: User) -> None:
        await users.grant(user.id, ADMIN_TAG)

    return _change(settings, username, "grant_admin", work)


def suspend_user(
    settings: Settings, username: str, *, until: int | None, reason: str | None
) -> bool:
    """Suspends the user of that name; False if there is no such user.

    Raises UserCannotUpdate for the server's own accounts.
    """

    async def work(users: Users, user: User) -> None:
        await users.suspend(user.id, until=until, reason=reason)

    return _change(settings, username, "suspend_user", work, until=until, reason=reason)


def unsuspend_user(settings: Settings, username: str) -> bool:
    """Lifts the suspension of the user of that name; False if there is no such user."""

    async def work(users: Users, user: User) -> None:
        await users.unsuspend(user.id)

    return _change(settings, username, "unsuspend_user", work)


def reset_password(settings: Settings, username: str, password: str | None) -> str | None:
    """Sets a password (None: a random one), ends the user's sessions, and returns the password.

    Returns None if there is no such user. Raises UserCannotUpdate for the server's own account.
    """
    new = secrets.token_urlsafe(ADMIN_PASSWORD_BYTES) if password is None else password

    async def work(users: Users, user: User) -> None:
        if user.id == (await users.server_account()).id:
            raise UserCannotUpdate.field("password", "the server's own account has no password")
        await users.change_password(user.id, hash_, keep=None)

    hash_ = trio.run(Passwords().hash, new)
    return new if _change(settings, username, "reset_password", work) else None


def accept_key(settings: Settings) -> str:
    """Makes the key of the settings' file the server's in its database, and returns the public
    half. The file is created if there is none. Raises StartupError."""

    async def work(store: Store, clock: DatabaseClock) -> str:
        public = load_or_create(key_path(settings)).public_base64url
        known = await store.identity.public_key()
        if public != known:
            async with store.database.transaction() as transaction:
                identity = ServerInfos(transaction, clock, settings.title)
                await identity.replace_public_key(public, known=known)
                await note(AuditLog(transaction, clock), "accept_key", None)
        return public

    return run(settings, work)


def list_admins(settings: Settings) -> tuple[int, list[User]]:
    """The time in ms, and the administrators at that time."""

    async def work(store: Store, clock: DatabaseClock) -> tuple[int, list[User]]:
        return clock.now_ms(), await store.users.admins()

    return run(settings, work)


def read_audit(settings: Settings, limit: int, username: str | None) -> list[AuditEntry]:
    """The newest entries of the audit log; with `username`, those by or about that user."""

    async def work(store: Store, _clock: DatabaseClock) -> list[AuditEntry]:
        if username is None:
            return list((await store.audit.search(limit=limit, offset=0)).items)
        user = await store.users.by_name(username)
        id_ = username if user is None else user.id
        by = await store.audit.search(by=id_, limit=limit, offset=0)
        about = await store.audit.search(target=id_, limit=limit, offset=0)
        found = {one.number: one for one in (*by.items, *about.items)}
        return [found[number] for number in sorted(found, reverse=True)[:limit]]

    return run(settings, work)


def run(settings: Settings, work: Callable[[Store, DatabaseClock], Awaitable[T]]) -> T:
    """The result of work on the database of a server, whether or not the server runs."""

    async def opened() -> T:
        clock = DatabaseClock()
        async with open_store(settings, clock, shared=True) as store:
            await clock.follow(store.database)
            return await work(store, clock)

    return trio.run(opened)


def _change(
    settings: Settings,
    username: str,
    action: str,
    change: Callable[[Users, User], Awaitable[None]],
    **details: Json,
) -> bool:
    """Changes the user of that name, with an entry in the audit log; False if there is no such
    user."""

    async def work(store: Store, clock: DatabaseClock) -> bool:
        user = await store.users.by_name(username)
        if user is None:
            return False
        async with _transaction(store, clock) as (users, audit):
            await change(users, user)
            await _note(audit, action, user, **details)
        return True

    return run(settings, work)


@asynccontextmanager
async def _transaction(store: Store, clock: DatabaseClock) -> AsyncIterator[tuple[Users, AuditLog]]:
    async with store.database.transaction() as transaction:
        yield Users(transaction, clock), AuditLog(transaction, clock)


async def _note(audit: AuditLog, action: str, user: User, **details: Json) -> None:
    await note(audit, action, user.id, user.username, **details)


async def note(
    audit: AuditLog,
    action: str,
    target: str | None,
    target_name: str | None = None,
    **details: Json,
) -> None:
    """Writes an entry for an action of the same transaction."""
    await audit.begin(
        action,
        via="command",
        by_id=None,
        by_name=os_account(),
        target=target,
        target_name=target_name,
        details={name: value for name, value in details.items() if value is not None},
        done=True,
    )


@asynccontextmanager
async def _noted(audit: AuditLog, action: str, details: dict[str, Json]) -> AsyncIterator[None]:
    """Writes an entry before the block, and completes it after it. If the block raises, the entry
    stays without a result, since a part of the block may have taken effect. The block can add
    details."""
    number = await audit.begin(
        action,
        via="command",
        by_id=None,
        by_name=os_account(),
        target=None,
        target_name=None,
        details=details,
    )
    yield
    await audit.finish(number, error=None, target=None, target_name=None, details=details)


def os_account() -> str:
    """The name of the system's account that runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
