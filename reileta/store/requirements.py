"""Checks at the start that Reileta can use the database.

- PostgreSQL is new enough.
- The database's encoding is UTF-8: another one can't store every text, or would not check it.
- A session belongs to one connection. Reileta prepares statements, and a lock of the session keeps
  a second server away (`server_lock.py`). PgBouncer's transaction and statement modes have no such
  sessions; its session mode works. A pooler would bring nothing else, since the server has few
  connections, and keeps them.

Poolers don't say what they are, so the last check looks for the effect: two connections overlap
transactions, in both orders, since a pooler may hand out the session used last or first. With
sessions of their own, each always reports one process id, and not the other's.
"""

from __future__ import annotations

from typing import Final

from reileta.errors import DatabaseUnavailable
from reileta.startup import StartupError
from reileta.store.database import Database, Queries, SessionLost, unavailable_because

OLDEST_POSTGRESQL: Final = 14
ENCODING: Final = "UTF8"
ROUNDS: Final = 2
"""Other clients of a busy pooler can hide the effect in one round."""


async def check_requirements(database: Database, *, pooler: bool) -> None:
    """Raises StartupError. `pooler`: a connection pooler could be in between."""
    try:
        if pooler:
            await _check_sessions(database)
        await _check_server(database)
    except DatabaseUnavailable as error:
        raise StartupError(f"can't use the database: {unavailable_because(error)}") from error


async def _check_server(database: Database) -> None:
    release = int(await database.value("SHOW server_version_num")) // 10_000
    if release < OLDEST_POSTGRESQL:
        raise StartupError(
            f"the database is PostgreSQL {release}; Reileta needs {OLDEST_POSTGRESQL} or newer"
        )
    encoding = await database.value("SHOW server_encoding")
    if encoding != ENCODING:
        raise StartupError(
            f"the encoding of the database is {encoding}; Reileta needs {ENCODING}: create it with "
            "ENCODING 'UTF8' TEMPLATE template0"
        )


async def _check_sessions(database: Database) -> None:
    try:
        async with database.dedicated() as first, database.dedicated() as second:
            own = await _own_sessions(first, second)
    except SessionLost:
        own = False
    if not own:
        raise StartupError(
            "--database leads to a connection pooler in transaction mode, such as PgBouncer with "
            "pool_mode=transaction: use pool_mode=session, or connect to PostgreSQL directly"
        )


async def _own_sessions(first: Queries, second: Queries) -> bool:
    seen = await _pid(first), await _pid(second)
    for _ in range(ROUNDS):
        for order in ((first, second), (second, first)):
            for queries in (first, second):
                await queries.execute("BEGIN")
                await _pid(queries)
            for queries in order:
                await queries.execute("COMMIT")
            if (await _pid(first), await _pid(second)) != seen:
                return False
    return seen[0] != seen[1]


async def _pid(queries: Queries) -> int:
    return int(await queries.value("SELECT pg_backend_pid()"))
