"""The server's clock follows the database's."""

from __future__ import annotations

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from api.credentials import Auth
from reileta.clock import SystemClock
from reileta.errors import CredentialInvalid, DatabaseFault, DatabaseUnavailable
from reileta.security.credentials import digest, new_token
from reileta.settings import Settings
from reileta.store import Store, open_store
from reileta.store.database import Queries
from reileta.store.database_clock import DatabaseClock
from reileta.store.database_time import database_time
from tests.conftest import PATIENCE_S, ManualClock
from tests.reileta.store.sessions import make_user

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NOWHERE = cast(Queries, None)


class FakeDatabase:
    """The database's clock, which the answer reaches after `answer_ms`."""

    def __init__(self, system: ManualClock) -> None:
        self.system = system
        self.ahead_ms = 0
        self.ask_ms = 0
        self.answer_ms = 0
        self.failing: Exception | None = None

    async def time(self, _: Queries) -> int:
        if self.failing is not None:
            raise self.failing
        self.system.advance(self.ask_ms)
        now_ms = self.system.now_ms() + self.ahead_ms
        self.system.advance(self.answer_ms)
        return now_ms


def over(system: ManualClock, database: FakeDatabase | None = None) -> DatabaseClock:
    """The clock over that of a system, and over the database's, by default the real one."""

    def now_ns() -> int:
        return system.now_ms() * 1_000_000

    time = database_time if database is None else database.time
    return DatabaseClock(time, wall_ns=now_ns, steady_ns=now_ns, booted_ns=now_ns)


async def test_it_has_the_databases_time() -> None:
    system = ManualClock()
    database = FakeDatabase(system)
    clock = over(system, database)
    assert clock.now_ms() == system.now_ms()
    for ahead_ms in (DAY_MS, -DAY_MS, 0):
        database.ahead_ms = ahead_ms
        await clock.follow(NOWHERE)
        assert abs(clock.now_ms() - system.now_ms() - ahead_ms) <= 1
    steady = clock.steady_ms()
    system.advance(5)
    assert clock.steady_ms() == steady + 5


@pytest.mark.parametrize(("ask_ms", "answer_ms"), [(0, 900), (900, 0), (400, 500)])
async def test_a_slow_answer_changes_nothing(ask_ms: int, answer_ms: int) -> None:
    system = ManualClock()
    database = FakeDatabase(system)
    clock = over(system, database)
    database.ask_ms, database.answer_ms = ask_ms, answer_ms
    await clock.follow(NOWHERE)
    assert clock.now_ms() == system.now_ms(), "with a database on the same machine"
    database.ahead_ms = DAY_MS
    await clock.follow(NOWHERE)
    assert abs(clock.now_ms() - system.now_ms() - DAY_MS) <= ask_ms + answer_ms + 1


@pytest.mark.parametrize("step_ms", [DAY_MS, -DAY_MS])
@pytest.mark.parametrize("followed", [True, False])
async def test_a_step_of_the_systems_clock_changes_nothing(step_ms: int, followed: bool) -> None:
    real, system = ManualClock(), ManualClock()
    database = FakeDatabase(real)
    clock = DatabaseClock(
        database.time,
        wall_ns=lambda: system.now_ms() * 1_000_000,
        booted_ns=lambda: real.now_ms() * 1_000_000,
    )
    if followed:
        await clock.follow(NOWHERE)
    before = clock.now_ms()
    system.advance(step_ms)
    assert clock.now_ms() == before
    real.advance(4_000)  # also by sleeping
    assert clock.now_ms() == before + 4_000
    if followed:
        with capture_logs() as logs:
            await clock.follow(NOWHERE)
        assert clock.now_ms() == before + 4_000
        assert [line["event"] for line in logs] == ["clock.corrected"]


async def test_without_the_database_it_goes_on() -> None:
    system = ManualClock()
    database = FakeDatabase(system)
    database.ahead_ms = DAY_MS
    clock = over(system, database)
    await clock.follow(NOWHERE)
    before = clock.now_ms()
    database.failing = DatabaseUnavailable()
    system.advance(5_000)
    await clock.follow_again(NOWHERE)
    assert clock.now_ms() == before + 5_000
    database.failing = DatabaseFault()
    with pytest.raises(DatabaseFault):
        await clock.follow_again(NOWHERE)


async def test_a_difference_is_logged_once() -> None:
    system = ManualClock()
    database = FakeDatabase(system)
    clock = over(system, database)
    with capture_logs() as logs:
        for ahead_ms in (0, 900, DAY_MS, DAY_MS + 900, DAY_MS, 0):
            database.ahead_ms = ahead_ms
            await clock.follow(NOWHERE)
    assert [round(line["ahead_ms"], -1) for line in logs] == [DAY_MS, 0]
    assert {line["event"] for line in logs} == {"clock.corrected"}


async def test_two_processes_with_other_clocks_agree_on_durable_times(database_url: str) -> None:
    """One is a day fast, the other one a day slow."""
    real = SystemClock().now_ms()
    one, two = (over(ManualClock(real + off)) for off in (DAY_MS, -DAY_MS))
    settings = Settings(database=database_url)
    async with open_store(settings, one) as first, open_store(settings, two) as second:
        await one.follow(first.database.urgent)
        await two.follow(second.database.urgent)
        assert abs(one.now_ms() - two.now_ms()) < PATIENCE_S * 1000

        alive, dead = [await issue(first, one, life_ms) for life_ms in (HOUR_MS, -HOUR_MS)]
        there = Auth(cast(Any, second.tokens), two)
        assert (await there.authenticate_token(alive)).user.username == "ada"
        with pytest.raises(CredentialInvalid):
            await there.authenticate_token(dead)

        bob = await make_user(first, "bob")
        for life_ms in (HOUR_MS, -HOUR_MS):
            await first.users.suspend(bob.id, until=one.now_ms() + life_ms, reason=None)
            found = await second.users.by_id(bob.id)
            assert found is not None
            assert found.suspended(two.now_ms()) == (life_ms > 0)


async def issue(store: Store, clock: DatabaseClock, life_ms: int) -> str:
    """A token of the user `ada` that lives for so long from now."""
    user = await store.users.by_name("ada") or await make_user(store, "ada")
    session = await store.sessions.open(user.id)
    token = new_token("ua")
    await store.tokens.issue(
        session_id=session.id,
        user_id=user.id,
        access_hash=digest(token),
        refresh_hash=None,
        access_expires=clock.now_ms() + life_ms,
        refresh_expires=clock.now_ms() + life_ms,
        limit=32,
    )
    return token
