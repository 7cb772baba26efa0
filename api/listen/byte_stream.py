"""The bytes of a connection, plain or TLS, and when its client has gone."""

from __future__ import annotations

import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from api.listen.timeouts import PROGRESS_BYTES, Deadline, Timeouts
from reileta.settings import KIB

RECEIVE_BYTES: Final = 64 * KIB
"""Read at a time, at most."""
RECORD_BYTES: Final = 16 * KIB
"""Read at a time below TLS: what one record holds."""
SPARE_RECORD_BYTES: Final = 64 * KIB
RECORD_RATIO: Final = 32
"""A record of one byte has 23. More than this, and the spare bytes, is a flood of empty ones."""
GOODBYE_S: Final = 1.0
"""How long the `close_notify` of TLS may take to be sent."""
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class ClientGone(Exception):
    """The client has closed the connection, or it broke."""


class ByteStream(ABC):
    """One connection's bytes. One task reads and, at the same time, one may write.

    `deadline` is set while `send` waits for the client to read; whoever waits for `receive` sets
    it to what the wait is worth.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self.deadline = Deadline()
        self._progress_s = timeouts.progress_s

    @abstractmethod
    def fileno(self) -> int:
        """The socket's descriptor."""

    @abstractmethod
    async def receive(self) -> bytes:
        """What has come; empty at the end, whether the client closed or the connection broke."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Sends all of it. Raises ClientGone.

        It may return without a checkpoint.
        """

    @abstractmethod
    async def end(self) -> None:
        """Says that nothing more will be sent. The client may still be sending."""

    @abstractmethod
    async def finish(self) -> None:
        """Closes the connection as its protocol says."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection at once; once more does nothing."""


class PlainStream(ByteStream):
    """A TCP connection, straight on its non-blocking socket.

    Trio's socket object would try, wait and check for cancellation on every call.
    """

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        super().__init__(timeouts)
        sock.setblocking(False)
        self.socket = sock

    def fileno(self) -> int:
        return self.socket.fileno()

    async def receive(self) -> bytes:
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return await self._receive_later()
        except OSError:
            return b""
        # A client that always has something there must not keep the others waiting.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def _receive_later(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def send(self, data: bytes) -> None:
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise ClientGone from None
        if sent < len(data):
            await self._send_slowly(memoryview(data)[sent:])

    async def _send_slowly(self, view: memoryview) -> None:
        self.deadline.set(self._progress_s)
        progress = 0
        while view:
            await trio.lowlevel.wait_writable(self.socket)
            try:
                sent = self.socket.send(view)
            except BlockingIOError:
                continue
            except OSError:
                raise ClientGone from None
            view = view[sent:]
            progress += sent
            if progress >= PROGRESS_BYTES:
                self.deadline.set(self._progress_s)
                progress = 0
        self.deadline.clear()

    async def end(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    async def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def release(self) -> socket.socket:
        """Gives the socket up, for another owner; this stream is over."""
        owned, self.socket = self.socket, _CLOSED
        return owned


_CLOSED: Final = socket.socket()
_CLOSED.close()


class TlsTransport(trio.abc.Stream):
    """The TCP connection below TLS, of which as much is read at a time as one record holds, and no
    more than its data is worth.

    Records that carry no data (key updates, empty ones) are taken apart within one read of the TLS
    stream, however many of them there are.
    """

    def __init__(self, stream: trio.SocketStream, take_turn: Callable[[], Awaitable[None]]) -> None:
        self.socket = stream.socket
        self.data_bytes = 0
        """What came out of the records, as their owner counts it."""
        self._stream = stream
        self._take_turn = take_turn
        self._record_bytes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.socket.fileno() < 0:
            raise trio.ClosedResourceError
        # The turn first: a reader that is cancelled while it waits for it must lose nothing.
        await trio.lowlevel.wait_readable(self.socket)
        await self._take_turn()
        data = await self._stream.receive_some(RECORD_BYTES)
        self._record_bytes += len(data)
        if self._record_bytes > SPARE_RECORD_BYTES + RECORD_RATIO * self.data_bytes:
            raise trio.BrokenResourceError("more of TLS than it carries")
        return data

    async def send_eof(self) -> None:
        """Ends this side of the connection below TLS."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class TlsData(trio.abc.Stream):
    """What TLS carries, counted for its `TlsTransport`."""

    def __init__(self, tls: trio.SSLStream[TlsTransport]) -> None:
        self._tls = tls

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._tls.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._tls.receive_some(max_bytes)
        self._tls.transport_stream.data_bytes += len(data)
        return data

    async def aclose(self) -> None:
        await self._tls.aclose()


class TlsStream(ByteStream):
    """A TLS connection, through Trio's stream."""

    def __init__(self, stream: trio.SSLStream[TlsTransport], timeouts: Timeouts) -> None:
        super().__init__(timeouts)
        self.stream = stream
        self.data = TlsData(stream)
        """For another owner of the connection."""

    @property
    def speaks_http2(self) -> bool:
        """Whether the handshake chose HTTP/2."""
        return bool(self.stream.selected_alpn_protocol() == "h2")

    def fileno(self) -> int:
        return self.stream.transport_stream.socket.fileno()

    async def receive(self) -> bytes:
        try:
            return bytes(await self.data.receive_some(RECEIVE_BYTES))
        except _BROKEN:
            return b""

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            for start in range(0, len(view), PROGRESS_BYTES):
                self.deadline.set(self._progress_s)
                await self.stream.send_all(view[start : start + PROGRESS_BYTES])
        except _BROKEN:
            raise ClientGone from None
        self.deadline.clear()

    async def end(self) -> None:
        # TLS itself can't close one side alone; where the connection's end is a part of an answer's
        # meaning, clients of HTTPS take that of TCP.
        with suppress(*_BROKEN, trio.BusyResourceError):
            await self.stream.transport_stream.send_eof()

    async def finish(self) -> None:
        with trio.move_on_after(GOODBYE_S), suppress(*_BROKEN):
            await self.stream.aclose()

    def close(self) -> None:
        self.stream.transport_stream.socket.close()


class HangupWatch:
    """Tells connections that their clients closed or vanished, while nobody reads from them.

    A handler works while its connection's task waits for it, so nobody would notice. One epoll for
    all connections, edge-triggered, costs a connection two system calls in its whole life.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._tell: dict[int, Callable[[bool], None]] = {}

    def __len__(self) -> int:
        return len(self._tell)

    def add(self, descriptor: int, tell: Callable[[bool], None]) -> None:
        """Calls `tell` once the client has closed its side (False), or the connection is broken
        (True)."""
        self._tell[descriptor] = tell
        self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLET)

    def remove(self, descriptor: int) -> None:
        """Forgets the connection. Called before the descriptor is closed."""
        if self._tell.pop(descriptor, None) is not None and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Watches until cancelled."""
        tell: Callable[[bool], None] | None
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for descriptor, events in self._epoll.poll(0):
                    tell = self._tell.get(descriptor)
                    if tell is not None:
                        tell(bool(events & (select.EPOLLHUP | select.EPOLLERR)))
                tell = None  # its connection may end while this waits
        finally:
            self._epoll.close()
