"""What the tests of files and of their rows ask and bring about."""

from __future__ import annotations

from pathlib import Path

import trio

from reileta.media.files import Stored
from reileta.media.files.local import LocalFiles
from reileta.records import World
from reileta.store import Store
from tests.reileta.store.records import a_file, an_asset

FOREVER = 2**62
"""A time after all files: nothing is too young to be collected."""


async def kept(store: Store) -> set[str]:
    return {file.hash for file in await store.files.listed("", 1000)}


async def rows(store: Store) -> set[str]:
    return {row["hash"] for row in await store.database.fetch("SELECT hash FROM blobs")}


async def filled(store: Store, world: World, version: str, data: bytes) -> tuple[str, Stored]:
    asset = await an_asset(store, world, version)
    stored = await a_file(store.files, data)
    await store.assets.fill(asset.id, stored.hash, stored.size)
    return asset.id, stored


class Pausing(LocalFiles):
    """Stops where a collection has removed its file, and where a reference looks for its file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reached = trio.Event()
        self.go = trio.Event()

    async def _pause(self) -> None:
        self.reached.set()
        await self.go.wait()

    async def remove(self, hash_: str, *, placed_before_ms: int | None) -> bool:
        removed = await super().remove(hash_, placed_before_ms=placed_before_ms)
        await self._pause()
        return removed

    async def has(self, hash_: str) -> bool:
        await self._pause()
        return await super().has(hash_)
