"""Users, worlds and files that several tests of the store make, and who waits for whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from reileta.media.files import FileStore, Stored
from reileta.records import Asset, User, World
from reileta.store import Store


async def a_user(store: Store, name: str = "ada") -> User:
    return await store.users.create(username=name, displayname=name, password_hash="hash")


async def a_world(store: Store, owner: str = "u_a", title: str = "Home") -> World:
    return await store.worlds.create(
        title=title, description=None, capacity=16, owner=owner, tags=frozenset({"avr:public"})
    )


async def an_asset(
    store: Store, world: World, version: str = "1.0", url: str | None = None
) -> Asset:
    return await store.assets.create(
        world_id=world.id, version=version, engine="unity", platform="windows", url=url
    )


async def a_file(files: FileStore, data: bytes) -> Stored:
    async with files.upload(len(data)) as upload:
        await upload.write(data)
        return await upload.commit()


@asynccontextmanager
async def held_up(store: Store, work: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Begins `work`, which must come to wait for a lock that the body's caller holds.

    The body goes on once it waits; leaving the body waits for the work to end.
    """
    ended = False

    async def run() -> None:
        nonlocal ended
        try:
            await work()
        finally:
            ended = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not await store.database.value(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            assert not ended, "it did not wait"
        yield
