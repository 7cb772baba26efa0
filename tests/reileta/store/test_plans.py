"""How PostgreSQL answers what lists and searches ask, once there is much to look through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.database import Queries, Row
from tests.conftest import ManualClock

USERS = 10_000
WORLDS = 4_000

MANY = f"""
    INSERT INTO users (id, username, displayname, description, created_at, updated_at)
    SELECT 'u_' || n, 'user_' || n, 'User ' || n, md5(n::text), 1, 1
    FROM generate_series(1, {USERS}) AS n;
    INSERT INTO worlds (id, title, description, capacity, owner, tags, created_at, updated_at)
    SELECT 'w_' || n, 'World ' || n, md5(n::text), 8, 'u_' || n % 1000,
        CASE WHEN n % 500 = 0 THEN '{{avr:official,avr:public}}' ELSE '{{avr:public}}' END::text[],
        1, 1
    FROM generate_series(1, {WORLDS}) AS n;
    INSERT INTO services (id, title, owner, created_at, updated_at)
    SELECT 'com.example.s' || n, md5(n::text), 'u_' || n % 1000, 1, 1
    FROM generate_series(1, {WORLDS}) AS n;
    INSERT INTO assets (id, world_id, version, engine, platform, created_at, updated_at)
    SELECT 'f_' || n, 'w_' || n, '1', 'unity', 'windows', 1, 1
    FROM generate_series(1, {WORLDS}) AS n;
    INSERT INTO follows (follower, followed, following_at)
    SELECT 'u_' || n % {USERS}, 'u_' || (n * 7 + 1) % {USERS}, 1
    FROM generate_series(1, {2 * USERS}) AS n WHERE n % {USERS} <> (n * 7 + 1) % {USERS}
    ON CONFLICT DO NOTHING;
"""
TABLES = "users, worlds, services, assets, follows"


@pytest.fixture
async def much(store: Store) -> Store:
    async with store.database.connection(statement_s=120) as queries:
        await queries.execute(MANY)
    for table in TABLES.split(", "):
        await store.database.execute(f"VACUUM ANALYZE {table}")
    return store


async def planned(
    store: Store, monkeypatch: pytest.MonkeyPatch, ask: Callable[[], Awaitable[object]]
) -> str:
    """The plans of the statements with which the store answers."""
    plans: list[str] = []

    def explaining(kind: type[Queries]) -> None:
        fetch = kind.fetch

        async def explained(self: Queries, sql: str, *args: object) -> list[Row]:
            if sql.startswith(("SELECT", "WITH")):
                rows = await fetch(self, f"EXPLAIN {sql}", *args)
                plans.extend(row[0] for row in rows)
            return await fetch(self, sql, *args)

        patched.setattr(kind, "fetch", explained)

    with monkeypatch.context() as patched:
        explaining(type(store.database))
        async with store.database.connection() as bound:
            explaining(type(bound))
        await ask()
    return "\n".join(plans)


Ask = Callable[[Store], Awaitable[object]]


def users(query: str | None, offset: int = 0) -> Ask:
    return lambda store: store.users.search(query=query, limit=50, offset=offset)


def worlds(query: str | None = None, owner: str | None = None, tag: str | None = None) -> Ask:
    return lambda store: store.worlds.search(
        query=query, owner=owner, tag=tag, viewer=None, admin=False, limit=50, offset=0
    )


def services(query: str | None = None, owner: str | None = None) -> Ask:
    return lambda store: store.services.search(
        query=query, owner=owner, tag=None, limit=50, offset=0
    )


@pytest.mark.slow
async def test_lists_and_searches_use_their_indexes(
    much: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[tuple[Ask, str]] = [
        (users(None), "users_number_key"),
        (users(None, USERS - 100), "users_number_key"),
        (users("user_1234"), "users_haystack"),
        (users("zzzzzz"), "users_haystack"),
        (worlds(), "worlds_number_key"),
        (worlds(query="World 3210"), "worlds_haystack"),
        (worlds(owner="u_77"), "worlds_by_owner"),
        (worlds(tag="avr:official"), "worlds_tags"),
        (services(), "services_issued_key"),
        (services(query="example.s3210"), "services_haystack"),
        (services(owner="u_77"), "services_by_owner"),
        (lambda store: store.follows.friends("u_5"), "follows_pkey"),
        (lambda store: store.follows.of("u_5"), "follows_pkey"),
        (
            lambda store: store.follows.followers("u_5", limit=50, offset=0),
            "follows_by_followed",
        ),
        (lambda store: store.assets.of_many(["w_5", "w_6"]), "assets_build"),
        (lambda store: store.assets.room("u_77"), "worlds_by_owner"),
    ]
    for ask, index in expected:

        def answer(ask: Ask = ask) -> Awaitable[object]:
            return ask(much)

        plan = await planned(much, monkeypatch, answer)
        assert index in plan, plan


@pytest.mark.slow
async def test_a_search_is_planned_for_what_it_looks_for(
    much: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = await planned(much, monkeypatch, lambda: users("user_777")(much))
    everywhere = await planned(much, monkeypatch, lambda: users("user")(much))
    short = await planned(much, monkeypatch, lambda: users("77")(much))
    assert "users_haystack" in rare
    assert "users_haystack" not in everywhere
    assert "users_haystack" not in short


async def test_postgresql_settles_for_no_plan_of_a_search(
    database_url: str, clock: ManualClock
) -> None:
    """It would after five times, for whatever is looked for."""
    async with open_store(Settings(database=database_url, database_connections=1), clock) as store:
        for number in range(8):
            await users(f"user_{number}")(store)
        (row,) = await store.database.fetch(
            "SELECT custom_plans, generic_plans FROM pg_prepared_statements "
            "WHERE statement LIKE '%haystack LIKE%' AND statement LIKE 'WITH%'"
        )
    assert tuple(row) == (8, 0)
