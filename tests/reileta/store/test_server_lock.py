"""One server for a database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from structlog.testing import capture_logs

from reileta.errors import DatabaseUnavailable
from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import Store, open_store
from reileta.store.database import Database, Loop, asyncio_loop
from reileta.store.server_lock import ServerLock
from tests.conftest import PATIENCE_S, ManualClock
from tests.reileta.store.test_instances import make


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    async with asyncio_loop() as loop:
        yield loop


async def cut_all(database: Database) -> None:
    await database.fetch(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_a_second_server_is_refused_before_it_changes_anything(
    empty_database_url: str,
    loop: Loop,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Database(loop, empty_database_url, connections=1)
    first = ServerLock(database)
    await first.take()
    with monkeypatch.context() as impatient:
        impatient.setattr("reileta.store.server_lock.WAIT_S", 0.0)
        with pytest.raises(StartupError, match="another server uses the database"):
            async with open_store(Settings(database=empty_database_url), clock, exclusive=True):
                pytest.fail("two servers on one database")
    assert await database.value("SELECT to_regclass('schema_migrations')") is None
    await first.release()
    async with open_store(Settings(database=empty_database_url), clock, exclusive=True) as store:
        assert not store.lock.lost
    await database.close()


async def test_others_need_no_lock(database_url: str, loop: Loop, clock: ManualClock) -> None:
    database = Database(loop, database_url, connections=1)
    lock = ServerLock(database)
    await lock.take()
    async with open_store(Settings(database=database_url), clock) as store:
        assert not store.lock.lost
    await lock.release()
    await database.close()


async def test_it_is_taken_again_after_an_outage(database_url: str, loop: Loop) -> None:
    database = Database(loop, database_url, connections=1)
    lock = ServerLock(database)
    await lock.take()
    lost = [lock.lost]
    await cut_all(database)
    for _ in range(2):
        await lock.watch()
        lost.append(lock.lost)
    assert lost == [False, True, False]
    assert not lock.superseded
    await lock.release()
    await database.close()


async def test_a_server_that_was_paused_knows_when_it_asks(database_url: str, loop: Loop) -> None:
    """Its own watch comes later than its sweep."""
    database = Database(loop, database_url, connections=1)
    first, second = ServerLock(database), ServerLock(database)
    assert await first.held()  # it does not want it
    await first.take()
    assert await first.held()
    await cut_all(database)
    await second.take()
    assert not first.lost
    assert not await first.held()
    with capture_logs() as logs:
        for _ in range(3):
            assert not await first.held()
    assert [line["event"] for line in logs].count("database.superseded") == 1
    await second.release()
    assert await first.held()
    await first.release()
    await database.close()


async def test_a_server_that_was_slower_after_an_outage_knows(
    database_url: str, loop: Loop
) -> None:
    database = Database(loop, database_url, connections=1)
    first, second = ServerLock(database), ServerLock(database)
    await first.take()
    await cut_all(database)
    await second.take()
    await first.watch()
    await first.watch()
    assert (first.lost, first.superseded) == (True, True)
    await second.release()
    await first.watch()
    assert (first.lost, first.superseded) == (False, False)
    await first.release()
    await database.close()


async def test_writes_of_a_server_that_was_superseded_meanwhile_have_no_effect(
    database_url: str, loop: Loop, clock: ManualClock
) -> None:
    """It looked at the lock, and was paused before its write."""
    async with open_store(Settings(database=database_url), clock, exclusive=True) as first:
        room = await make(first, "room")
        await first.instances.occupied(room.id, None, entered=True)
        assert await first.lock.held()
        await cut_all(first.database)
        second = Database(loop, database_url, connections=1)
        lock = ServerLock(second)
        await lock.take()
        with pytest.raises(DatabaseUnavailable):
            async with first.lock.session() as queries:
                await first.instances.over(queries).mark_empty(room.id, clock.now_ms())
        assert await first.instances.in_use() == [room.id]
        assert not await first.lock.held()
        with pytest.raises(DatabaseUnavailable):
            async with first.lock.session():
                pytest.fail("it has no lock")
        await lock.release()
        assert await first.lock.held()
        async with first.lock.session() as queries:
            await first.instances.over(queries).mark_empty(room.id, clock.now_ms())
        assert await first.instances.in_use() == []
        await second.close()


async def test_a_store_that_wants_no_lock_writes_without_one(
    store: Store, clock: ManualClock
) -> None:
    room = await make(store, "room")
    await store.instances.occupied(room.id, None, entered=True)
    async with store.lock.session() as queries:
        await store.instances.over(queries).mark_empty(room.id, clock.now_ms())
    assert await store.instances.in_use() == []


async def test_a_chore_is_done_by_one_node_of_a_cluster_at_a_time(
    database_url: str, loop: Loop
) -> None:
    async with AsyncExitStack() as stack:
        locks = []
        for _ in range(2):
            database = Database(loop, database_url, connections=2)
            stack.push_async_callback(database.close)
            locks.append(ServerLock(database, shared=True))
            await locks[-1].take()
            stack.push_async_callback(locks[-1].release)
        one, two = locks
        files, guests = two.alone("files"), two.alone("audit")
        async with one.alone("files") as first, files as second, guests as other:
            assert (first, second, other) == (True, False, True)
        async with two.alone("files") as later:
            assert later
            await two.release()  # its session ends, as in an outage, soon after
            taken = False
            with trio.fail_after(PATIENCE_S):
                while not taken:
                    async with one.alone("files") as taken:
                        await trio.sleep(0.01)


@pytest.mark.parametrize("chore", ["audit", "files", "guests", "sweep", "leases", "cards"])
async def test_every_chore_has_a_lock(database_url: str, loop: Loop, chore: str) -> None:
    """Whatever number its name makes."""
    database = Database(loop, database_url, connections=2)
    lock = ServerLock(database, shared=True)
    await lock.take()
    async with lock.alone(chore) as alone:
        assert alone
    await lock.release()
    await database.close()


async def test_a_server_alone_does_every_chore(database_url: str, loop: Loop) -> None:
    database = Database(loop, database_url, connections=1)
    async with ServerLock(database).alone("files") as alone:
        assert alone
    await database.close()


async def test_each_chore_has_a_number_that_postgresql_takes(database_url: str, loop: Loop) -> None:
    database = Database(loop, database_url, connections=1)
    lock = ServerLock(database, shared=True)
    await lock.take()
    for chore in ("audit", "files", "guests", "suspensions", "tokens", "challenges"):
        async with lock.alone(chore) as alone:
            assert alone
    await lock.release()
    await database.close()


async def test_nodes_of_a_cluster_share_it_and_keep_others_away(
    database_url: str, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.server_lock.WAIT_S", 0.0)
    database = Database(loop, database_url, connections=1)
    one, two = (ServerLock(database, shared=True) for _ in range(2))
    lone = ServerLock(database)
    await one.take()
    await two.take()
    with pytest.raises(StartupError, match="another server uses the database"):
        await lone.take()
    await one.release()
    await two.release()
    await lone.take()
    with pytest.raises(StartupError, match="uses the database alone"):
        await one.take()
    await lone.release()
    await database.close()
