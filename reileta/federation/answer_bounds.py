"""Bounds of one HTTP answer: its bytes, and its lines, which cost time to parse. Pure.

The parser of HTTP does not yield while it has something to parse. Without these bounds, an answer
in chunks of one byte, or thousands of interim answers, would hold up everything else for as long as
it takes to parse what was read at once.
"""

from __future__ import annotations

import re
from typing import Final

from reileta.errors import BadData

HEAD_BYTES: Final = 32 * 1024
BODY_BYTES: Final = 1024 * 1024
HEAD_LINES: Final = 256
INTERIM_ANSWERS: Final = 4
"""Answers with a status of 1xx before the answer itself."""
CHUNKED_LINES: Final = 8192
"""Lines in a chunked body: each chunk has two."""
CHUNKED_BYTES: Final = 64 * 1024
"""Bytes that the chunks may add to the body."""
SMALL_READ: Final = 2048
"""Bytes that are read at once if they may be many lines."""
LARGE_READ: Final = 64 * 1024

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_INTERIM: Final = re.compile(rb"HTTP/\S+ +1")


class AnswerBounds:
    """Counts what comes of one answer. Make one for each request."""

    def __init__(self) -> None:
        self.received = 0
        """Bytes of the answer."""
        self._limit = HEAD_BYTES + SMALL_READ
        self._lines = 0
        self._line_limit = HEAD_LINES
        self._interim = 0
        self._in_head = True
        self._head = bytearray()
        self._body_at: int | None = None
        """Where the body begins, once that is known."""
        self.read_bytes = SMALL_READ
        """Bytes to read at once."""

    def begin_body(self, *, chunked: bool) -> None:
        """The head is complete; the body follows, or was received with it in part."""
        self._in_head = False
        self._body_at = _end_of_heads(self._head)
        self._lines = 0
        self._line_limit = CHUNKED_LINES
        self._limit = self.received + BODY_BYTES + (CHUNKED_BYTES if chunked else 0)
        self.read_bytes = SMALL_READ if chunked else LARGE_READ

    def ends_with(self, body_bytes: int) -> bool:
        """Whether nothing was received but the heads and a body of that length, in one piece."""
        return self._body_at is not None and self.received == self._body_at + body_bytes

    def admit(self, data: bytes) -> None:
        """Counts what was received. Raises BadData if it is too much."""
        self.received += len(data)
        if self._in_head:
            self._head += data
        if self.received > self._limit:
            raise BadData(cause=f"the {'head' if self._in_head else 'body'} is too large")
        if self.read_bytes == LARGE_READ:
            return
        end = None
        if self._in_head and (blank := _BLANK_LINE.search(data)):
            end = blank.start()
            self._interim += data.count(b"\nHTTP/", end)
        self._lines += data.count(b"\n", 0, end)
        if self._lines > self._line_limit or self._interim > INTERIM_ANSWERS:
            raise BadData(cause="the answer has too many lines")


def _end_of_heads(received: bytearray) -> int | None:
    """Where the head of the answer ends, after those of interim answers (1xx)."""
    place = 0
    while (blank := _BLANK_LINE.search(received, place)) is not None:
        if _INTERIM.match(received, place) is None:
            return blank.end()
        place = blank.end()
    return None
