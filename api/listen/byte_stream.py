"""Byte streams of connections, plain or TLS, and hang-up detection."""

from __future__ import annotations

import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import trio

from api.listen.timeouts import PROGRESS_BYTES, ConnectionDeadline, Timeouts
from reileta.settings import KIB

RECEIVE_BYTES: Final = 64 * KIB
"""Limit of one read. The system's allocator maps larger buffers, which would cost small reads more
than the rest of them."""
LARGE_RECEIVE_BYTES: Final = 256 * KIB
"""Limit of one read of a large body."""
RECORD_BYTES: Final = 16 * KIB
"""Limit of one read below TLS: the data of one record."""
SPARE_RECORD_BYTES: Final = 64 * KIB
RECORD_RATIO: Final = 32
"""Bytes of TLS per byte of data, beyond `SPARE_RECORD_BYTES`. A record of one byte has 23 bytes, so
a higher ratio is a flood of empty records."""
GOODBYE_S: Final = 1.0
"""Time limit for sending the `close_notify` of TLS."""
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class ClientGone(Exception):
    """The client has closed the connection, or it broke."""


class ByteStream(ABC):
    """The bytes of a connection. One task may read while another one writes.

    `send` sets `deadline` while it waits for the client to read. The caller of `receive` sets it
    while it waits for the client to send.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self.deadline = ConnectionDeadline()
        self._progress_s = timeouts.progress_s

    @abstractmethod
    def fileno(self) -> int:
        """The socket's descriptor."""

    @abstractmethod
    async def receive(self, limit_bytes: int = RECEIVE_BYTES) -> bytes:
        """The next data; empty when the client has closed or the connection broke."""

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """Sends all of it. Raises ClientGone.

        It may return without a checkpoint.
        """

    @abstractmethod
    async def end(self) -> None:
        """Closes this side for sending. The client may still send."""

    @abstractmethod
    async def finish(self) -> None:
        """Closes the connection cleanly; with TLS, sends `close_notify`."""

    @abstractmethod
    def close(self) -> None:
        """Closes the connection at once. Calling it again does nothing."""

    def is_readable(self) -> bool:
        """Whether data of the client, or the end of it, waits in the system."""
        return self._polls(select.POLLIN)

    def is_writable(self) -> bool:
        """Whether the client has made room for more data."""
        return self._polls(select.POLLOUT)

    def _polls(self, wanted: int) -> bool:
        if (descriptor := self.fileno()) < 0:
            return False
        poll = select.poll()
        poll.register(descriptor, wanted)
        return any(events & wanted for _, events in poll.poll(0))


class PlainStream(ByteStream):
    """A TCP connection, directly on its non-blocking socket.

    Trio's socket object costs more: each of its calls checks for cancellation.
    """

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        super().__init__(timeouts)
        sock.setblocking(False)
        self.socket = sock

    def fileno(self) -> int:
        return self.socket.fileno()

    async def receive(self, limit_bytes: int = RECEIVE_BYTES) -> bytes:
        try:
            data = self.socket.recv(limit_bytes)
        except BlockingIOError:
            return await self._receive_later(limit_bytes)
        except OSError:
            return b""
        # A client that always has data ready must not keep other tasks waiting.
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def _receive_later(self, limit_bytes: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(limit_bytes)
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
        """Hands the socket over to a new owner. This stream is closed afterwards."""
        owned, self.socket = self.socket, _CLOSED
        return owned


_CLOSED: Final = socket.socket()
_CLOSED.close()


class TlsTransport(trio.abc.Stream):
    """The TCP connection below TLS, which bounds records without data.

    The TLS stream processes any number of records without data (key updates, empty ones) within
    one read. So this class takes a turn for each record, and breaks the connection if its records
    carry too little data (`RECORD_RATIO`).
    """

    def __init__(self, stream: trio.SocketStream, take_turn: Callable[[], Awaitable[None]]) -> None:
        self.socket = stream.socket
        self.data_bytes = 0
        """Bytes of data in the records so far. `TlsData` counts them."""
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
        # Take the turn before reading: a reader that is cancelled in between must not lose data.
        await trio.lowlevel.wait_readable(self.socket)
        await self._take_turn()
        data = await self._stream.receive_some(RECORD_BYTES)
        self._record_bytes += len(data)
        if self._record_bytes > SPARE_RECORD_BYTES + RECORD_RATIO * self.data_bytes:
            raise trio.BrokenResourceError("too many TLS records without data")
        return data

    async def send_eof(self) -> None:
        """Closes this side of the TCP connection for sending."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class TlsData(trio.abc.Stream):
    """The data of a TLS stream, counted for its `TlsTransport`."""

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
        """The stream for the next owner of the connection."""

    def forget_handshake(self) -> None:
        """Breaks the reference cycle of Trio's stream, after the attempt to do the handshake.

        The stream keeps its bound method for the handshake, which it calls once. With that cycle,
        the 50 KiB of a closed connection would wait for the garbage collector, which comes to old
        objects only after minutes.
        """
        once: Any = self.stream._handshook
        once._afn = None

    @property
    def speaks_http2(self) -> bool:
        """Whether the handshake chose HTTP/2."""
        return bool(self.stream.selected_alpn_protocol() == "h2")

    def fileno(self) -> int:
        return self.stream.transport_stream.socket.fileno()

    async def receive(self, limit_bytes: int = RECEIVE_BYTES) -> bytes:
        try:
            return bytes(await self.data.receive_some(limit_bytes))
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
        # TLS can't close one side. Where the end of the connection ends an answer, HTTPS clients
        # accept the end of TCP.
        with suppress(*_BROKEN, trio.BusyResourceError):
            await self.stream.transport_stream.send_eof()

    async def finish(self) -> None:
        with trio.move_on_after(GOODBYE_S), suppress(*_BROKEN):
            await self.stream.aclose()

    def close(self) -> None:
        self.stream.transport_stream.socket.close()


class HangupWatch:
    """Detects that clients have hung up, also while nothing reads from their connections.

    Nothing reads while a handler works. One edge-triggered epoll for all connections costs each
    connection two system calls in all.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[bool], None]] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, descriptor: int, callback: Callable[[bool], None]) -> None:
        """Calls `callback` with False when the client has closed its side, and with True when the
        connection is broken."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, select.EPOLLRDHUP | select.EPOLLET)

    def remove(self, descriptor: int) -> None:
        """Stops watching the connection. Call it before the descriptor is closed."""
        if self._callbacks.pop(descriptor, None) is not None and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Watches until cancelled."""
        callback: Callable[[bool], None] | None
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for descriptor, events in self._epoll.poll(0):
                callback = self._callbacks.get(descriptor)
                if callback is not None:
                    callback(bool(events & (select.EPOLLHUP | select.EPOLLERR)))
            callback = None  # don't keep the connection alive while this waits

    def close(self) -> None:
        """Stops for good; a later `remove` does nothing."""
        self._epoll.close()
