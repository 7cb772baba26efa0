"""The server's clock: milliseconds since 1970 UTC that never jump, so that leases can use them."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC; never goes back, whatever is done to the machine's clock."""
        ...


class MonotonicClock:
    """The machine's wall clock as it stood at the start, carried on by its monotonic clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_ms(self) -> int:
        return int((self._offset_s + time.monotonic()) * 1000)
