"""An application that connections talk to, without any of ours behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from api.answer import Answer
from api.bodies import ReceivedRequest
from api.errors import status_of
from api.listen.server import HttpServer, open_listeners
from api.listen.timeouts import Timeouts
from reileta.errors import ReiletaError
from reileta.metrics import Metrics
from reileta.settings import Settings

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

    def refuse(self, error: ReiletaError, line: str, address: str) -> Answer:
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
