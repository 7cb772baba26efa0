from __future__ import annotations

import re
from importlib import resources

import pytest
import trio
from structlog.testing import capture_logs

from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import Store, open_store
from reileta.store.database import Database, asyncio_loop
from reileta.store.migrate import Migration, check_schema, known_migrations, migrate
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


def test_every_migration_states_with_which_versions_it_is_compatible() -> None:
    for migration in known_migrations():
        stated = f"-- compatible_from: {migration.compatible_from}\n"
        assert migration.sql.startswith(stated), migration.name
        assert 1 <= migration.compatible_from <= migration.version, migration.name


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


LATER = Migration(9001, "9001_later.sql", "-- compatible_from: 9000\nCREATE TABLE later ()")
"""Of a version after one that knows 9000."""


def knows(version: int) -> list[Migration]:
    """The migrations of a version that knows them up to that number."""
    return [*known_migrations(), Migration(version, f"{version}_own.sql", "SELECT 1")]


async def test_an_older_version_runs_on_a_newer_database_that_is_compatible(
    store: Store, clock: ManualClock
) -> None:
    await migrate(store.database, clock, [*knows(9000), LATER])
    with capture_logs() as logs:
        assert await migrate(store.database, clock, knows(9000)) == 9001
    assert [line["event"] for line in logs] == ["database.newer"]
    await check_schema(store.database, knows(9000))
    assert (await applied(store))[-2:] == [9000, 9001]


async def test_one_migration_that_is_not_compatible_is_enough_to_refuse(
    store: Store, clock: ManualClock
) -> None:
    last = Migration(9002, "9002_last.sql", "-- compatible_from: 9000\nSELECT 1")
    between = Migration(9001, "9001_between.sql", "SELECT 1")
    await migrate(store.database, clock, [*knows(9000), between, last])
    for use in (
        migrate(store.database, clock, knows(9000)),
        check_schema(store.database, knows(9000)),
    ):
        with pytest.raises(StartupError, match=r"newer version of Reileta.*9002.*9001.*9000"):
            await use
    assert await migrate(store.database, clock, [*knows(9000), between]) == 9002


async def test_a_database_from_before_compatibility_was_stated_learns_it(
    store: Store, clock: ManualClock
) -> None:
    await store.database.execute("ALTER TABLE schema_migrations DROP COLUMN compatible_from")
    known = known_migrations()
    await migrate(store.database, clock, known)
    rows = await store.database.fetch("SELECT * FROM schema_migrations ORDER BY version")
    assert [row["compatible_from"] for row in rows] == [one.compatible_from for one in known]


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


async def test_references_to_other_servers_lose_their_default_ports(
    empty_database_url: str, clock: ManualClock
) -> None:
    """Version 0.1.0 stored `u_…@play.example.org:443` and `u_…@play.example.org` as two users."""
    known = known_migrations()
    before = [
        *("u_2@a.example:443", "u_2@a.example:80", "u_3@b.example", "u_3@b.example:80"),
        *("u_4@[::1]:443", "u_5@c.example:8443", "u_6@[fe80::443]", "u_7"),
    ]
    after = [
        *("u_2@a.example", "u_3@b.example", "u_4@[::1]", "u_5@c.example:8443"),
        *("u_6@[fe80::443]", "u_7"),
    ]
    async with asyncio_loop() as loop:
        database = Database(loop, empty_database_url, connections=2)
        try:
            await migrate(database, clock, [one for one in known if one.version < 10])
            await database.execute(
                "INSERT INTO users (id, username, displayname, home, created_at, updated_at) "
                "VALUES ('u_1', 'ann', 'Ann', 'w_1:2@a.example:443', 0, 0)"
            )
            await database.execute(
                "INSERT INTO instances (id, name, world, owner, capacity, created_at, updated_at) "
                "VALUES ('i_1', 'hall', 'w_1', 'u_1', 4, 0, 0)"
            )
            for insert in (
                "INSERT INTO follows (follower, followed, following_at) VALUES ('u_1', $1, 0)",
                "INSERT INTO bans VALUES ('i_1', $1, NULL, NULL, 'u_1', 0)",
                "INSERT INTO moderators VALUES ('i_1', $1, 'u_1', DEFAULT, 0)",
            ):
                for reference in before:
                    await database.execute(insert, reference)
            await migrate(database, clock, known)
            for select in (
                "SELECT followed AS reference FROM follows ORDER BY 1",
                "SELECT user_ref AS reference FROM bans ORDER BY 1",
                "SELECT user_ref AS reference FROM moderators ORDER BY 1",
            ):
                rows = await database.fetch(select)
                assert [row["reference"] for row in rows] == after
            assert await database.value("SELECT home FROM users") == "w_1:2@a.example"
        finally:
            await database.close()
