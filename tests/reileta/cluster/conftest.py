"""A NATS server, and buses to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from reileta.cluster.bus import Bus, open_bus
from reileta.store.database import Loop, asyncio_loop
from tests.conftest import PATIENCE_S
from tests.nats_server import NatsServer, nats_server

OpenBus = Callable[[], AbstractAsyncContextManager[Bus]]


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    async with asyncio_loop() as loop:
        yield loop


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as server:
        yield server


@pytest.fixture
def another_bus(nats: NatsServer, loop: Loop) -> OpenBus:
    """A further bus to the server."""
    return lambda: open_bus((nats.url,), "test", loop)


@pytest.fixture
async def bus(another_bus: OpenBus) -> AsyncIterator[Bus]:
    """A connected bus."""
    async with another_bus() as bus:
        await connected(bus)
        yield bus


async def connected(bus: Bus, after: int | None = None) -> int:
    """Waits until the bus has a connection that is newer than that one; its number."""
    with trio.fail_after(PATIENCE_S):
        number = bus.connection
        while number is None or number == after:
            number = await bus.changed_from(number)
        return number


async def disconnected(bus: Bus) -> None:
    """Waits until the bus has no connection."""
    with trio.fail_after(PATIENCE_S):
        while bus.connection is not None:
            await bus.changed_from(bus.connection)
