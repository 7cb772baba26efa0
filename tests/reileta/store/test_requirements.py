"""What a database must be like, and how others are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest

from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import open_store
from reileta.store.database import Database, SessionLost, asyncio_loop
from tests.conftest import Databases, ManualClock
from tests.reileta.store.fake_pooler import fake_pooler


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    with TemporaryDirectory(prefix="pooler-") as folder:
        yield Path(folder)


async def refusal(url: str, clock: ManualClock) -> str:
    with pytest.raises(StartupError) as caught:
        async with open_store(Settings(database=url), clock):
            pytest.fail("the store was opened")
    return str(caught.value)


@pytest.mark.parametrize("first", ["last used", "first used"])
async def test_a_pooler_in_transaction_mode_is_refused_in_one_line(
    database_url: str,
    folder: Path,
    clock: ManualClock,
    first: Literal["last used", "first used"],
) -> None:
    async with fake_pooler(database_url, folder, "transaction", first) as url:
        text = await refusal(url, clock)
    assert "pool_mode=session" in text
    assert "\n" not in text


async def test_a_pooler_in_session_mode_is_fine(
    database_url: str, folder: Path, clock: ManualClock
) -> None:
    async with (
        fake_pooler(database_url, folder, "session") as url,
        open_store(Settings(database=url), clock) as store,
    ):
        assert await store.database.takes_writes()


async def test_a_pooler_that_changes_its_mode_is_an_outage(database_url: str, folder: Path) -> None:
    async with (
        fake_pooler(database_url, folder, "transaction", "first used") as url,
        asyncio_loop() as loop,
    ):
        database = Database(loop, url, connections=2)
        async with database.connection() as first, database.connection():
            assert await first.value("SELECT 1") == 1
            with pytest.raises(SessionLost):
                await first.value("SELECT 1")
        await database.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_utf8_is_refused_in_one_line(
    databases: Databases, clock: ManualClock, encoding: str
) -> None:
    name, url = databases.create_encoded(encoding)
    text = await refusal(url, clock)
    assert encoding in text
    assert "\n" not in text
    databases.drop(name)


async def test_an_old_postgresql_is_refused(
    database_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.requirements.OLDEST_POSTGRESQL", 1000)
    assert "Reileta needs 1000 or newer" in await refusal(database_url, clock)
