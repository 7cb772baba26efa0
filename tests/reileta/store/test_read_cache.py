"""Rows are remembered until one of their tables is written to, and no moment longer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from reileta.errors import DatabaseUnavailable
from reileta.records import ADMIN_TAG, User
from reileta.settings import Settings
from reileta.store import Store, open_store, read_cache
from reileta.store.database import ConstraintBroken
from reileta.store.read_cache import TABLES, UNSETTLED_S, ReadCache, read_by, written_by
from tests.conftest import ManualClock

Rows = list[tuple[object, ...]]


class Seconds:
    """A clock that stands still until it is told to go on."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def reads(seconds: Seconds) -> ReadCache[tuple[object, ...]]:
    return ReadCache(enabled=True, monotonic=seconds)


@pytest.fixture
async def store(
    database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    """A store that caches rows for as long as the test runs."""
    monkeypatch.setattr(read_cache, "TTL_S", 3600)
    settings = Settings(database=database_url, read_cache="on")
    async with open_store(settings, clock) as store:
        yield store


async def asked(store: Store, *, user: str) -> int:
    """How many statements it takes to look the user up."""
    before = store.database.statements
    await store.users.by_id(user)
    return store.database.statements - before


async def made(store: Store, username: str) -> User:
    return await store.users.create(username=username, displayname=username, password_hash=None)


def test_what_a_statement_reads() -> None:
    assert read_by("SELECT * FROM users WHERE id = $1") == {"users"}
    assert read_by("SELECT 1 from Users u, images JOIN follows ON true") == {
        "users", "images", "follows",
    }  # fmt: skip
    assert read_by("SELECT 1") == set()


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM users WHERE id = $1", set()),
        ("SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", set()),
        ("SELECT created_at, updated_at FROM users", set()),
        ("WITH one AS (SELECT 1) SELECT * FROM users", set()),
        ("BEGIN", set()),
        ("SET LOCAL plan_cache_mode = force_custom_plan", set()),
        ("UPDATE users SET tags = $1", {"users"}),
        ("\n  update ONLY users SET tags = $1", {"users"}),
        ("INSERT INTO worlds (id) VALUES ($1) ON CONFLICT DO UPDATE SET id = $1", {"worlds"}),
        ("WITH a AS (INSERT INTO users VALUES (1)) INSERT INTO sessions VALUES (1)",
         {"users", "sessions", "leases", "visits"}),
        ("UPDATE sessions SET ended_at = $1", {"sessions", "leases", "visits"}),
        ("UPDATE tokens SET killed_at = $1", {"tokens", "visits"}),
        ("DELETE FROM follows WHERE follower = $1", TABLES),
        ("WITH gone AS (SELECT 1) DELETE FROM follows USING gone", TABLES),
        ("TRUNCATE users", TABLES),
        ("DO $$ BEGIN END $$", TABLES),
        ("VACUUM", TABLES),
    ],
)  # fmt: skip
def test_what_a_statement_writes(sql: str, tables: set[str]) -> None:
    assert written_by(sql) == tables


async def test_all_tables_are_known(store: Store) -> None:
    rows = await store.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in rows} - {"schema_migrations"} == TABLES


async def test_an_update_writes_no_other_table_than_is_known(store: Store) -> None:
    """A trigger or a foreign key that writes elsewhere on INSERT or UPDATE would go unseen."""
    keys = await store.database.fetch(
        "SELECT conname FROM pg_constraint WHERE contype = 'f' AND confupdtype <> 'a'"
    )
    assert keys == []
    triggers = await store.database.fetch(
        "SELECT DISTINCT tgname::text AS name, tgrelid::regclass::text AS table FROM pg_trigger "
        "WHERE NOT tgisinternal AND (tgtype & 20) > 0"  # INSERT or UPDATE
    )
    own = {"sessions_ending", "worlds_version", "resources_bytes"}  # of the same row
    # Into the change feed, of which nothing is ever remembered.
    feed = {"users_changed", "sessions_over", "tokens_killed", "instances_inherited"}
    feed |= {"audit_log_written", "server_rules_changed", "client_rules_changed"}
    beside = {"sessions_ended", "sessions_end_visits", "tokens_end_visits"}
    assert {row["name"] for row in triggers} == own | feed | beside


async def test_rows_are_read_once(reads: ReadCache[tuple[object, ...]]) -> None:
    read = 0

    async def look() -> Rows:
        nonlocal read
        read += 1
        return [(read,)]

    sql = "SELECT * FROM users WHERE id = ANY($1)"
    assert await reads.rows(sql, (["a"],), look) == [(1,)]
    assert await reads.rows(sql, (["a"],), look) == [(1,)]
    assert await reads.rows(sql, (["b"],), look) == [(2,)]
    with reads.writing(frozenset({"worlds"})):
        pass
    assert await reads.rows(sql, (["a"],), look) == [(1,)]
    with reads.writing(frozenset({"users", "worlds"})):
        # Not committed yet: what was before still holds.
        assert await reads.rows(sql, (["a"],), look) == [(1,)]
    assert await reads.rows(sql, (["a"],), look) == [(3,)]
    assert await reads.rows("SELECT now()", (), look) == [(4,)]
    assert await reads.rows("SELECT now()", (), look) == [(5,)]


async def test_what_was_read_while_it_changed_is_not_remembered(
    reads: ReadCache[tuple[object, ...]],
) -> None:
    async def late() -> Rows:
        with reads.writing(frozenset({"users"})):
            pass
        return [("before the change",)]

    async def look() -> Rows:
        return [("after it",)]

    assert await reads.rows("SELECT * FROM users", (), late) == [("before the change",)]
    assert await reads.rows("SELECT * FROM users", (), look) == [("after it",)]


async def test_a_write_that_was_cut_off_may_happen_a_moment_later(
    reads: ReadCache[tuple[object, ...]], seconds: Seconds
) -> None:
    with trio.CancelScope() as scope, reads.writing(frozenset({"users"})):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert reads.generation(["users"]) is None
    seconds.now_s = UNSETTLED_S
    assert reads.generation(["users"]) is not None
    with pytest.raises(DatabaseUnavailable), reads.writing(frozenset({"users"})):
        raise DatabaseUnavailable
    assert reads.generation(["worlds"]) is None
    seconds.now_s += UNSETTLED_S
    before = reads.generation(["users"])
    with pytest.raises(ConstraintBroken), reads.writing(frozenset({"users"})):
        raise ConstraintBroken("users_username")
    assert reads.generation(["users"]) == (before or 0) + 1
    with pytest.raises(DatabaseUnavailable), reads.writing(frozenset()):
        raise DatabaseUnavailable
    assert reads.generation(["users"]) is not None


async def test_what_others_wrote_is_read_once_the_change_feed_told_of_it(
    store: Store, database_url: str, clock: ManualClock
) -> None:
    ada = await made(store, "ada")
    await store.changes.begin()
    async with open_store(Settings(database=database_url), clock) as other:
        await store.users.by_id(ada.id)
        await other.users.grant(ada.id, ADMIN_TAG)
        assert (await store.changes.next()).users == {ada.id}
        found = await store.users.by_id(ada.id)
        assert found is not None
        assert found.admin
        assert not (await store.changes.next()).users
        assert await asked(store, user=ada.id) == 0  # and it is remembered as before


def test_switched_off_nothing_is_remembered() -> None:
    reads: ReadCache[tuple[object, ...]] = ReadCache(enabled=False)
    assert reads.generation(["users"]) is None


def test_what_is_remembered_by_default() -> None:
    """Another database than the server's own could be another server's too."""
    assert Settings().caches_reads
    assert not Settings(database="postgresql://db").caches_reads
    assert Settings(database="postgresql://db", read_cache="on").caches_reads
    assert not Settings(read_cache="off").caches_reads


async def test_the_database_remembers_until_it_is_written_to(store: Store) -> None:
    ada = await made(store, "ada")
    assert await asked(store, user=ada.id) == 1
    assert await asked(store, user=ada.id) == 0
    await store.sessions.open(ada.id)
    assert await asked(store, user=ada.id) == 0
    await store.users.update(ada.id, displayname="Ada L.")
    found = await store.users.by_id(ada.id)
    assert found is not None
    assert found.displayname == "Ada L."
    assert await asked(store, user=ada.id) == 0


async def test_a_transaction_reads_what_it_wrote_and_others_when_it_is_over(store: Store) -> None:
    ada = await made(store, "ada")
    await store.users.by_id(ada.id)
    sql = "SELECT displayname FROM users WHERE id = $1"
    assert (await store.database.recall(sql, ada.id))[0][0] == "ada"
    async with store.database.transaction() as transaction:
        async with transaction.transaction() as inner:
            await inner.execute("UPDATE users SET displayname = 'new' WHERE id = $1", ada.id)
        assert (await transaction.recall(sql, ada.id))[0][0] == "new"
        assert (await store.database.recall(sql, ada.id))[0][0] == "ada"
    assert (await store.database.recall(sql, ada.id))[0][0] == "new"


async def test_nothing_is_remembered_while_the_database_is_away(store: Store) -> None:
    ada = await made(store, "ada")
    await store.users.by_id(ada.id)
    store.database.available = False
    assert store.database.generation(["users"]) is None
    assert await asked(store, user=ada.id) == 1
    assert store.database.available
    assert await asked(store, user=ada.id) == 0
