"""Nothing is left on the disk that no asset and no picture is of, whichever way it came free."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from reileta.errors import StorageUnavailable
from reileta.media.files import FileUpload
from reileta.media.files.local import LocalFiles
from reileta.records import Asset
from reileta.store.assets import Assets
from reileta.store.images import Images
from tests.api.clients import PASSWORD, Answer, Client
from tests.api.fakes import FakeNode
from tests.api.pngs import png

BUILD = {"version": "1.2", "engine": "unity", "platform": "windows"}


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[], int]:
    """How many files there are, in place or on their way."""
    return lambda: sum(path.is_file() for path in (tmp_path / "files").rglob("*"))


Count = Callable[[], int]


async def a_world(client: Client) -> str:
    return f"/api/worlds/{(await client.put('/api/worlds', {'title': 'Harbour'})).data['id']}"


async def an_asset(client: Client, world: str, version: str = "1") -> str:
    made = await client.put(f"{world}/assets", {**BUILD, "version": version})
    return f"{world}/assets/{made.data['id']}"


async def deleted(client: Client) -> Answer:
    return await client.ask("DELETE", "/api/users/@me", {"current_password": PASSWORD})


async def sent(client: Client, path: str, raw: bytes) -> Answer:
    return await client.ask(
        "POST", path, raw=raw, headers={"Content-Type": "application/octet-stream"}
    )


async def test_an_asset_that_is_deleted(ada: Client, on_disk: Count) -> None:
    world = await a_world(ada)
    for turn in range(3):
        asset = await an_asset(ada, world)
        assert (await sent(ada, f"{asset}/file", b"%d" % turn)).status == 200
        assert on_disk() == 1
        assert (await ada.delete(asset)).status == 200
        assert on_disk() == 0


async def test_what_another_asset_is_of_as_well_stays(
    ada: Client, bob: Client, on_disk: Count
) -> None:
    mine = await an_asset(ada, await a_world(ada))
    bobs = await an_asset(bob, await a_world(bob))
    for client, asset in ((ada, mine), (bob, bobs)):
        assert (await sent(client, f"{asset}/file", b"same")).status == 200
    assert (await ada.delete(mine)).status == 200
    assert (await bob.get(f"{bobs}/file")).raw == b"same"
    assert (await bob.delete(bobs)).status == 200
    assert on_disk() == 0


async def test_uploads_at_once_of_which_one_wins(
    ada: Client, on_disk: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = await an_asset(ada, await a_world(ada))
    answers: list[Answer] = []
    waiting, all_there = 0, trio.Event()
    room = Assets.room

    async def together(self: Assets, owner: str) -> int:
        nonlocal waiting
        waiting += 1
        if waiting == 5:
            all_there.set()
        await all_there.wait()
        return await room(self, owner)

    async def send(raw: bytes) -> None:
        answers.append(await sent(ada, f"{asset}/file", raw))

    monkeypatch.setattr(Assets, "room", together)
    async with trio.open_nursery() as nursery:
        for raw in (b"a", b"a", b"b", b"b", b"c"):
            nursery.start_soon(send, raw)
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
    assert on_disk() == 1
    (won,) = (answer.data for answer in answers if answer.status == 200)
    assert won["size"] == len((await ada.get(f"{asset}/file")).raw) == 1


def before(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, act: Any) -> None:
    """Has `act` awaited before that method does its work."""
    method = getattr(kind, name)

    async def acted(self: object, *args: Any, **named: Any) -> Any:
        await act()
        return await method(self, *args, **named)

    monkeypatch.setattr(kind, name, acted)


async def test_an_upload_whose_world_goes_meanwhile(
    node: FakeNode, ada: Client, on_disk: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(ada)
    asset = await an_asset(ada, world)

    async def gone() -> None:
        await node.store.worlds.delete(world.rpartition("/")[2])

    before(monkeypatch, Assets, "room", gone)
    answer = await sent(ada, f"{asset}/file", b"x")
    assert (answer.status, answer.code) == (404, 25)
    assert on_disk() == 0


@pytest.mark.parametrize("picture", [False, True])
async def test_an_upload_that_is_cancelled(
    ada: Client, on_disk: Count, monkeypatch: pytest.MonkeyPatch, picture: bool
) -> None:
    path = "/api/users/@me/banner" if picture else f"{await an_asset(ada, await a_world(ada))}/file"
    with trio.CancelScope() as scope:

        async def cancel() -> None:
            assert on_disk() == 1
            scope.cancel()
            await trio.sleep_forever()

        before(monkeypatch, Images if picture else Assets, "put" if picture else "fill", cancel)
        await sent(ada, path, png())
    assert scope.cancelled_caught
    assert on_disk() == 0


async def test_a_reference_whose_commit_was_cancelled_keeps_its_file(
    ada: Client, on_disk: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = await an_asset(ada, await a_world(ada))
    fill = Assets.fill
    with trio.CancelScope() as scope:

        async def filled(self: Assets, id_: str, hash_: str, size: int) -> Asset:
            done = await fill(self, id_, hash_, size)
            scope.cancel()  # the commit is on its way: that is not to be cancelled
            return done

        monkeypatch.setattr(Assets, "fill", filled)
        await sent(ada, f"{asset}/file", b"x")
    assert on_disk() == 1
    assert (await ada.get(f"{asset}/file")).raw == b"x"


@pytest.mark.parametrize("of", ["user", "world"])
async def test_a_picture_that_is_replaced_or_taken_away(
    ada: Client, on_disk: Count, of: str
) -> None:
    path = f"{await a_world(ada) if of == 'world' else '/api/users/@me'}/thumbnail"
    for side in (3, 4, 4, 5):
        assert (await sent(ada, path, png(side, side))).status == 200
        assert on_disk() == 1
        assert (await ada.get(path)).status == 200
    assert (await ada.delete(path)).status == 200
    assert on_disk() == 0


async def test_a_picture_that_is_another_as_well_stays(ada: Client, on_disk: Count) -> None:
    thumbnail, banner = "/api/users/@me/thumbnail", "/api/users/@me/banner"
    for path in (thumbnail, banner):
        await sent(ada, path, png())
    await ada.delete(thumbnail)
    assert (await ada.get(banner)).status == 200
    await sent(ada, thumbnail, png())
    await sent(ada, thumbnail, png(9, 9))
    assert (await ada.get(banner)).status == 200
    assert on_disk() == 2


async def test_a_picture_that_is_replaced_before_its_upload_has_ended(
    ada: Client, on_disk: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, upload = "/api/users/@me/banner", LocalFiles.upload
    uploads = 0

    @asynccontextmanager
    async def slow(files: LocalFiles, limit_bytes: int) -> AsyncIterator[FileUpload]:
        nonlocal uploads
        uploads += 1
        first = uploads == 1
        async with upload(files, limit_bytes) as begun:
            yield begun
            if first:
                await sent(ada, path, png(4, 4))

    monkeypatch.setattr(LocalFiles, "upload", slow)
    assert (await sent(ada, path, png(2, 2))).status == 200
    assert uploads == 2
    assert on_disk() == 1


async def test_pictures_at_once(ada: Client, on_disk: Count) -> None:
    async with trio.open_nursery() as nursery:
        for side in (2, 3, 4, 5, 2):
            nursery.start_soon(sent, ada, "/api/users/@me/banner", png(side, side))
    assert on_disk() == 1
    assert (await ada.get("/api/users/@me/banner")).status == 200


async def test_a_world_that_is_deleted(ada: Client, on_disk: Count) -> None:
    world, other = await a_world(ada), await a_world(ada)
    for version in ("1", "2"):
        await sent(ada, f"{await an_asset(ada, world, version)}/file", version.encode())
    await sent(ada, f"{world}/thumbnail", png())
    kept = await an_asset(ada, other)
    await sent(ada, f"{kept}/file", b"2")
    assert on_disk() == 3
    assert (await ada.delete(world)).status == 200
    assert on_disk() == 1
    assert (await ada.get(f"{kept}/file")).raw == b"2"


async def test_a_user_that_is_deleted(ada: Client, bob: Client, on_disk: Count) -> None:
    for client, side in ((ada, 3), (bob, 3), (ada, 4)):
        kind = "banner" if side == 4 else "thumbnail"
        await sent(client, f"/api/users/@me/{kind}", png(side, side))
    assert on_disk() == 2
    assert (await deleted(ada)).status == 200
    assert on_disk() == 1
    assert (await bob.get("/api/users/@me/thumbnail")).status == 200


async def test_a_disk_that_keeps_it_fails_no_request(
    node: FakeNode, ada: Client, on_disk: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await a_world(ada)
    asset = await an_asset(ada, world)
    await sent(ada, f"{asset}/file", b"x")
    await sent(ada, "/api/users/@me/banner", png())

    async def broken(self: LocalFiles, hash_: str, *, placed_before_ms: int | None) -> bool:
        raise StorageUnavailable

    ways: list[Callable[[], Awaitable[Answer]]] = [
        lambda: sent(ada, "/api/users/@me/banner", png(9, 9)),
        lambda: ada.delete("/api/users/@me/banner"),
        lambda: ada.delete(asset),
        lambda: ada.delete(world),
        lambda: deleted(ada),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(LocalFiles, "remove", broken)
        for way in ways:
            assert (await way()).status == 200
    assert on_disk() == 3
    assert await node.store.blobs.collect(2**62) == 3
    assert on_disk() == 0
