"""The time of the database's clock, which all servers share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from reileta.store.database import Queries

DatabaseTime: TypeAlias = Callable[[Queries], Awaitable[int]]


async def database_time(queries: Queries) -> int:
    """The time of the database's clock (ms)."""
    return int(await queries.value("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
