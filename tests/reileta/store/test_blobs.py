from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from reileta.errors import AssetNotFound, FileExists, StorageUnavailable
from reileta.media.files import FileStore
from reileta.media.files.local import LocalFiles
from reileta.store import Store
from reileta.store.assets import Assets
from reileta.store.blobs import Blobs
from reileta.store.database import IDLE_IN_TRANSACTION_S, Database
from tests.conftest import ManualClock
from tests.reileta.store.blobs import FOREVER, Pausing, filled, kept, rows
from tests.reileta.store.records import a_file, a_user, a_world, an_asset, held_up


async def test_what_is_referenced_is_kept(filed: Store) -> None:
    ada = await a_user(filed)
    world = await a_world(filed)
    asset, build = await filled(filed, world, "1", b"build")
    picture = await a_file(filed.files, b"picture")
    await filed.images.put(
        ada.id, "banner", hash_=picture.hash, size=picture.size, width=1, height=1
    )
    assert await filed.blobs.collect(FOREVER) == 0
    assert await kept(filed) == {build.hash, picture.hash}
    await filed.assets.delete(asset)
    assert await filed.blobs.collect(FOREVER) == 1
    assert await kept(filed) == await rows(filed) == {picture.hash}
    await filed.images.remove(ada.id, "banner")
    assert await filed.blobs.collect(FOREVER) == 1
    assert await kept(filed) == await rows(filed) == set()


async def test_equal_content_is_kept_until_the_last_goes(filed: Store) -> None:
    world = await a_world(filed)
    first, stored = await filled(filed, world, "1", b"same")
    second, _ = await filled(filed, world, "2", b"same")
    await filed.assets.delete(first)
    assert await filed.blobs.collect(FOREVER) == 0
    assert await kept(filed) == {stored.hash}
    await filed.assets.delete(second)
    assert await filed.blobs.collect(FOREVER) == 1
    assert await kept(filed) == set()


async def test_what_was_touched_lately_is_kept(filed: Store, clock: ManualClock) -> None:
    world = await a_world(filed)
    asset, stored = await filled(filed, world, "1", b"x")
    await filed.assets.delete(asset)
    assert await filed.blobs.collect(clock.now_ms()) == 0
    assert await kept(filed) == {stored.hash}


async def test_what_was_put_in_place_lately_is_kept(
    filed: Store, clock: ManualClock, tmp_path: Path
) -> None:
    asset, stored = await filled(filed, await a_world(filed), "1", b"x")
    await filed.assets.delete(asset)
    before = clock.now_ms() + 1
    (path,) = tmp_path.rglob(stored.hash)
    os.utime(path, (before / 1000 + 1,) * 2)
    assert await filed.blobs.collect(before) == 0
    assert await kept(filed) == await rows(filed) == {stored.hash}
    os.utime(path, (before / 1000 - 1,) * 2)
    assert await filed.blobs.collect(before) == 1
    assert await kept(filed) == await rows(filed) == set()


async def test_a_file_that_nobody_asked_for_is_adopted(filed: Store, clock: ManualClock) -> None:
    _, wanted = await filled(filed, await a_world(filed), "1", b"wanted")
    stray = [await a_file(filed.files, b"%d" % number) for number in range(3)]
    assert await filed.blobs.collect(FOREVER) == 0
    assert await filed.blobs.adopt() == 3
    assert await filed.blobs.adopt() == 0
    assert await rows(filed) == {wanted.hash, *(file.hash for file in stray)}
    assert await filed.blobs.collect(clock.now_ms()) == 0
    assert await filed.blobs.collect(FOREVER) == 3
    assert await kept(filed) == {wanted.hash}


class Crashing(LocalFiles):
    """Removes a file, and then the process would end."""

    async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
        await super().remove(hash_, placed_before_ms=placed_before_ms)
        raise StorageUnavailable


async def test_a_crash_while_collecting_loses_nothing_that_is_wanted(
    filed: Store, clock: ManualClock, tmp_path: Path
) -> None:
    world = await a_world(filed)
    asset, stored = await filled(filed, world, "1", b"x")
    await filed.assets.delete(asset)
    crashing = Blobs(filed.database, clock, Crashing(tmp_path / "files"))
    with pytest.raises(StorageUnavailable):
        await crashing.collect(FOREVER)
    assert (await rows(filed), await kept(filed)) == ({stored.hash}, set())
    await filled(filed, world, "2", b"x")
    assert await filed.blobs.collect(FOREVER) == 0
    assert await kept(filed) == {stored.hash}


class Slow(LocalFiles):
    """Files on a disk that needs longer than a transaction may be idle for."""

    database: Database

    async def wait(self) -> None:
        await self.database.value("SELECT pg_sleep($1)", IDLE_IN_TRANSACTION_S * 1.1)

    async def has(self, hash_: str) -> bool:
        await self.wait()
        return await super().has(hash_)

    async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
        await self.wait()
        return await super().remove(hash_, placed_before_ms=placed_before_ms)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["hold", "release", "collect"])
async def test_a_slow_disk_ends_no_transaction(
    filed: Store, clock: ManualClock, tmp_path: Path, work: str
) -> None:
    files = Slow(tmp_path / "files")
    files.database = filed.database
    stored = await a_file(files, b"x")
    await filed.blobs.adopt()
    blobs = Blobs(filed.database, clock, files)
    if work == "hold":
        async with filed.database.transaction() as transaction:
            await blobs.hold(transaction, stored.hash, stored.size)
            assert await transaction.value("SELECT count(*) FROM blobs") == 1
        return
    done = blobs.release([stored.hash]) if work == "release" else blobs.collect(FOREVER)
    assert await done == 1
    assert await kept(filed) == await rows(filed) == set()


async def test_a_reference_waits_for_a_collection_and_sees_what_is_gone(
    filed: Store, clock: ManualClock, tmp_path: Path
) -> None:
    world = await a_world(filed)
    old, stored = await filled(filed, world, "1", b"x")
    await filed.assets.delete(old)
    new = await an_asset(filed, world, "2")
    pausing = Pausing(tmp_path / "files")

    async def fill() -> None:
        with pytest.raises(StorageUnavailable):
            await filed.assets.fill(new.id, stored.hash, stored.size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Blobs(filed.database, clock, pausing).collect, FOREVER)
        await pausing.reached.wait()
        async with held_up(filed, fill):
            pausing.go.set()
    assert (await filed.assets.of(world.id))[0].empty
    assert await rows(filed) == await kept(filed) == set()


async def test_a_collection_waits_for_a_reference_and_leaves_its_file(
    filed: Store, clock: ManualClock, tmp_path: Path
) -> None:
    world = await a_world(filed)
    old, stored = await filled(filed, world, "1", b"x")
    await filed.assets.delete(old)
    new = await an_asset(filed, world, "2")
    pausing = Pausing(tmp_path / "files")
    blobs = Blobs(filed.database, clock, pausing)
    assets = Assets(filed.database, clock, blobs, user_files_bytes=1000)

    async def collect() -> None:
        assert await filed.blobs.collect(FOREVER) == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(assets.fill, new.id, stored.hash, stored.size)
        await pausing.reached.wait()
        async with held_up(filed, collect):
            pausing.go.set()
    assert await rows(filed) == await kept(filed) == {stored.hash}


async def test_many_files_are_adopted_and_collected(
    filed: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.blobs._AT_ONCE", 2)
    for number in range(5):
        await a_file(filed.files, b"%d" % number)
    assert await filed.blobs.adopt() == 5
    assert await filed.blobs.collect(FOREVER) == 5
    assert await rows(filed) == await kept(filed) == set()


async def test_no_file_is_lost_however_uploads_and_collections_meet(filed: Store) -> None:
    """Nothing is ever too young here, so that only the locks protect a file."""
    world = await a_world(filed, "u_x@other.example")
    busy = 0

    async def use(number: int) -> None:
        nonlocal busy
        busy += 1
        for turn in range(12):
            asset = await an_asset(filed, world, f"{number}.{turn}")
            async with filed.blobs.releasing() as loose, filed.files.upload(1) as upload:
                await upload.write(b"%d" % (turn % 3))
                stored = await upload.commit()
                loose.add(stored.hash)
                if turn % 4 == 3:
                    continue
                await filed.assets.fill(asset.id, stored.hash, stored.size)
            async with filed.files.open(stored.hash) as reader:
                assert [chunk async for chunk in reader] == [b"%d" % (turn % 3)]
            async with filed.blobs.releasing() as loose:
                loose.update(await filed.assets.delete(asset.id))
        busy -= 1

    async def collect(files: FileStore) -> None:
        while busy:
            await filed.blobs.adopt()
            await filed.blobs.collect(FOREVER)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(use, number)
        await trio.lowlevel.checkpoint()
        for _ in range(2):
            nursery.start_soon(collect, filed.files)
    assert await kept(filed) == set()


async def test_a_fill_that_is_refused_holds_nothing(filed: Store) -> None:
    asset, stored = await filled(filed, await a_world(filed), "1", b"x")
    other = await a_file(filed.files, b"other")
    with pytest.raises(FileExists):
        await filed.assets.fill(asset, other.hash, other.size)
    with pytest.raises(AssetNotFound):
        await filed.assets.fill("f_none", other.hash, other.size)
    assert await rows(filed) == {stored.hash}
