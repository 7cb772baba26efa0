"""Opens databases that the tests have made without asking PostgreSQL what it is.

The questions take two connections and thirty statements, more than most tests need themselves.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

import pytest

from reileta import store
from reileta.clock import Clock
from reileta.store import Database
from reileta.store.migrate import Migration

DATA_PREFIX: Final = "reileta-test-"
"""How the data folder of a PostgreSQL of the tests begins, and so the path of its socket."""

_CHECK: Final = attrgetter("check_requirements")
_MIGRATE: Final = attrgetter("migrate")
_url = attrgetter("_url")
_copies: set[str] = set()


def know_copy(url: str) -> None:
    """The database is a copy of one that was checked and migrated: whoever opens it next, while
    `skip_known` lasts, does neither."""
    _copies.add(url)


def skip_known(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, `open_store` does nothing to databases of `know_copy` at first."""
    check, migrate = _CHECK(store), _MIGRATE(store)

    async def checked(database: Database, *, pooler: bool) -> None:
        if _url(database) not in _copies:
            await check(database, pooler=pooler)

    async def migrated(database: Database, clock: Clock, known: list[Migration]) -> int:
        if _url(database) in _copies:
            _copies.remove(_url(database))
            return known[-1].version
        version: int = await migrate(database, clock, known)
        return version

    patch.setattr(store, "check_requirements", checked)
    patch.setattr(store, "migrate", migrated)


def expect_no_pooler(patch: pytest.MonkeyPatch) -> None:
    """Until the patch is undone, `open_store` does not ask whether a PostgreSQL of the tests is a
    pooler; `fake_pooler` has a socket of its own."""
    check = _CHECK(store)

    async def checked(database: Database, *, pooler: bool) -> None:
        await check(database, pooler=pooler and DATA_PREFIX not in _url(database))

    patch.setattr(store, "check_requirements", checked)
