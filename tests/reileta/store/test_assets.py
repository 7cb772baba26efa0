from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from reileta.errors import (
    AssetExists,
    AssetFileInvalid,
    AssetNotFound,
    FileExists,
    PayloadTooLarge,
    ReiletaError,
    StorageUnavailable,
    WorldNotFound,
)
from reileta.records import Asset
from reileta.store import Store
from reileta.store.assets import Assets
from tests.conftest import ManualClock
from tests.reileta.store.records import a_file, a_user, a_world, an_asset, held_up

FOREVER = 2**62


async def test_a_new_asset_is_empty(store: Store, clock: ManualClock) -> None:
    world = await a_world(store)
    asset = await an_asset(store, world)
    now = clock.now_ms()
    assert asset == Asset(asset.id, world.id, "1.0", "unity", "windows", None, None, None, now, now)
    assert asset.id.startswith("f_")
    assert asset.empty
    assert await store.assets.get(world.id, asset.id) == asset
    assert not (await an_asset(store, world, "2.0", url="https://x.example/a")).empty


async def test_an_asset_is_found_in_its_own_world_alone(store: Store) -> None:
    world, other = await a_world(store), await a_world(store)
    asset = await an_asset(store, world)
    assert await store.assets.get(other.id, asset.id) is None
    assert await store.assets.get(world.id, "f_none") is None


async def test_a_build_is_there_once(store: Store) -> None:
    world = await a_world(store)
    made: list[Asset] = []
    refused: list[AssetExists] = []

    async def ask() -> None:
        try:
            made.append(await an_asset(store, world))
        except AssetExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask)
    assert (len(made), len(refused)) == (1, 5)
    for build in [("1.0", "godot", "windows"), ("1.0", "unity", "linux")]:
        version, engine, platform = build
        await store.assets.create(
            world_id=world.id, version=version, engine=engine, platform=platform
        )
    await an_asset(store, await a_world(store))


async def test_an_asset_needs_a_world(store: Store) -> None:
    world = await a_world(store)
    await store.worlds.delete(world.id)
    with pytest.raises(WorldNotFound):
        await an_asset(store, world)


async def test_assets_of_many_worlds_come_at_once(store: Store, clock: ManualClock) -> None:
    worlds = [await a_world(store) for _ in range(3)]
    first = await an_asset(store, worlds[0])
    clock.advance(1)
    second = await an_asset(store, worlds[0], "0.9")
    other = await an_asset(store, worlds[1])
    assert await store.assets.of(worlds[0].id) == [first, second]
    statements = store.database.statements
    found = await store.assets.of_many([world.id for world in worlds])
    assert store.database.statements == statements + 1
    assert found == {worlds[0].id: [first, second], worlds[1].id: [other], worlds[2].id: []}
    assert await store.assets.of_many([]) == {}


async def test_an_update_changes_what_it_names_alone(store: Store, clock: ManualClock) -> None:
    world = await a_world(store)
    asset = await an_asset(store, world)
    await an_asset(store, world, "2.0")
    clock.advance(5)
    changed = await store.assets.update(asset.id, platform="linux", url="https://x.example/a")
    assert (changed.platform, changed.url, changed.version) == (
        "linux",
        "https://x.example/a",
        "1.0",
    )
    assert changed.updated_at == asset.updated_at + 5
    assert (await store.assets.update(asset.id, url=None)).empty
    assert (await store.assets.update(asset.id)).platform == "linux"
    with pytest.raises(AssetExists):
        await store.assets.update(asset.id, platform="windows", version="2.0")
    with pytest.raises(AssetNotFound):
        await store.assets.update("f_none", version="3.0")
    with pytest.raises(ValueError, match="not to be changed"):
        await store.assets.update(asset.id, hash="0" * 64)  # type: ignore[call-arg]


async def test_assets_go_one_by_one_and_with_their_world(store: Store) -> None:
    world = await a_world(store)
    asset, other = await an_asset(store, world), await an_asset(store, world, "2.0")
    assert await store.assets.delete(asset.id) == frozenset()
    with pytest.raises(AssetNotFound):
        await store.assets.delete(asset.id)
    await store.worlds.delete(world.id)
    assert await store.assets.get(world.id, other.id) is None


async def test_a_filled_asset_has_its_file(filed: Store, clock: ManualClock) -> None:
    world = await a_world(filed)
    asset = await an_asset(filed, world)
    stored = await a_file(filed.files, b"content")
    clock.advance(5)
    full = await filed.assets.fill(asset.id, stored.hash, stored.size)
    assert (full.hash, full.size, full.empty) == (stored.hash, 7, False)
    assert full.updated_at == asset.updated_at + 5
    assert await filed.assets.get(world.id, asset.id) == full


async def test_of_those_who_fill_an_asset_at_once_one_does(filed: Store) -> None:
    world = await a_world(filed)
    asset = await an_asset(filed, world)
    filled: list[Asset] = []
    refused: list[ReiletaError] = []

    async def fill(number: int) -> None:
        stored = await a_file(filed.files, b"%d" % (number % 3))
        try:
            filled.append(await filed.assets.fill(asset.id, stored.hash, stored.size))
        except FileExists as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(fill, number)
    assert (len(filled), len(refused)) == (1, 8)
    assert await filed.assets.get(world.id, asset.id) == filled[0]


async def test_what_is_somewhere_else_or_here_is_not_filled(filed: Store) -> None:
    world = await a_world(filed)
    stored = await a_file(filed.files, b"content")
    away = await an_asset(filed, world, url="https://x.example/a")
    with pytest.raises(FileExists):
        await filed.assets.fill(away.id, stored.hash, stored.size)
    with pytest.raises(AssetNotFound):
        await filed.assets.fill("f_none", stored.hash, stored.size)
    here = await an_asset(filed, world, "2.0")
    await filed.assets.fill(here.id, stored.hash, stored.size)
    with pytest.raises(FileExists):
        await filed.assets.update(here.id, url="https://x.example/a")
    assert (await filed.assets.update(here.id, url=None, version="3.0")).hash == stored.hash


async def test_no_asset_is_filled_with_nothing_or_with_what_is_not_there(filed: Store) -> None:
    world = await a_world(filed)
    asset = await an_asset(filed, world)
    empty = await a_file(filed.files, b"")
    with pytest.raises(AssetFileInvalid) as caught:
        await filed.assets.fill(asset.id, empty.hash, 0)
    assert caught.value.details[0].field == "file"
    gone = await a_file(filed.files, b"gone")
    await filed.files.remove(gone.hash, placed_before_ms=FOREVER)
    with pytest.raises(StorageUnavailable):
        await filed.assets.fill(asset.id, gone.hash, gone.size)
    assert (await filed.assets.of(world.id))[0].empty
    assert await filed.database.value("SELECT count(*) FROM blobs") == 0


async def test_one_owners_files_come_to_no_more_than_the_quota(filed: Store) -> None:
    ada = await a_user(filed)
    assets = [await an_asset(filed, await a_world(filed, ada.id)) for _ in range(5)]
    refused: list[PayloadTooLarge] = []

    async def fill(asset: Asset, byte: int) -> None:
        stored = await a_file(filed.files, bytes([byte]) * 300)
        try:
            await filed.assets.fill(asset.id, stored.hash, stored.size)
        except PayloadTooLarge as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number, asset in enumerate(assets):
            nursery.start_soon(fill, asset, number)
    assert len(refused) == 2
    assert await filed.assets.room(ada.id) == 100
    assert await filed.assets.room((await a_user(filed, "bob")).id) == 1000
    full = [one for asset in assets for one in await filed.assets.of(asset.world_id) if one.hash]
    await filed.assets.delete(full[0].id)
    assert await filed.assets.room(ada.id) == 400


async def test_fills_of_one_owner_come_one_after_the_other(
    filed: Store, clock: ManualClock
) -> None:
    """Two at once would each see room for itself."""
    world = await a_world(filed)
    first, second = await an_asset(filed, world, "1"), await an_asset(filed, world, "2")
    files = [await a_file(filed.files, byte * 600) for byte in (b"a", b"b")]

    async def fill() -> None:
        with pytest.raises(PayloadTooLarge):
            await filed.assets.fill(second.id, files[1].hash, files[1].size)

    async with AsyncExitStack() as waiting, filed.database.transaction() as transaction:
        assets = Assets(transaction, clock, filed.blobs, user_files_bytes=1000)
        await assets.fill(first.id, files[0].hash, files[0].size)
        await waiting.enter_async_context(held_up(filed, fill))


async def test_a_quota_counts_equal_files_each_time(filed: Store) -> None:
    ada = await a_user(filed)
    world = await a_world(filed, ada.id)
    stored = await a_file(filed.files, bytes(400))
    for version in ("1", "2"):
        asset = await an_asset(filed, world, version)
        await filed.assets.fill(asset.id, stored.hash, stored.size)
    assert await filed.assets.room(ada.id) == 200
    assert len(await filed.files.listed("", 10)) == 1


async def test_an_owner_of_another_server_has_a_quota_too(filed: Store) -> None:
    world = await a_world(filed, "u_x@other.example")
    asset = await an_asset(filed, world)
    stored = await a_file(filed.files, bytes(1001))
    with pytest.raises(PayloadTooLarge):
        await filed.assets.fill(asset.id, stored.hash, stored.size)
    assert (await filed.assets.of(world.id))[0].empty
