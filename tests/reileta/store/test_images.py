from __future__ import annotations

import pytest
import trio

from reileta.errors import StorageUnavailable, UserNotFound, WorldNotFound
from reileta.ids import new_id
from reileta.records import Image
from reileta.store import Store
from reileta.store.images import ImageKind
from tests.conftest import ManualClock
from tests.reileta.store.people import a_file, a_user, a_world


async def put(store: Store, of: str, kind: ImageKind = "thumbnail", data: bytes = b"png") -> Image:
    stored = await a_file(store.files, data)
    return await store.images.put(of, kind, hash_=stored.hash, size=stored.size, width=4, height=3)


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
    for of in (ada.id, world.id):
        old = await put(filed, of)
        clock.advance(5)
        new = await put(filed, of, data=b"new")
        assert await filed.images.get(of, "thumbnail") == new != old


async def test_of_pictures_at_once_one_stays(filed: Store) -> None:
    ada = await a_user(filed)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(put, filed, ada.id, "thumbnail", b"%d" % (number % 3))
    assert len(await filed.images.of_many([ada.id])) == 1


async def test_a_picture_is_removed_once(filed: Store) -> None:
    ada = await a_user(filed)
    await put(filed, ada.id)
    assert not await filed.images.remove(ada.id, "banner")
    assert await filed.images.remove(ada.id, "thumbnail")
    assert not await filed.images.remove(ada.id, "thumbnail")


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
    await put(filed, ada.id)
    await put(filed, world.id)
    await filed.users.delete(ada.id)
    assert list(await filed.images.of_many([ada.id, world.id])) == [(world.id, "thumbnail")]
    await filed.worlds.delete(world.id)
    assert await filed.images.of_many([ada.id, world.id]) == {}


async def trio_hash(password: str) -> str:
    await trio.lowlevel.checkpoint()
    return "hash"
