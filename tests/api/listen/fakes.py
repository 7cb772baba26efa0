"""An application that connections talk to, without any of ours behind it."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from api.errors import status_of
from api.http.answer import Answer, Streamed
from api.http.bodies import ReceivedRequest
from api.listen.server import HttpServer, open_listeners
from api.listen.timeouts import Timeouts
from reileta.errors import ReiletaError
from reileta.observability.metrics import Metrics
from reileta.settings import Settings
from tests.e2e.clients import RawClient

Handler = Callable[[ReceivedRequest], Awaitable[Answer]]


async def echo(request: ReceivedRequest) -> Answer:
    """Answers with the method, the path and the body."""
    body: bytes = await request.body
    return Answer(200, [], f"{request.method} {request.path} ".encode() + body)


class FakeApp:
    """Answers requests with `handler`."""

    def __init__(self, handler: Handler = echo) -> None:
        self.config: dict[str, Any] = {"MAX_CONTENT_LENGTH": 1 << 20, "BODY_TIMEOUT": 20}
        self.handler = handler
        self.requests: list[str] = []
        self.refused: list[ReiletaError] = []
        self.under_way = 0

    async def answer(self, request: ReceivedRequest) -> Answer:
        self.requests.append(f"{request.method} {request.path}")
        self.under_way += 1
        try:
            return await self.handler(request)
        finally:
            self.under_way -= 1

    def refuse(self, error: ReiletaError, line: str, address: str, **how: Any) -> Answer:
        self.refused.append(error)
        return Answer(status_of(type(error)), [], str(error).encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no upgrade is expected")


@asynccontextmanager
async def listening(
    app: FakeApp, *, timeouts: Timeouts | None = None, **settings: Any
) -> AsyncIterator[tuple[HttpServer, int]]:
    """The server on a port of the system's choice, and that port."""
    server = HttpServer(app, Settings(**settings), Metrics(), timeouts)
    listeners, port = await open_listeners(Settings(port=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, listeners)
        yield server, port
        nursery.cancel_scope.cancel()


class Parts(Streamed):
    """A streamed body, which counts what was asked of it."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.opened = 0
        self.closed = 0
        self.given = 0

    async def __aenter__(self) -> Parts:
        self.opened += 1
        return self

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> bytes:
        if self.given == len(self._parts):
            raise StopAsyncIteration
        self.given += 1
        return self._parts[self.given - 1]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closed += 1


async def settled(condition: Callable[[], bool]) -> None:
    """Waits until something is so, without any time passing on a `MockClock`."""
    for _ in range(4_000):
        if condition():
            return
        await wait_all_tasks_blocked(0.001)
    raise AssertionError("it never came to be")


def abandon(client: RawClient) -> None:
    """Resets the client's connection."""
    stream = client.stream
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
