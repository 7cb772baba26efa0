"""Reader of HTTP/2 frames that limits their size and rate.

`h2` buffers a frame of any length until it is complete, and a header block until its last fragment.
Settings, pings, resets, priorities and empty data cost the server more than the client, and the
protocol does not limit them. So this reader checks the header of each frame before h2 gets it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from h2.errors import ErrorCodes

from api.listen.http1 import PREFACE
from api.listen.request_head import HEAD_LIMIT_BYTES
from reileta.settings import KIB

BURST: Final = 500
"""Frames that a client may send at once."""
PER_S: Final = 50
"""Frames per second in the long run, in addition to the credit."""
BANK: Final = 4096
"""Limit of the credit: window updates for all data that can be on its way to a client."""
FULL_BYTES: Final = 512
"""Data frames of this size or more are not counted, because flow control limits them."""
FRAME_LIMIT_BYTES: Final = 16 * KIB
"""Limit of a frame's payload: the default of SETTINGS_MAX_FRAME_SIZE."""
SETTINGS_LIMIT: Final = 32
"""Settings in one frame; the protocol knows seven."""
TABLE_UPDATES: Final = 2
"""Table size updates at the beginning of a header block (RFC 7541, 4.2)."""
_HEADER_BYTES: Final = 9
_SETTING_BYTES: Final = 6
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20


class FrameType(enum.IntEnum):
    """Frame types (RFC 9113, 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


_IGNORED: Final = frozenset({FrameType.PRIORITY})
"""Types that are read and dropped, like unknown ones."""


class FrameRefused(Exception):
    """The connection must end with `code`."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Frame:
    """A complete frame. `data` is its header and payload; `ends_headers` means that it completes
    the headers of a request."""

    type: int
    data: bytes
    ends_headers: bool = False


class FrameReader:
    """Checks the preface, splits the data behind it into frames, and counts them.

    It buffers at most one incomplete frame.
    """

    __slots__ = ("_at", "_block_bytes", "_block_open", "_buffer", "_counted", "_preface", "_spent")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._preface = len(PREFACE)
        """Missing bytes of the preface."""
        self._counted = False
        """The incomplete frame at the buffer's beginning was checked and counted."""
        self._block_open = False
        self._block_bytes = 0
        self._spent = 0.0
        self._at = 0.0

    def allow(self, frames: int) -> None:
        """Adds credit for that number of frames."""
        self._spent = max(-float(BANK), self._spent - frames)

    def feed(self, data: bytes) -> None:
        """Adds received data. Call `next` until it returns None before you feed more."""
        self._buffer += data

    def next(self, now: float) -> Frame | None:
        """The next complete frame; None if more data is needed. Ignored types are skipped.

        Args:
            now: the present time in seconds, of any clock.

        Raises FrameRefused.
        """
        buffer = self._buffer
        if self._preface:
            begun = bytes(buffer[: self._preface])
            if not PREFACE[-self._preface :].startswith(begun):
                raise FrameRefused(ErrorCodes.PROTOCOL_ERROR)
            del buffer[: len(begun)]
            self._preface -= len(begun)
        while len(buffer) >= _HEADER_BYTES:
            size = int.from_bytes(buffer[:3], "big")
            kind, flags = buffer[3], buffer[4]
            if not self._counted:
                self._check(kind, flags, size, now)
                self._counted = True
            if len(buffer) < _HEADER_BYTES + size:
                return None
            data = bytes(buffer[: _HEADER_BYTES + size])
            del buffer[: _HEADER_BYTES + size]
            self._counted = False
            if kind > FrameType.CONTINUATION or kind in _IGNORED:
                continue
            ends_headers = kind in (FrameType.HEADERS, FrameType.CONTINUATION) and bool(
                flags & _END_HEADERS
            )
            if kind == FrameType.HEADERS and _table_updates(data, flags) > TABLE_UPDATES:
                raise FrameRefused(ErrorCodes.COMPRESSION_ERROR)
            return Frame(kind, data, ends_headers)
        return None

    def _check(self, kind: int, flags: int, size: int, now: float) -> None:
        """Checks and counts a frame by its header. Raises FrameRefused."""
        if size > FRAME_LIMIT_BYTES:
            raise FrameRefused(ErrorCodes.FRAME_SIZE_ERROR)
        if self._block_open != (kind == FrameType.CONTINUATION):
            raise FrameRefused(ErrorCodes.PROTOCOL_ERROR)
        if kind in (FrameType.HEADERS, FrameType.CONTINUATION):
            self._block_bytes += size
            self._block_open = not flags & _END_HEADERS
            if self._block_bytes > HEAD_LIMIT_BYTES:
                raise FrameRefused(ErrorCodes.ENHANCE_YOUR_CALM)
            if not self._block_open:
                self._block_bytes = 0
        if kind == FrameType.SETTINGS and size > SETTINGS_LIMIT * _SETTING_BYTES:
            raise FrameRefused(ErrorCodes.ENHANCE_YOUR_CALM)
        if self._spent > 0:
            self._spent = max(0.0, self._spent - (now - self._at) * PER_S)
        self._at = now
        if kind != FrameType.DATA or size < FULL_BYTES:
            self._spent += 1
        if self._spent > BURST:
            raise FrameRefused(ErrorCodes.ENHANCE_YOUR_CALM)


def _table_updates(frame: bytes, flags: int) -> int:
    """Number of table size updates at the beginning of a header block, up to one over the limit.

    Each costs the decoder as much as a header, but is not counted as one.
    """
    at = _HEADER_BYTES + bool(flags & _PADDED) + (5 if flags & _PRIORITY else 0)
    updates = 0
    while at < len(frame) and frame[at] & 0xE0 == 0x20 and updates <= TABLE_UPDATES:
        updates += 1
        at += 1
        if frame[at - 1] & 0x1F == 0x1F:  # an integer of several bytes (RFC 7541, 5.1)
            while at < len(frame) and frame[at] & 0x80:
                at += 1
            at += 1
    return updates
