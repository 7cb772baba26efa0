"""A store whose files lie in the test's own folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reileta.settings import Settings
from reileta.store import Store, open_store
from tests.conftest import ManualClock
from tests.known_databases import know_copy


@pytest.fixture
async def filed(database_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Store]:
    """As `store`, with files, and 1000 bytes of them for each user."""
    settings = Settings(database=database_url, data=tmp_path, user_files_bytes=1000)
    know_copy(database_url)
    async with open_store(settings, clock) as store:
        yield store
