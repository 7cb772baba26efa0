"""The real database, asked so that Trio's schedule does not depend on how quickly it answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from reileta.clock import Clock
from reileta.rules.resource.types import BUILT_IN
from reileta.store import Database, Store
from reileta.store.instances import Instances
from reileta.store.leases import Leases
from reileta.store.resources import Resources
from reileta.store.session_states import SessionStates
from reileta.store.sessions import Sessions
from reileta.store.tokens import Tokens
from reileta.store.user_profiles import UserProfiles
from reileta.store.users import Users
from tests.conftest import lease_time

T = TypeVar("T")


class BlockingLoop:
    """An asyncio loop in a thread of its own, for which Trio's whole thread waits.

    No task of Trio runs while PostgreSQL works, so an answer never comes at a moment of its own.
    """

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="database")
        self._thread.start()

    async def run_aio_coroutine(self, coro: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@asynccontextmanager
async def open_blocking(store: Store, url: str, clock: Clock) -> AsyncIterator[Store]:
    """The store with every part that sessions use on a `BlockingLoop`."""
    loop = BlockingLoop()
    database = Database(loop, url, connections=4)
    try:
        yield replace(
            store,
            database=database,
            users=Users(database, clock),
            sessions=Sessions(database, clock),
            tokens=Tokens(database, clock, lease_time(clock)),
            instances=Instances(database, clock),
            profiles=UserProfiles(database, clock),
            states=SessionStates(database),
            resources=Resources(database, clock, BUILT_IN),
            leases=Leases(database, clock, BUILT_IN, lease_time(clock)),
        )
    finally:
        await database.close()
        loop.close()
