"""Strict decoder of chunked bodies (RFC 9112, 7.1).

httptools, which parses request heads, could decode them, but does not tell where a body ends and
the next request begins.
"""

from __future__ import annotations

import re
from typing import Final

from api.listen.request_head import HEAD_LIMIT_BYTES

_NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*" % (_NAME, _NAME, _QUOTED))
"""A size and its extensions. White space, which the RFC lets recipients accept, is refused."""
_LINE_LIMIT: Final = 512
"""Bytes of a chunk's size and extensions."""
_OVERHEAD_BYTES: Final = 64 * 1024
"""Limit of sizes and extensions beyond the bytes of data."""
CHUNK_COST_BYTES: Final = 32
"""Overhead counted for each chunk, in addition to its line: small chunks cost the server more than
the client."""
CHUNKS_AT_ONCE: Final = 256
"""Chunks that are decoded before other connections get a turn."""


class ChunkedError(Exception):
    """The body is not chunked correctly."""


class ChunkedDecoder:
    """Decodes a chunked body piece by piece. `done` is set at its end."""

    def __init__(self) -> None:
        self.done = False
        self.paused = False
        """`feed` stopped to let others have a turn, and can continue with the buffered data."""
        self._left = 0
        """Missing bytes of the present chunk."""
        self._after_data = False
        """The line break after a chunk's data comes next."""
        self._trailers = False
        self._data_bytes = 0
        self._overhead_bytes = 0
        self._trailer_bytes = 0

    def feed(self, buffer: bytearray) -> list[bytes]:
        """Decodes and removes data from the buffer's beginning. Data behind the body stays there.

        Raises ChunkedError.
        """
        data: list[bytes] = []
        at = 0
        self.paused = False
        try:
            while not self.done:
                if len(data) >= CHUNKS_AT_ONCE:
                    self.paused = True
                    break
                if self._left:
                    part = bytes(buffer[at : at + self._left])
                    if not part:
                        break
                    data.append(part)
                    at += len(part)
                    self._left -= len(part)
                    self._data_bytes += len(part)
                    self._after_data = not self._left
                    continue
                if self._after_data:
                    ending = bytes(buffer[at : at + 2])
                    if ending in (b"", b"\r"):
                        break
                    if ending != b"\r\n":
                        raise ChunkedError("a chunk's data must end with a line break")
                    at += 2
                    self._after_data = False
                    continue
                line = self._line(buffer, at)
                if line is None:
                    break
                at += len(line) + 2
                self._count(len(line) + CHUNK_COST_BYTES)
                if self._trailers:
                    self._trailer(line)
                else:
                    self._size(line)
        finally:
            del buffer[:at]
        return data

    def _line(self, buffer: bytearray, at: int) -> bytes | None:
        """The next line without its end; None if it is incomplete."""
        limit = HEAD_LIMIT_BYTES if self._trailers else _LINE_LIMIT
        end = buffer.find(b"\n", at, at + limit + 2)
        if end < 0:
            if len(buffer) - at > limit:
                raise ChunkedError("a line is too long")
            return None
        if end == at or buffer[end - 1] != 0x0D:
            raise ChunkedError("a line must end with CR and LF")
        return bytes(buffer[at : end - 1])

    def _size(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise ChunkedError("a chunk must begin with its size")
        self._left = int(match[1], 16)
        self._trailers = not self._left

    def _trailer(self, line: bytes) -> None:
        """Checks and drops a trailer."""
        if not line:
            self.done = True
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > HEAD_LIMIT_BYTES:
            raise ChunkedError("the trailers are too long")
        name, colon, _ = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(line):
            raise ChunkedError("a trailer must be a name and a value")

    def _count(self, overhead: int) -> None:
        self._overhead_bytes += overhead
        if self._overhead_bytes > _OVERHEAD_BYTES + self._data_bytes:
            raise ChunkedError("the chunks are too small")


_TOKEN: Final = re.compile(_NAME)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
