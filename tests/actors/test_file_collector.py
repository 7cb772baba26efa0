"""What nobody wants goes, in time; what somebody wants never does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import trio
import trio.testing

from actors.file_collector import ADOPTED_EVERY_S, AGAIN_S, EVERY_S, SPARED_MS, FileCollector
from reileta.errors import DatabaseUnavailable, StorageUnavailable
from tests.conftest import ManualClock


@dataclass
class Files:
    """`files`, `blobs` and `lock`; what was asked of the former stands in `asked`."""

    asked: list[str] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)
    locked: bool = True
    elsewhere: bool = False
    """Whether another node of the cluster collects."""

    @asynccontextmanager
    async def alone(self, chore: str) -> AsyncIterator[bool]:
        assert chore == "files"
        yield not self.elsewhere

    async def held(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.locked

    async def _ask(self, what: str) -> int:
        await trio.lowlevel.checkpoint()
        if self.failing:
            raise self.failing.pop(0)
        self.asked.append(what)
        return 1

    async def sweep(self) -> int:
        return await self._ask("sweep")

    async def adopt(self) -> int:
        return await self._ask("adopt")

    async def collect(self, before_ms: int, *, placed_before_ms: int) -> int:
        return await self._ask(f"collect {before_ms} {placed_before_ms}")


def collector(files: Files, clock: ManualClock) -> FileCollector:
    """Its file system's clock is an hour behind."""
    some, behind = cast(Any, files), ManualClock(clock.now_ms() - 3_600_000)
    return FileCollector(some, some, some, clock, behind)


async def test_a_server_that_has_lost_its_lock_collects_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    files = Files(locked=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector(files, ManualClock()).run)
        await trio.sleep(EVERY_S * 2.5)
        assert files.asked == []
        files.locked = True
        await trio.sleep(EVERY_S)
        nursery.cancel_scope.cancel()
    assert [what.split()[0] for what in files.asked] == ["sweep", "adopt", "collect"]


async def test_of_a_cluster_one_node_at_a_time_collects(
    autojump_clock: trio.testing.MockClock,
) -> None:
    files = Files(elsewhere=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collector(files, ManualClock()).run)
        await trio.sleep(EVERY_S * 2.5)
        assert files.asked == []
        files.elsewhere = False
        await trio.sleep(EVERY_S)
        nursery.cancel_scope.cancel()
    assert [what.split()[0] for what in files.asked] == ["sweep", "adopt", "collect"]


async def test_it_begins_once_and_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    files, clock = Files(), ManualClock()
    before = clock.now_ms() - SPARED_MS
    with trio.move_on_after(EVERY_S * 2.5):
        await collector(files, clock).run()
    assert files.asked == ["sweep", "adopt", *[f"collect {before} {before - 3_600_000}"] * 3]


async def test_what_is_not_written_down_is_looked_for_now_and_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    files = Files()
    with trio.move_on_after(ADOPTED_EVERY_S * 1.5):
        await collector(files, ManualClock()).run()
    collected_between = round(ADOPTED_EVERY_S / EVERY_S)
    kinds = [what.split()[0] for what in files.asked]
    assert kinds[: collected_between + 4] == [
        "sweep",
        "adopt",
        *["collect"] * collected_between,
        "adopt",
        "collect",
    ]
    assert kinds.count("adopt") == 2


async def test_what_is_away_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    files, clock = Files(failing=[StorageUnavailable(), DatabaseUnavailable()]), ManualClock()
    with trio.move_on_after(AGAIN_S * 2.5):
        await collector(files, clock).run()
    assert [what.split()[0] for what in files.asked] == ["sweep", "adopt", "collect"]
