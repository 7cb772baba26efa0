"""Limits on unsent answers, per address and in all.

An answer that the client does not read takes memory or keeps a file open. Without limits, a client
could send many requests at once and read none of the answers.
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
"""Unsent bytes of answers per address. An answer that exceeds it is refused."""
TOTAL_BYTES: Final = 192 * MIB
"""The same for all addresses together."""
ADDRESS_STREAMS: Final = 64
"""Answers per address that are read from a file while they are sent."""


class Unsent:
    """Counts unsent answers. `key` is the address, or its network."""

    def __init__(self) -> None:
        self.bytes = 0
        """Unsent bytes now."""
        self._bytes: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()

    @contextmanager
    def holding(self, key: str, size: int) -> Iterator[None]:
        """Counts bytes while they are sent. Raises ClientGone if that exceeds a limit."""
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
        """Whether that many more bytes may wait."""
        return self._bytes[key] + size <= ADDRESS_BYTES and self.bytes + size <= TOTAL_BYTES

    def has_room(self, key: str) -> bool:
        """Whether the address may get another answer at all."""
        return self._bytes[key] < ADDRESS_BYTES and self.bytes < TOTAL_BYTES

    def may_send(self, key: str, body: bytes | Streamed) -> bool:
        """Whether this answer may be sent within the limits."""
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
