"""The server's clock: the system's wall time, and a steady time for durations."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC, as the system's clock says now. It can jump either way."""
        ...

    def steady_ms(self) -> int:
        """Milliseconds since some moment; never jumps. For durations inside of the process."""
        ...


class SystemClock:
    """The machine's clocks.

    The wall time is read anew each time: after a suspend, or a step by NTP, the times of tokens and
    bans are right at once.
    """

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000
