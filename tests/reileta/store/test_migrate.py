from __future__ import annotations

import re
from importlib import resources

import pytest
import trio

from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import Store, open_store
from reileta.store.migrate import Migration, known_migrations, migrate
from tests.conftest import ManualClock


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    known = known_migrations()
    assert [migration.version for migration in known] == list(range(1, len(known) + 1))
    assert known[0].name == "0001_foundation.sql"
    assert "CREATE TABLE users" in known[0].sql


def test_every_sql_file_is_a_migration() -> None:
    files = [file.name for file in resources.files("reileta.store.migrations").iterdir()]
    sql = sorted(name for name in files if name.endswith(".sql"))
    assert sql == [migration.name for migration in known_migrations()]
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in sql)


async def applied(store: Store) -> list[int]:
    rows = await store.database.fetch("SELECT version FROM schema_migrations ORDER BY version")
    return [row["version"] for row in rows]


async def test_an_empty_database_gets_them_all(empty_database_url: str, clock: ManualClock) -> None:
    async with open_store(Settings(database=empty_database_url), clock) as store:
        assert await applied(store) == [migration.version for migration in known_migrations()]
        when = await store.database.value("SELECT applied_at FROM schema_migrations")
        assert when == clock.now_ms()


async def test_each_is_applied_once(store: Store, clock: ManualClock) -> None:
    known = [*known_migrations(), Migration(9001, "9001_x.sql", "CREATE TABLE x (); SELECT 1")]
    assert await migrate(store.database, clock, known) == 9001
    assert await migrate(store.database, clock, known) == 9001
    assert (await applied(store))[-1] == 9001


async def test_a_migration_that_fails_leaves_nothing_behind(
    store: Store, clock: ManualClock
) -> None:
    before = await applied(store)
    good = Migration(9001, "9001_good.sql", "CREATE TABLE good ()")
    bad = Migration(9002, "9002_bad.sql", "CREATE TABLE bad (); SELECT 1 / 0")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(store.database, clock, [*known_migrations(), good, bad])
    assert await applied(store) == [*before, 9001]
    assert await store.database.value("SELECT to_regclass('bad')") is None
    assert await migrate(store.database, clock, [*known_migrations(), good]) == 9001


async def test_servers_that_start_at_once_apply_them_once(
    empty_database_url: str, clock: ManualClock
) -> None:
    async def start() -> None:
        async with open_store(Settings(database=empty_database_url), clock) as store:
            assert len(await applied(store)) == len(known_migrations())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(start)


async def test_a_database_of_a_newer_version_is_left_alone(
    store: Store, database_url: str, clock: ManualClock
) -> None:
    await store.database.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 0)")
    with pytest.raises(StartupError, match=r"newer version of Reileta.*9999"):
        async with open_store(Settings(database=database_url), clock):
            pytest.fail("it can't be opened")
    assert (await applied(store))[-1] == 9999


async def test_a_database_that_is_not_there_is_said_in_one_line(
    database_url: str, clock: ManualClock
) -> None:
    url = database_url.replace("/test_", "/not_there_")
    with pytest.raises(StartupError, match=r'database "not_there_.*" does not exist') as caught:
        async with open_store(Settings(database=url), clock):
            pytest.fail("it can't be opened")
    assert "\n" not in str(caught.value)


async def test_searches_have_their_index(store: Store) -> None:
    indexes = await store.database.fetch(
        "SELECT indexname FROM pg_indexes WHERE indexname LIKE '%haystack'"
    )
    assert len(indexes) == 4


async def test_a_database_without_trigrams_goes_without(
    empty_database_url: str, clock: ManualClock
) -> None:
    async with open_store(Settings(database=empty_database_url), clock) as store:
        await store.database.execute("DROP EXTENSION pg_trgm CASCADE")
        await store.users.create(username="ada", displayname="Ada", password_hash=None)
        assert (await store.users.search(query="AD", limit=1, offset=0)).total == 1
