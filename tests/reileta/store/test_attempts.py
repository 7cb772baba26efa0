"""Attempts are counted exactly, whichever process asks."""

from __future__ import annotations

import trio

from reileta.rules.ratelimit import Rate
from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.conftest import ManualClock

SLOW = Rate(per_s=0.001, burst=5)
"""So slow that nothing comes back during a test."""


async def test_two_processes_at_once_get_one_burst_in_all(
    store: Store, database_url: str, clock: ManualClock
) -> None:
    waits: list[float] = []

    async def try_it(process: Store) -> None:
        waits.append(await process.attempts.take("ada", SLOW))

    async with open_store(Settings(database=database_url), clock) as other:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(try_it, store)
                nursery.start_soon(try_it, other)
        assert waits.count(0) == SLOW.burst
        wait_s = await other.attempts.take("ada", SLOW)
        assert 900 < wait_s <= 1000
        assert await store.attempts.take("ben", SLOW) == 0


async def test_an_attempt_that_is_given_back_does_not_count(store: Store) -> None:
    for _ in range(20):
        assert await store.attempts.take("ada", SLOW) == 0
        await store.attempts.give_back("ada", SLOW)
    for _ in range(SLOW.burst):
        assert await store.attempts.take("ada", SLOW) == 0
    assert await store.attempts.take("ada", SLOW) > 0


async def test_the_allowance_comes_back_by_the_databases_clock(store: Store) -> None:
    fast = Rate(per_s=1e9, burst=1)
    for _ in range(3):
        assert await store.attempts.take("ada", fast) == 0


async def test_keys_that_are_full_again_are_deleted(store: Store) -> None:
    await store.attempts.take("over", Rate(per_s=1e9, burst=1))
    await store.attempts.take("busy", SLOW)
    assert await store.attempts.sweep() == 1
    assert await store.database.value("SELECT count(*) FROM attempts") == 1


async def test_no_name_is_stored(store: Store) -> None:
    await store.attempts.take("here ada 192.0.2.1", SLOW)
    assert await store.attempts.take("\ud800", SLOW) == 0
    keys = await store.database.fetch("SELECT key FROM attempts")
    assert all(len(row["key"]) == 16 and b"ada" not in row["key"] for row in keys)
