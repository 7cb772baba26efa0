"""The lock that keeps a second server away from the database.

A server takes all instances for its own: at its start it marks them as empty, and its sweep deletes
them after a while. So two servers would delete each other's live instances. The lock belongs to a
session of PostgreSQL, on a connection besides the pool, and ends with it: a server that was killed
leaves nothing behind.

The nodes of a cluster share the lock, and keep only servers away that are not of a cluster. Among
each other, they rely on their leases (`reileta/rules/cluster/lease.py`).

A restart of PostgreSQL ends the session, too. `watch` then takes the lock again. If another server
was faster, this one is `superseded`: it is not ready, and does not sweep. Commands don't take the
lock.

A process can be paused between a look at the lock and the write that follows. So writes that harm
another server run on the lock's own session (`session`): they fail once it has ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final
from zlib import crc32

import structlog
import trio

from reileta.errors import DatabaseFault, DatabaseUnavailable
from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.database import Database, Queries

WATCH_S: Final = 2.0
"""Seconds between the looks at the lock's connection."""
WAIT_S: Final = 5.0
"""Seconds for the former server to go: PostgreSQL must notice its end."""
POLL_S: Final = 0.1

IN_USE: Final = (
    "another server uses the database: stop it, or give this one a database of its own, or start "
    "both as nodes of a cluster with --nats"
)
ALONE: Final = (
    "another server uses the database alone: stop it, and start it with --nats, too, to make both "
    "nodes of a cluster"
)

_KEY: Final = 0x7265696C65746131  # "reileta1"
_CHORES: Final = 0x72656C
"""The first number of the locks of `ServerLock.alone`."""
_KEEPALIVE: Final = {
    # PostgreSQL notices within 25 s that the machine of a server is gone.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_session_timeout": "0",
}

_log = structlog.get_logger()


class ServerLock:
    """The lock of one server process, once `take` was called."""

    def __init__(self, database: Database, *, shared: bool = False) -> None:
        """`shared`: with the other nodes of a cluster."""
        self._database = database
        self._shared = shared
        self._session = AsyncExitStack()
        self._queries: Queries | None = None
        self._wanted = False
        self._using = trio.Lock()
        """The session runs one statement at a time."""
        self.superseded = False
        """Whether another server took the lock after an outage."""

    @property
    def lost(self) -> bool:
        """Whether this server took the lock, and does not have it now."""
        return self._wanted and self._queries is None

    async def take(self) -> None:
        """Takes the lock; tries for `WAIT_S`. Raises StartupError, and DatabaseUnavailable."""
        deadline = trio.current_time() + WAIT_S
        while not await self._try():
            if trio.current_time() >= deadline:
                raise StartupError(ALONE if self._shared else IN_USE)
            await trio.sleep(POLL_S)
        self._wanted = True

    async def held(self) -> bool:
        """Asks the database whether no other server can have the lock now: this one has it, or
        does not want it. After a pause of the process, `lost` may be out of date."""
        if self._wanted:
            await self.watch()
        return not self.lost

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Queries]:
        """For statements that take effect only while no other server can have the lock: those of
        the lock's session, or of any connection if this server does not want the lock.

        One user at a time; the body must be short. Raises DatabaseUnavailable if the lock is lost.
        """
        if not self._wanted:
            yield self._database
            return
        async with self._using:
            if self._queries is None:
                raise DatabaseUnavailable
            yield self._queries

    @asynccontextmanager
    async def alone(self, chore: str) -> AsyncIterator[bool]:
        """Whether no other node of the cluster is in such a block for that chore now.

        Always, without a cluster. If the lock's session ends meanwhile, another node may begin: so
        this saves work, and guards nothing. Raises DatabaseUnavailable.
        """
        if not self._shared or not self._wanted:
            yield True
            return
        key = crc32(chore.encode()) & 0x7FFF_FFFF  # PostgreSQL's number has a sign
        async with self.session() as queries:
            mine = await queries.value("SELECT pg_try_advisory_lock($1, $2)", _CHORES, key)
        try:
            yield bool(mine)
        finally:
            if mine:
                with trio.CancelScope(shield=True), suppress(DatabaseUnavailable):
                    async with self.session() as queries:
                        await queries.value("SELECT pg_advisory_unlock($1, $2)", _CHORES, key)

    async def watch(self) -> None:
        """Takes the lock again if its session has ended. Called every `WATCH_S`."""
        async with self._using:
            await self._watch()

    async def _watch(self) -> None:
        before = self.superseded
        try:
            if self._queries is not None:
                await self._queries.value("SELECT 1")
                return
            self.superseded = not await self._try()
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            await self.release()
            return
        if self.superseded:
            if not before:
                _log.error(log_events.DATABASE_SUPERSEDED)
        else:
            _log.info(log_events.DATABASE_LOCKED)

    async def release(self) -> None:
        """Ends the session, and so the lock."""
        self._queries = None
        await self._session.aclose()

    async def _try(self) -> bool:
        """Takes the lock in a new session if it is free; whether it did."""
        async with AsyncExitStack() as session:
            queries = await session.enter_async_context(self._database.dedicated())
            for name, value in _KEEPALIVE.items():
                await queries.value("SELECT set_config($1, $2, false)", name, value)
            take = "pg_try_advisory_lock_shared" if self._shared else "pg_try_advisory_lock"
            if not await queries.value(f"SELECT {take}($1)", _KEY):
                return False
            self._session = session.pop_all()
            self._queries = queries
        return True
