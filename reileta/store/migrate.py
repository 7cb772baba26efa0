"""Migrates a database to this version's schema.

Each file `migrations/NNNN_name.sql` is applied once, in a transaction of its own, in the order of
the numbers. An advisory lock lets one process at a time do it; others wait and find nothing to do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Final

import structlog
import trio

from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable
from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.database import Database, Queries, unavailable_because

MIGRATION_S: Final = 600.0
"""Seconds for one migration, and for the wait for another process's migrations."""

_LOCK: Final = 0x7265696C  # "reil"
_FILE: Final = re.compile(r"(?P<version>\d{4})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str


def known_migrations() -> list[Migration]:
    """The migrations of this version, in order."""
    found = []
    for file in resources.files("reileta.store.migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match is not None:
            found.append(Migration(int(match["version"]), file.name, file.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.version)


async def migrate(database: Database, clock: Clock, known: list[Migration]) -> int:
    """Applies the migrations that are missing; returns the schema's version.

    Raises StartupError if PostgreSQL can't be reached, or if a newer version of Reileta wrote the
    database, which is then left unchanged.
    """
    try:
        async with database.connection(statement_s=MIGRATION_S) as queries:
            await queries.fetch("SELECT pg_advisory_lock($1)", _LOCK)
            try:
                return await _apply(queries, clock, known)
            finally:
                with trio.CancelScope(shield=True):
                    await queries.fetch("SELECT pg_advisory_unlock($1)", _LOCK)
    except DatabaseUnavailable as error:
        raise StartupError(f"can't use the database: {unavailable_because(error)}") from error


async def check_schema(database: Database, known: list[Migration]) -> None:
    """Raises StartupError unless the database has this version's schema; changes nothing."""
    try:
        exists = await database.value("SELECT to_regclass('schema_migrations') IS NOT NULL")
        version = 0
        if exists:
            version = await database.value("SELECT max(version) FROM schema_migrations") or 0
    except DatabaseUnavailable as error:
        raise StartupError(f"can't use the database: {unavailable_because(error)}") from error
    newest = known[-1].version
    if not version:
        raise StartupError(
            "this is not the database of a server: check --database, or start a server with it"
        )
    if version < newest:
        raise StartupError(
            f"the database was written by an older version of Reileta (schema {version}, this "
            f"version needs {newest}): start the server of this version first"
        )
    _ensure_known(version, newest)


def _ensure_known(version: int, newest: int) -> None:
    if version > newest:
        raise StartupError(
            f"the database was written by a newer version of Reileta (schema {version}, this "
            f"version knows {newest}): run that version or restore a backup"
        )


async def _apply(queries: Queries, clock: Clock, known: list[Migration]) -> int:
    await queries.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "version integer PRIMARY KEY, name text NOT NULL, applied_at bigint NOT NULL)"
    )
    version = int(await queries.value("SELECT coalesce(max(version), 0) FROM schema_migrations"))
    newest = known[-1].version if known else 0
    _ensure_known(version, newest)
    log = structlog.get_logger()
    for migration in known:
        if migration.version <= version:
            continue
        async with queries.transaction():
            await queries.execute(migration.sql)
            await queries.execute(
                "INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                clock.now_ms(),
            )
        log.info(log_events.DATABASE_MIGRATED, version=migration.version, name=migration.name)
    return newest
