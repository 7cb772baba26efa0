"""WebSocket frames (RFC 6455), only as far as the load generator needs them.

A message is built and masked once per connection. To send it, the 19 digits of its due time are
written into it, masked. Everything here is pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

TEXT: Final = 1
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

MASK: Final = b"\x5a\xc3\x3c\xa5"
"""One mask for all frames. It must not be zero, because servers may skip the unmasking of zeros."""

MARKER: Final = b"~<~~<<~<<~~<~<<~~<~<"
"""Marks the end of every payload. Its two characters occur nowhere else in what servers send, and
neither do characters with the same low 6 bits. So `bytes.count` can skip almost everything.
"""

STAMP_DIGITS: Final = 19
_STAMP_ZERO: Final = b"0" * STAMP_DIGITS
_BETWEEN: Final = b'","m":"'
STAMP_BEFORE_MARKER: Final = STAMP_DIGITS + len(_BETWEEN)
"""The time a message was due begins this many bytes before its marker."""


def payload(sender: int, size: int) -> bytes:
    """A JSON object of `size` bytes: padding, the sender, the time it was due, the marker.

    Raises ValueError if `size` is too small for them.
    """
    tail = b'","s":"%06d","t":"%b%b%b"}' % (sender, _STAMP_ZERO, _BETWEEN, MARKER)
    head = b'{"x":"'
    room = size - len(head) - len(tail)
    if room < 0:
        raise ValueError(f"a payload needs at least {size - room} bytes")
    return head + b"." * room + tail


def masked(data: bytes, mask: bytes = MASK) -> bytes:
    """`data` under a WebSocket mask (which is its own inverse)."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)


def client_frame(data: bytes, opcode: int = TEXT) -> bytes:
    """One unfragmented, masked frame."""
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + MASK + masked(data)


class Template:
    """A message that is built once and sent often, each time with another due time."""

    def __init__(self, data: bytes) -> None:
        """`data`: the unmasked message around a `payload`. Raises ValueError without a marker."""
        self.frame = bytearray(client_frame(data))
        where = data.index(MARKER) - STAMP_BEFORE_MARKER
        begin = len(self.frame) - len(data) + where
        self._place = slice(begin, begin + STAMP_DIGITS)
        key = (MASK * (len(data) // 4 + 1))[where : where + STAMP_DIGITS]
        self._key = int.from_bytes(key)
        self.last_ns = 0

    def stamped(self, due_ns: int) -> bytearray:
        """The frame with that time in it. Returns the same bytearray each time."""
        digits = int.from_bytes(b"%019d" % due_ns)
        self.frame[self._place] = (digits ^ self._key).to_bytes(STAMP_DIGITS)
        self.last_ns = due_ns
        return self.frame


@dataclass(frozen=True, slots=True)
class Frame:
    opcode: int
    data: bytes


class FrameReader:
    """Splits a server's data into frames. For set-up, answers and checks, not for the hot path."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        """Whether no part of a frame waits for more."""
        return not self._buffer

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """All frames that are complete now. Incomplete data waits for more."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= 2:
            size, begin = buffer[at + 1] & 0x7F, at + 2
            if size == 126:
                size, begin = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
            elif size == 127:
                size, begin = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
            if len(buffer) < begin + size:
                break
            frames.append(Frame(buffer[at] & 0x0F, bytes(buffer[begin : begin + size])))
            at = begin + size
        del buffer[:at]
        return frames


def close_code(data: bytes) -> int | None:
    """The close code in a close frame's payload; None if it has none."""
    return int.from_bytes(data[:2]) if len(data) >= 2 else None
