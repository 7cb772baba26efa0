"""Migrates a database to this version's schema.

Each file `migrations/NNNN_name.sql` is applied once, in a transaction of its own, in the order of
the numbers. An advisory lock lets one process at a time do it; others wait and find nothing to do.

The line `-- compatible_from: N` of a migration names the oldest version of Reileta, by the number
of its newest migration, that works on a database with it. That version and later ones run on the
database, and migrate nothing there; older ones refuse it. So a newer server can be started while
older ones still run, or be replaced by an older one. Versions before migration 11 refuse every
newer database.
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
_COMPATIBLE: Final = re.compile(r"^-- compatible_from: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def compatible_from(self) -> int:
        """The oldest version that works on a database with this migration; by default its own."""
        match = _COMPATIBLE.search(self.sql)
        return self.version if match is None else int(match[1])


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

    Changes nothing in a database that a newer version of Reileta wrote. Raises StartupError if this
    version does not work on it, or if PostgreSQL can't be reached.
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
    """Raises StartupError unless the database has this version's schema, or a newer one on which it
    works; changes nothing."""
    newest = known[-1].version
    try:
        exists = await database.value("SELECT to_regclass('schema_migrations') IS NOT NULL")
        version = 0
        if exists:
            version = await database.value("SELECT max(version) FROM schema_migrations") or 0
        if version > newest:
            await _ensure_compatible(database, version, newest)
    except DatabaseUnavailable as error:
        raise StartupError(f"can't use the database: {unavailable_because(error)}") from error
    if not version:
        raise StartupError(
            "this is not the database of a server: check --database, or start a server with it"
        )
    if version < newest:
        raise StartupError(
            f"the database was written by an older version of Reileta (schema {version}, this "
            f"version needs {newest}): start the server of this version first"
        )


async def _ensure_compatible(queries: Queries, version: int, newest: int) -> None:
    """Raises StartupError if this version does not work on the newer database."""
    needed = await queries.value(
        "SELECT max(coalesce(compatible_from, version)) FROM schema_migrations WHERE version > $1",
        newest,
    )
    if needed > newest:
        raise StartupError(
            f"the database was written by a newer version of Reileta (schema {version}, which "
            f"needs a version that knows schema {needed}; this one knows {newest}): run a newer "
            "version or restore a backup"
        )


async def _apply(queries: Queries, clock: Clock, known: list[Migration]) -> int:
    await queries.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "version integer PRIMARY KEY, name text NOT NULL, applied_at bigint NOT NULL, "
        "compatible_from integer); "
        # Databases of earlier versions don't have it.
        "ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS compatible_from integer"
    )
    version = int(await queries.value("SELECT coalesce(max(version), 0) FROM schema_migrations"))
    newest = known[-1].version if known else 0
    log = structlog.get_logger()
    if version > newest:
        await _ensure_compatible(queries, version, newest)
        log.info(log_events.DATABASE_NEWER, version=version, known=newest)
        return version
    await queries.execute(
        "UPDATE schema_migrations SET compatible_from = it.compatible_from "
        "FROM unnest($1::integer[], $2::integer[]) AS it (version, compatible_from) "
        "WHERE schema_migrations.version = it.version "
        "AND schema_migrations.compatible_from IS NULL",
        [migration.version for migration in known],
        [migration.compatible_from for migration in known],
    )
    for migration in known:
        if migration.version <= version:
            continue
        async with queries.transaction():
            await queries.execute(migration.sql)
            await queries.execute(
                "INSERT INTO schema_migrations (version, name, applied_at, compatible_from) "
                "VALUES ($1, $2, $3, $4)",
                migration.version,
                migration.name,
                clock.now_ms(),
                migration.compatible_from,
            )
        log.info(log_events.DATABASE_MIGRATED, version=migration.version, name=migration.name)
    return newest
