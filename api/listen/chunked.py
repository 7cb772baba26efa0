"""Chunked bodies (RFC 9112, 7.1), as strictly as the RFC writes them.

The parser of heads could do this as well, but does not say where a body ends: and behind it the
next request begins.
"""

from __future__ import annotations

import re
from typing import Final

from api.listen.request_head import HEAD_LIMIT_BYTES

_NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*" % (_NAME, _NAME, _QUOTED))
"""A size and its extensions, without the white space that the RFC would have a recipient take."""
_LINE_LIMIT: Final = 512
"""A chunk's size and extensions."""
_OVERHEAD_BYTES: Final = 64 * 1024
"""Sizes and extensions may come to so much more than the data."""
CHUNK_COST_BYTES: Final = 32
"""What each chunk counts as, beside its line: small ones cost us more than they cost the client."""
CHUNKS_AT_ONCE: Final = 256
"""Chunks that are taken before others get a turn."""


class ChunkedError(Exception):
    """The body is not chunked as RFC 9112 says."""


class ChunkedDecoder:
    """Takes a chunked body apart, in as many pieces as it comes in. `done` at its end."""

    def __init__(self) -> None:
        self.done = False
        self.paused = False
        """`feed` stopped to let others have a turn, and can go on with what is in the buffer."""
        self._left = 0
        """Bytes of the present chunk that are still to come."""
        self._after_data = False
        """The line break behind a chunk's data is next."""
        self._trailers = False
        self._data_bytes = 0
        self._overhead_bytes = 0
        self._trailer_bytes = 0

    def feed(self, buffer: bytearray) -> list[bytes]:
        """Takes what it can from the buffer's beginning; what lies behind the body stays there.

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
        """The next line without its end; None until it has all come."""
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
        found = _SIZE.fullmatch(line)
        if found is None:
            raise ChunkedError("a chunk must begin with its size")
        self._left = int(found[1], 16)
        self._trailers = not self._left

    def _trailer(self, line: bytes) -> None:
        """Trailers are read and dropped."""
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
