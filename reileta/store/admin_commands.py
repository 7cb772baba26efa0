"""Database work of the command line; works with or without a running server."""

from __future__ import annotations

import trio

from reileta.clock import SystemClock
from reileta.records import ADMIN_TAG
from reileta.settings import Settings
from reileta.store import bulk_accounts, open_store


def create_bots(settings: Settings, count: int, *, autopilot: bool = False) -> list[str]:
    """Creates `count` bot accounts and returns a token for each; see `bulk_accounts.create`."""

    async def run() -> list[str]:
        clock = SystemClock()
        async with open_store(settings, clock, shared=True) as store:
            return await bulk_accounts.create(
                store.database, count=count, now_ms=clock.now_ms(), autopilot=autopilot
            )

    return trio.run(run)


def revoke_admin(settings: Settings, username: str) -> bool:
    """Takes the administrator role from the user of that name; False if there is no such user.

    Raises UserCannotUpdate for the main admin.
    """

    async def run() -> bool:
        async with open_store(settings, SystemClock(), shared=True) as store:
            user = await store.users.by_name(username)
            if user is None:
                return False
            await store.users.revoke(user.id, ADMIN_TAG)
            return True

    return trio.run(run)


def grant_admin(settings: Settings, username: str) -> bool:
    """Makes the user of that name an administrator; False if there is no such user."""

    async def run() -> bool:
        async with open_store(settings, SystemClock(), shared=True) as store:
            user = await store.users.by_name(username)
            if user is None:
                return False
            await store.users.grant(user.id, ADMIN_TAG)
            return True

    return trio.run(run)
