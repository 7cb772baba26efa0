"""The server's clock: milliseconds since 1970 UTC that never go backwards."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; never goes back, even if the machine's clock is changed."""
        ...


class MonotonicClock:
    """The machine's wall clock at the start, advanced by its monotonic clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_ms(self) -> int:
        return int((self._offset_s + time.monotonic()) * 1000)
