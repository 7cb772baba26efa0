"""Real NATS, a real database, and servers in processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.e2e.processes import Bot, ServerProcess, bots, serving
from tests.nats_server import NatsServer, nats_server

ADDRESS = "play.example.org"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here starts servers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@dataclass
class Ground:
    """Where the nodes of a test's cluster live."""

    nats: NatsServer
    database_url: str
    folder: Path
    nursery: trio.Nursery

    async def start(self, name: str, *more: str) -> ServerProcess:
        """A node that runs until the end of the test."""

        async def run(task_status: trio.TaskStatus[ServerProcess]) -> None:
            async with self.node(name, *more) as node:
                task_status.started(node)
                await self._over.wait()

        node: ServerProcess = await self.nursery.start(run)
        return node

    def __post_init__(self) -> None:
        self._over = trio.Event()

    def end(self) -> None:
        """Ends the nodes that `start` has started, in order."""
        self._over.set()

    def alone(self, name: str) -> tuple[str, ...]:
        """The options of a server that is of no cluster."""
        return (
            *("--database", self.database_url, "--data", str(self.folder / name)),
            *("--key", str(self.folder / "key"), "--address", ADDRESS),
        )

    def options(self, name: str) -> tuple[str, ...]:
        """The options of a node of that name."""
        return (
            *self.alone(name),
            *("--nats", self.nats.url, "--node-name", name),
            *("--files", str(self.folder / "files")),
        )

    def node(self, name: str, *more: str) -> AbstractAsyncContextManager[ServerProcess]:
        """A running node; what it logs is in its log."""
        return serving(*self.options(name), *more)

    async def bots(self, count: int) -> list[Bot]:
        """Accounts."""
        folder = self.folder / "bots"
        folder.mkdir()
        return await bots(count, folder, "--database", self.database_url)


@pytest.fixture
async def ground(database_url: str, tmp_path: Path) -> AsyncIterator[Ground]:
    folder = tmp_path / "nats"
    folder.mkdir()
    async with nats_server(folder) as nats, trio.open_nursery() as nursery:
        ground = Ground(nats, database_url, tmp_path, nursery)
        yield ground
        ground.end()
