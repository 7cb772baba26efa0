from __future__ import annotations

import pytest
import trio

from reileta.errors import FileNotUploaded, StorageUnavailable, UserNotFound, WorldNotFound
from reileta.ids import new_id
from reileta.media.files import Stored
from reileta.records import Image
from reileta.store import Store
from reileta.store.images import ImageKind
from tests.conftest import ManualClock
from tests.reileta.store.records import a_file, a_user, a_world


async def put(store: Store, of: str, kind: ImageKind = "thumbnail", data: bytes = b"png") -> Image:
    stored = await a_file(store.files, data)
    image, _ = await store.images.put(
        of, kind, hash_=stored.hash, size=stored.size, width=4, height=3
    )
    return image


async def test_users_and_worlds_have_pictures(filed: Store, clock: ManualClock) -> None:
    ada = await a_user(filed)
    world = await a_world(filed, ada.id)
    thumbnail = await put(filed, ada.id)
    assert thumbnail == Image(thumbnail.hash, 4, 3, clock.now_ms())
    banner = await put(filed, ada.id, "banner", b"banner")
    view = await put(filed, world.id, data=b"view")
    assert await filed.images.get(ada.id, "thumbnail") == thumbnail
    assert await filed.images.get(ada.id, "banner") == banner
    assert await filed.images.get(world.id, "thumbnail") == view
    assert await filed.images.get(world.id, "banner") is None
    assert await filed.images.of_many([ada.id, world.id, new_id("w")]) == {
        (ada.id, "thumbnail"): thumbnail,
        (ada.id, "banner"): banner,
        (world.id, "thumbnail"): view,
    }
    assert await filed.images.of_many([]) == {}


async def test_a_new_picture_takes_the_place_of_the_old(filed: Store, clock: ManualClock) -> None:
    ada = await a_user(filed)
    world = await a_world(filed)
    stored = await a_file(filed.files, b"new")
    for of in (ada.id, world.id):
        old = await put(filed, of)
        clock.advance(5)
        again: list[frozenset[str]] = []
        for _ in range(2):
            new, freed = await filed.images.put(
                of, "thumbnail", hash_=stored.hash, size=stored.size, width=4, height=3
            )
            again.append(freed)
            assert await filed.images.get(of, "thumbnail") == new != old
        assert again == [{old.hash}, set()]


async def test_of_pictures_at_once_one_stays(filed: Store) -> None:
    ada = await a_user(filed)
    files = [await a_file(filed.files, b"%d" % number) for number in range(8)]
    freed: list[str] = []

    async def put_one(file: Stored) -> None:
        _, before = await filed.images.put(
            ada.id, "thumbnail", hash_=file.hash, size=file.size, width=4, height=3
        )
        freed.extend(before)

    async with trio.open_nursery() as nursery:
        for file in files:
            nursery.start_soon(put_one, file)
    (left,) = (await filed.images.of_many([ada.id])).values()
    assert sorted([*freed, left.hash]) == sorted(file.hash for file in files)


async def test_a_picture_is_removed_once(filed: Store) -> None:
    ada = await a_user(filed)
    picture = await put(filed, ada.id)
    with pytest.raises(FileNotUploaded):
        await filed.images.remove(ada.id, "banner")
    assert await filed.images.remove(ada.id, "thumbnail") == {picture.hash}
    with pytest.raises(FileNotUploaded):
        await filed.images.remove(ada.id, "thumbnail")


async def test_nobody_has_no_picture(filed: Store) -> None:
    with pytest.raises(UserNotFound):
        await put(filed, new_id("u"))
    with pytest.raises(WorldNotFound):
        await put(filed, new_id("w"))
    assert await filed.database.value("SELECT count(*) FROM blobs") == 0


async def test_a_picture_needs_its_file(filed: Store) -> None:
    ada = await a_user(filed)
    with pytest.raises(StorageUnavailable):
        await filed.images.put(ada.id, "thumbnail", hash_="0" * 64, size=1, width=1, height=1)
    assert await filed.images.get(ada.id, "thumbnail") is None


async def test_pictures_go_with_whose_they_are(filed: Store) -> None:
    await filed.users.ensure_system_accounts(trio_hash)
    ada = await a_user(filed)
    world = await a_world(filed, ada.id)
    mine = await put(filed, ada.id)
    view = await put(filed, world.id, data=b"view")
    assert (await filed.users.delete(ada.id)).files == {mine.hash}
    assert list(await filed.images.of_many([ada.id, world.id])) == [(world.id, "thumbnail")]
    assert await filed.worlds.delete(world.id) == {view.hash}
    assert await filed.images.of_many([ada.id, world.id]) == {}


async def trio_hash(password: str) -> str:
    await trio.lowlevel.checkpoint()
    return "hash"
