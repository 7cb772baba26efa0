"""How many frames of HTTP/2 a client may send that carry nothing.

Settings, pings, resets, priorities and empty data cost us more than they cost the client, and the
protocol puts no bound on them. They are counted on the bytes themselves, before any of them is
looked at, with a rate that credits what this side has sent.
"""

from __future__ import annotations

from typing import Final

from api.listen.http1 import PREFACE

BURST: Final = 500
"""Frames at once."""
PER_S: Final = 50
"""Frames a second, in the long run, beside those that were credited."""
BANK: Final = 4096
"""Frames of credit that are kept: for what a client has yet to say of the data that is on its way
to it, which is as much as its window holds."""
FULL_BYTES: Final = 512
"""A frame of data of this size or more is counted by flow control alone."""
_HEADER_BYTES: Final = 9
_DATA: Final = 0


class FrameMeter:
    """Counts the frames of one connection, from the preface on."""

    __slots__ = ("_at", "_header", "_skip", "_spent")

    def __init__(self) -> None:
        self._skip = len(PREFACE)
        """Bytes to come that are not a frame's header."""
        self._header = b""
        self._spent = 0.0
        self._at = 0.0

    def allow(self, frames: int) -> None:
        """Credits so many frames."""
        self._spent = max(-float(BANK), self._spent - frames)

    def take(self, data: bytes, now: float) -> bool:
        """Counts what begins in the data; False when it is too much. `now` is in seconds."""
        if self._spent > 0:
            self._spent = max(0.0, self._spent - (now - self._at) * PER_S)
        self._at = now
        at = 0
        size = len(data)
        while at < size:
            if self._skip:
                skipped = min(self._skip, size - at)
                self._skip -= skipped
                at += skipped
                continue
            part = data[at : at + _HEADER_BYTES - len(self._header)]
            at += len(part)
            header = self._header + part
            if len(header) < _HEADER_BYTES:
                self._header = header
                break
            self._header = b""
            self._skip = int.from_bytes(header[:3], "big")
            if header[3] != _DATA or self._skip < FULL_BYTES:
                self._spent += 1
        return self._spent <= BURST
