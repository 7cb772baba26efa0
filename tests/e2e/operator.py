"""What an operator does to the database of a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reileta.store.database import Database, asyncio_loop


@asynccontextmanager
async def at_the_database(url: str) -> AsyncIterator[Database]:
    """A connection of its own to a server's database."""
    async with asyncio_loop() as loop:
        database = Database(loop, url, connections=1)
        try:
            yield database
        finally:
            await database.close()
