"""What nothing references any more goes at once; what somebody is about to reference stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from reileta.errors import FileExists, StorageUnavailable
from reileta.media.files.local import LocalFiles
from reileta.store import Store
from reileta.store.assets import Assets
from reileta.store.blobs import RELEASE_S, Blobs
from tests.conftest import ManualClock
from tests.reileta.store.blobs import FOREVER, Pausing, filled, kept, rows
from tests.reileta.store.records import a_file, a_user, a_world, an_asset, held_up


async def test_what_is_released_goes_at_once_unless_it_is_wanted(filed: Store) -> None:
    world, ada = await a_world(filed), await a_user(filed)
    first, build = await filled(filed, world, "1", b"same")
    second, _ = await filled(filed, world, "2", b"same")
    await filed.images.put(ada.id, "banner", hash_=build.hash, size=build.size, width=1, height=1)
    ways: list[Callable[[], Awaitable[frozenset[str]]]] = [
        lambda: filed.assets.delete(first),
        lambda: filed.assets.delete(second),
        lambda: filed.images.remove(ada.id, "banner"),
    ]
    for unwanted in ways:
        assert await filed.blobs.release({build.hash}) == 0
        assert await kept(filed) == await rows(filed) == {build.hash}
        assert await unwanted() == {build.hash}
    assert await filed.blobs.release({build.hash}) == 1
    assert await kept(filed) == await rows(filed) == set()
    # Neither a row nor a file, or no hash at all: nothing to be said about it.
    asked = filed.database.statements
    assert await filed.blobs.release(()) == 0
    assert filed.database.statements == asked
    await filed.blobs.release({build.hash})
    assert await rows(filed) == set()


async def test_a_file_without_a_row_is_released(filed: Store) -> None:
    stray = [await a_file(filed.files, b"%d" % number) for number in range(3)]
    assert await filed.blobs.release([file.hash for file in stray[:2]]) == 2
    assert await kept(filed) == {stray[2].hash}
    assert await rows(filed) == set()


async def test_what_an_upload_is_about_to_reference_is_not_released(filed: Store) -> None:
    world = await a_world(filed)
    old, stored = await filled(filed, world, "1", b"x")
    new = await an_asset(filed, world, "2")
    async with filed.files.upload(1) as upload:
        await upload.write(b"x")
        await upload.commit()
        assert await filed.assets.delete(old) == {stored.hash}
        assert await filed.blobs.release({stored.hash}) == 0
        assert await filed.blobs.collect(FOREVER) == 0
        await filed.assets.fill(new.id, stored.hash, stored.size)
    assert await filed.blobs.release({stored.hash}) == 0
    assert await kept(filed) == await rows(filed) == {stored.hash}


async def test_a_reference_waits_for_a_release_and_has_its_file(
    filed: Store, clock: ManualClock, tmp_path: Path
) -> None:
    """The file is removed; then an upload puts it in place anew."""
    world = await a_world(filed)
    old, stored = await filled(filed, world, "1", b"x")
    await filed.assets.delete(old)
    new = await an_asset(filed, world, "2")
    pausing = Pausing(tmp_path / "files")

    async def fill() -> None:
        async with filed.files.upload(1) as upload:
            await upload.write(b"x")
            await upload.commit()
            await filed.assets.fill(new.id, stored.hash, stored.size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Blobs(filed.database, clock, pausing).release, {stored.hash})
        await pausing.reached.wait()
        assert await kept(filed) == set()
        async with held_up(filed, fill):
            pausing.go.set()
    assert await rows(filed) == await kept(filed) == {stored.hash}


@pytest.mark.parametrize("known", [True, False])
async def test_a_release_waits_for_a_reference_and_leaves_its_file(
    filed: Store, clock: ManualClock, tmp_path: Path, known: bool
) -> None:
    """Here the locks alone protect the file: the upload's body is another process's."""
    world = await a_world(filed)
    stored = await a_file(filed.files, b"x")
    if known:
        await filed.blobs.adopt()
    new = await an_asset(filed, world)
    pausing = Pausing(tmp_path / "files")
    assets = Assets(
        filed.database, clock, Blobs(filed.database, clock, pausing), user_files_bytes=1000
    )

    async def release() -> None:
        assert await filed.blobs.release({stored.hash}) == 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(assets.fill, new.id, stored.hash, stored.size)
        await pausing.reached.wait()
        async with held_up(filed, release):
            pausing.go.set()
    assert await rows(filed) == await kept(filed) == {stored.hash}
    size = await filed.database.value("SELECT size FROM blobs")
    assert size == 1


async def test_what_is_loose_is_released_however_its_body_ends(filed: Store) -> None:
    files = [await a_file(filed.files, b"%d" % number) for number in range(3)]
    async with filed.blobs.releasing() as loose:
        loose.add(files[0].hash)
    assert await kept(filed) == {files[1].hash, files[2].hash}

    async def refused() -> None:
        async with filed.blobs.releasing() as loose:
            loose.add(files[1].hash)
            raise FileExists

    with pytest.raises(FileExists):
        await refused()
    assert await kept(filed) == {files[2].hash}
    with trio.CancelScope() as scope:
        async with filed.blobs.releasing() as loose:
            loose.add(files[2].hash)
            scope.cancel()
            await trio.sleep_forever()
    assert await kept(filed) == set()


async def test_what_can_not_be_removed_fails_nobody_and_is_collected(
    filed: Store, clock: ManualClock, tmp_path: Path
) -> None:
    class Broken(LocalFiles):
        async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
            raise StorageUnavailable

    stored = await a_file(filed.files, b"x")
    async with Blobs(filed.database, clock, Broken(tmp_path / "files")).releasing() as loose:
        loose.add(stored.hash)
    assert await kept(filed) == {stored.hash}
    assert await filed.blobs.adopt() == 1
    assert await filed.blobs.collect(FOREVER) == 1


async def test_a_release_takes_no_longer_than_it_may(
    filed: Store, clock: ManualClock, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    stored = await a_file(filed.files, b"x")
    pausing = Pausing(tmp_path / "files")

    async def release() -> None:
        async with Blobs(filed.database, clock, pausing).releasing() as loose:
            loose.add(stored.hash)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        await pausing.reached.wait()
        mock_clock.jump(RELEASE_S)
    assert await rows(filed) == set()
