"""A transport through a TLS stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from actors.delivery.batch import Piece
from api.ws.transport.base import ProtocolTransport, Upgraded
from api.ws.transport.tcp import RECEIVE_BYTES

STREAM_CHUNK: Final = 65_536
"""Bytes that are written at a time."""


class StreamTransport(ProtocolTransport):
    """Reads and writes a Trio stream, which speaks TLS."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream, upgraded: Upgraded) -> None:
        super().__init__(upgraded)
        self._stream: trio.abc.Stream | None = stream
        """None at the end: a seat that is kept for its player holds the transport for longer."""

    async def _receive_bytes(self) -> bytes:
        stream = self._stream
        if stream is None:
            return b""
        try:
            return bytes(await stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def _write_now(self, pieces: Sequence[Piece]) -> None:
        self._keep(pieces, 0)

    async def _flush(self) -> None:
        while self._backlog.size:
            data = b"".join(self._next_views(STREAM_CHUNK))
            self._taken(len(data))
            assert self._stream is not None
            await self._stream.send_all(data)
            self._progressed(len(data))

    async def finish(self) -> None:
        if self._stream is not None:
            with trio.move_on_after(self._patience_s, shield=True):
                await self._wait_flushed()
                await self._stream.aclose()
        self._stream = None
        self._end()
