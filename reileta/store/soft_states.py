"""What only the memory of a server without a cluster knows of its instances, kept for its next run.

`actors/kept_seats.py` says what that is. Commits here don't wait for the disk: if PostgreSQL itself
crashes, the last moments are missing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from reileta.store.database import Queries
from reileta.store.guests import IS_VOUCHED

_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_AT_EASE: Final = "(SELECT set_config('synchronous_commit', 'off', true)) AS at_ease"
"""In a FROM clause: the commit of this statement does not wait for the disk."""

_WRITE: Final = (
    "INSERT INTO soft_states AS kept (instance, part, revision, value) "  # noqa: S608 - constants
    "SELECT instance, part, revision + 1, value FROM "
    "unnest($1::text[], $2::int[], $3::bigint[], $4::bytea[]) "
    f"AS new (instance, part, revision, value), {_AT_EASE} "
    "ON CONFLICT (instance, part) DO UPDATE SET revision = excluded.revision, "
    "value = excluded.value WHERE kept.revision = excluded.revision - 1 "
    "RETURNING instance, part, revision"
)


@dataclass(frozen=True, slots=True)
class SoftPart:
    """A part of what is kept of an instance. Each write raises its revision by one; 0: none."""

    instance: str
    part: int
    revision: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the server: its number, which grows, and how long no server had run before (ms)."""

    number: int
    away_ms: int


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that has not ended, and its user: an id, or a `UserIDAt` for a guest."""

    id: str
    user: str


class SoftStates:
    """The tables `soft_states` and `server_runs`. Methods raise DatabaseUnavailable."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def begin_run(self) -> Run:
        """A run begins."""
        row = await self._queries.fetch_one(
            "UPDATE server_runs SET run = run + 1 "  # noqa: S608 - constants
            f"RETURNING run, {_NOW} - alive_at AS away_ms"
        )
        assert row is not None, "the migration has made it"
        return Run(row["run"], max(0, row["away_ms"]))

    async def note_alive(self) -> None:
        """The server runs."""
        await self._queries.execute(
            f"UPDATE server_runs SET alive_at = {_NOW} FROM {_AT_EASE}"  # noqa: S608 - constants
        )

    async def read_all(self) -> list[SoftPart]:
        """What is kept of all instances that exist."""
        rows = await self._queries.fetch(
            "SELECT instance, part, revision, value FROM soft_states "
            "WHERE instance IN (SELECT id FROM instances) ORDER BY instance, part"
        )
        return [SoftPart(**row) for row in rows]

    async def read(self, instance: str, part: int) -> SoftPart | None:
        row = await self._queries.fetch_one(
            "SELECT instance, part, revision, value FROM soft_states "
            "WHERE instance = $1 AND part = $2",
            instance,
            part,
        )
        return None if row is None else SoftPart(**row)

    async def write(self, parts: Sequence[SoftPart]) -> dict[tuple[str, int], int]:
        """Writes those whose revision is the one in the database, in one statement; returns the new
        revisions of these, by instance and part. Each part may come once."""
        rows = await self._queries.fetch(
            _WRITE,
            [one.instance for one in parts],
            [one.part for one in parts],
            [one.revision for one in parts],
            [one.value for one in parts],
        )
        return {(row["instance"], row["part"]): row["revision"] for row in rows}

    async def forget(self, instances: Collection[str]) -> None:
        """Deletes what is kept of these instances."""
        await self._queries.execute(
            "DELETE FROM soft_states WHERE instance = ANY($1::text[])", list(instances)
        )

    async def forget_others(self, instances: Collection[str]) -> None:
        """Deletes what is kept of all instances but these."""
        await self._queries.execute(
            "DELETE FROM soft_states WHERE instance <> ALL($1::text[])", list(instances)
        )

    async def live_sessions(self, ids: Collection[str], now_ms: int) -> list[LiveSession]:
        """Those of these sessions that have not ended, also those of guests with a valid token."""
        vouched = IS_VOUCHED.format(guest="guests.user_ref", now="$2")
        rows = await self._queries.fetch(
            "SELECT id, user_id AS user FROM sessions "  # noqa: S608 - constants
            "WHERE id = ANY($1::text[]) AND ended_at IS NULL UNION ALL "
            "SELECT session_id, user_ref FROM guests "
            f"WHERE session_id = ANY($1::text[]) AND {vouched}",
            list(ids),
            now_ms,
        )
        return [LiveSession(**row) for row in rows]
