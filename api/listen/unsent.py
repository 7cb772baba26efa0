"""What waits for clients to read it: bounded for each address, and in all.

An answer that its client does not read is held in memory, or keeps a file open. A client could ask
for as many as it may have requests at once, and read none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from api.http.answer import Streamed
from api.listen.byte_stream import ClientGone
from reileta.settings import MIB

ADDRESS_BYTES: Final = 16 * MIB
"""Bytes of answers that may wait for one address. What goes beyond ends its request."""
TOTAL_BYTES: Final = 192 * MIB
"""The same for all addresses together."""
ADDRESS_STREAMS: Final = 64
"""Answers that are read from a file while they are sent, to one address at once."""


class Unsent:
    """Counts what waits. `key` is the address, or its network."""

    def __init__(self) -> None:
        self.bytes = 0
        """Bytes that wait now."""
        self._bytes: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    @contextmanager
    def holding(self, key: str, size: int) -> Iterator[None]:
        """Counts so many bytes while they are sent. Raises ClientGone when that is too much."""
        if not self.fits(key, size):
            raise ClientGone
        self._bytes[key] += size
        self.bytes += size
        try:
            yield
        finally:
            self.bytes -= size
            self._bytes[key] -= size
            if not self._bytes[key]:
                del self._bytes[key]

    def fits(self, key: str, size: int) -> bool:
        """Whether so many bytes more may wait."""
        return self._bytes[key] + size <= ADDRESS_BYTES and self.bytes + size <= TOTAL_BYTES

    def has_room(self, key: str) -> bool:
        """Whether a further answer for the address should be made at all."""
        return self._bytes[key] < ADDRESS_BYTES and self.bytes < TOTAL_BYTES

    def may_send(self, key: str, body: bytes | Streamed) -> bool:
        """Whether one more answer may be sent, or be read from a file while it is sent."""
        if isinstance(body, bytes):
            return self.fits(key, len(body))
        return self._streams[key] < ADDRESS_STREAMS

    @contextmanager
    def streaming(self, key: str) -> Iterator[None]:
        """Counts an answer that is read from a file while it is sent."""
        self._streams[key] += 1
        try:
            yield
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]
