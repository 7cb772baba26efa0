"""WebSockets over Quart's own test client, whose ASGI has no connection that a wire could have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from quart import Response
from quart_trio import QuartTrio
from werkzeug.wrappers import Response as WerkzeugResponse

from actors.delivery.batch import Piece
from api.ws.accept import TRANSPORT_EXTENSION
from api.ws.transport.base import Messages, Transport
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import payload_of


class AsgiTransport(Transport):
    """A wire through Quart's `websocket`, one message at a time."""

    __slots__ = ("_closing", "_websocket")

    def __init__(self, websocket: Any, nursery: trio.Nursery, metrics: Metrics) -> None:
        super().__init__(nursery, metrics, backlog_limit_bytes=1 << 20, remote="192.0.2.1")
        self._websocket = websocket
        self._closing: tuple[int, str] | None = None

    async def receive(self) -> Messages:
        message = await self._websocket.receive()
        self.heard_at = trio.current_time()
        if isinstance(message, bytes):
            return [None]
        return [] if self.refusing else [message.encode(errors="surrogatepass")]

    def ping(self) -> None:
        self.heard_at = trio.current_time()

    def _write_now(self, pieces: Sequence[Piece]) -> None:
        self._keep(pieces, 0)

    def _begin_close(self, code: int, reason: str) -> None:
        self._closing = (code, reason)
        if not self._flushing:
            self._flushing = True
            self._nursery.start_soon(self._flush_contained)

    async def _flush(self) -> None:
        while True:
            before, conflated = self._backlog.size, self._backlog.conflated
            self._backlog.conflate()
            frame = self._backlog.pop_frame()
            self._account(before, conflated)
            if frame is None:
                break
            await self._websocket.send(payload_of(frame).decode())
        if self._closing is not None:
            await self._websocket.close(*self._closing)
            self.cut()

    async def finish(self) -> None:
        with trio.move_on_after(self._patience_s, shield=True):
            await self._wait_flushed()
        self._end()


class Handover:
    """The extension by which a route takes a wire over."""

    def __init__(self) -> None:
        self.serve: Callable[[Transport], Awaitable[None]] | None = None

    def claim(self, serve: Callable[[Transport], Awaitable[None]]) -> None:
        self.serve = serve


def with_transports(app: QuartTrio, nursery: trio.Nursery) -> None:
    """Lets the application's test client open WebSockets."""
    handle = app.handle_websocket

    async def handle_websocket(websocket: Any) -> Response | WerkzeugResponse | None:
        handover = Handover()
        extensions = {**(websocket.scope.get("extensions") or {}), TRANSPORT_EXTENSION: handover}
        websocket.scope["extensions"] = extensions
        answer = await handle(websocket)
        if handover.serve is not None:
            await handover.serve(AsgiTransport(websocket, nursery, Metrics()))
        return answer

    app.handle_websocket = handle_websocket  # type: ignore[method-assign]
