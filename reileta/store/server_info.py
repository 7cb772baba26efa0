"""The server's own record: id, title and description."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TypedDict, Unpack

import msgspec

from reileta.clock import Clock
from reileta.records import Notice
from reileta.store.database import Queries, Row
from reileta.store.query_builder import assignments


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server as its operator named it. `id` is a UUID from the first start."""

    id: str
    title: str
    description: str | None
    icon: str | None
    created_at: int
    updated_at: int


class ServerInfoUpdate(TypedDict, total=False):
    """The fields that can change; a missing one stays."""

    title: str
    description: str | None
    icon: str | None


class ServerInfos:
    """The single row of the server's record."""

    def __init__(self, queries: Queries, clock: Clock, title: str) -> None:
        self._queries = queries
        self._clock = clock
        self._title = title

    async def get(self) -> ServerInfo:
        """The server's record; created with the setting's title if there is none."""
        row = await self._queries.recall_one("SELECT * FROM server")
        if row is None:
            await self._queries.execute(
                "INSERT INTO server (id, title, created_at, updated_at) VALUES ($1, $2, $3, $3) "
                "ON CONFLICT DO NOTHING",
                str(uuid.uuid4()),
                self._title,
                self._clock.now_ms(),
            )
            row = await self._queries.fetch_one("SELECT * FROM server")
        assert row is not None
        return _identity(row)

    async def public_key(self) -> str | None:
        """The key by which other servers know this one; None: no server has stored it yet."""
        key: str | None = await self._queries.value("SELECT public_key FROM server")
        return key

    async def replace_public_key(self, key: str, *, known: str | None) -> bool:
        """Stores the server's key if `known` is the stored one; whether it is."""
        replaced = await self._queries.execute(
            "UPDATE server SET public_key = $1 WHERE public_key IS NOT DISTINCT FROM $2", key, known
        )
        return replaced > 0

    async def notice(self) -> Notice | None:
        """What the server tells everyone who connects; it may be over."""
        text: str | None = await self._queries.value("SELECT notice FROM server")
        return None if text is None else msgspec.json.decode(text, type=Notice)

    async def set_notice(self, notice: Notice | None) -> None:
        """Replaces or removes the notice."""
        await self.get()
        text = None if notice is None else msgspec.json.encode(notice).decode()
        await self._queries.execute("UPDATE server SET notice = $1::json", text)

    async def update(self, **changes: Unpack[ServerInfoUpdate]) -> ServerInfo:
        """Changes the record and returns it."""
        await self.get()
        sets, values = assignments(changes, ServerInfoUpdate.__annotations__)
        row = await self._queries.fetch_one(
            f"UPDATE server SET {sets}{',' if sets else ''} updated_at = ${len(values) + 1} "  # noqa: S608 - columns of IdentityUpdate
            "RETURNING *",
            *values,
            self._clock.now_ms(),
        )
        assert row is not None
        return _identity(row)


def _identity(row: Row) -> ServerInfo:
    return ServerInfo(
        id=row["id"],
        title=row["title"],
        description=row["description"],
        icon=row["icon"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
