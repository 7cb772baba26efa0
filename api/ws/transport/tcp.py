"""A transport straight on a non-blocking TCP socket."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

import trio

from actors.delivery.batch import Piece
from api.ws.transport.backlog import MAX_VIEWS
from api.ws.transport.base import ProtocolTransport, TransportState, Upgraded

RECEIVE_BYTES: Final = 16_384
"""Bytes that are read at a time. Parsing so many of the smallest frames is still quick."""


class SocketTransport(ProtocolTransport):
    """Writes to a non-blocking TCP socket. `EpollTransport` adds a faster way to read."""

    __slots__ = ("_send", "_socket")

    def __init__(self, sock: socket.socket, upgraded: Upgraded) -> None:
        super().__init__(upgraded)
        # Trio's socket object would try, wait and check for cancellation on every call.
        self._socket = sock
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
        if len(pieces) == 1 and self.state is TransportState.OPEN and not self._deflate:
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
            self._progressed(sent)

    async def finish(self) -> None:
        with trio.move_on_after(self._patience_s, shield=True):
            await self._wait_flushed()
            try:
                self._socket.shutdown(socket.SHUT_WR)
                if self._protocol.close_rcvd is None:
                    # Unread bytes of the client would make the system reset the connection, and
                    # the close frame would be lost.
                    while await self._receive_bytes():
                        pass
            except OSError:
                pass
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._end()
