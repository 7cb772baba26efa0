"""How a wire's bytes leave and arrive.

`SocketWire` writes straight to a non-blocking socket (the fast one; `api/ws/pump.py` reads for it),
`StreamWire` goes through a Trio stream (TLS), `AsgiWire` through an ASGI server's own WebSocket
(HTTP/2, tests), one message at a time.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from actors.fanout import Piece
from api.ws.backlog import MAX_VIEWS
from api.ws.wire import Messages, ProtocolWire, Upgraded, Wire, WireState
from reileta.frames import payload_of
from reileta.metrics import Metrics

RECEIVE_BYTES: Final = 16_384
"""Read at a time: so much of the smallest frames still takes little enough to parse."""
STREAM_CHUNK: Final = 65_536


class SocketWire(ProtocolWire):
    """A wire straight on a non-blocking TCP socket."""

    __slots__ = ("_send", "_socket")

    def __init__(self, stream: trio.SocketStream, upgraded: Upgraded) -> None:
        super().__init__(upgraded)
        # Trio's socket object would try, wait and check for cancellation on every call. The stream
        # gives its descriptor up, and this wire owns it.
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)
        self._send = self._socket.send

    async def _receive_bytes(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def write(self, pieces: Sequence[Piece]) -> None:
        # Nearly every write: one buffer for all, to a socket for which nothing waits.
        if len(pieces) == 1 and self.state is WireState.OPEN and not self._deflate:
            batch, start, end = pieces[0]
            if not self._backlog.size:
                size = end - start
                whole = size == len(batch.buffer)
                try:
                    sent = self._send(batch.buffer if whole else batch.view[start:end])
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self.cut()
                    return
                self._metrics.bytes_out += sent
                if sent < size:
                    self._keep(pieces, sent)
                return
        super().write(pieces)

    def _write_now(self, pieces: Sequence[Piece]) -> None:
        views = [batch.view[start:end] for batch, start, end in pieces[:MAX_VIEWS]]
        try:
            sent = self._socket.sendmsg(views)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cut()
            return
        self._metrics.bytes_out += sent
        if sent < sum(end - start for _, start, end in pieces):
            self._keep(pieces, sent)

    async def _flush(self) -> None:
        while self._backlog.size:
            await trio.lowlevel.wait_writable(self._socket)
            try:
                sent = self._socket.sendmsg(self._next_views())
            except BlockingIOError:
                continue
            self._taken(sent)

    async def finish(self) -> None:
        with trio.move_on_after(self._patience_s, shield=True):
            await self._wait_flushed()
            try:
                self._socket.shutdown(socket.SHUT_WR)
                if self._protocol.close_rcvd is None:
                    # Without this, what the client sent meanwhile would have the system reset the
                    # connection, and the close frame would be lost on its way.
                    while await self._receive_bytes():
                        pass
            except OSError:
                pass
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._end()


class StreamWire(ProtocolWire):
    """A wire through a Trio stream: TLS."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream, upgraded: Upgraded) -> None:
        super().__init__(upgraded)
        self._stream = stream

    async def _receive_bytes(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def _write_now(self, pieces: Sequence[Piece]) -> None:
        self._keep(pieces, 0)

    async def _flush(self) -> None:
        while self._backlog.size:
            data = b"".join(self._next_views(STREAM_CHUNK))
            self._taken(len(data))
            await self._stream.send_all(data)

    async def finish(self) -> None:
        with trio.move_on_after(self._patience_s, shield=True):
            await self._wait_flushed()
            await self._stream.aclose()
        self._end()


class AsgiSocket(Protocol):
    """What is needed of an ASGI server's WebSocket (Quart's `websocket`)."""

    async def receive(self) -> str | bytes: ...

    async def send(self, data: str) -> None: ...

    async def close(self, code: int, reason: str = "") -> None: ...


class AsgiWire(Wire):
    """A wire through an ASGI server's own WebSocket, one message at a time.

    It answers and sends pings by itself, so `ping` has nothing to do.
    """

    __slots__ = ("_closing", "_websocket")

    def __init__(
        self,
        websocket: AsgiSocket,
        nursery: trio.Nursery,
        metrics: Metrics,
        *,
        backlog_limit_bytes: int,
        remote: str,
    ) -> None:
        super().__init__(nursery, metrics, backlog_limit_bytes=backlog_limit_bytes, remote=remote)
        self._websocket = websocket
        self._closing: tuple[int, str] | None = None

    async def receive(self) -> Messages:
        message = await self._websocket.receive()
        self.heard_at = trio.current_time()
        if isinstance(message, bytes):
            return [None]
        self._metrics.bytes_in += len(message)
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
            self._metrics.bytes_out += len(frame)
            await self._websocket.send(payload_of(frame).decode())
        if self._closing is not None:
            await self._websocket.close(*self._closing)
            self.cut()

    async def finish(self) -> None:
        with trio.move_on_after(self._patience_s, shield=True):
            await self._wait_flushed()
        self._end()
