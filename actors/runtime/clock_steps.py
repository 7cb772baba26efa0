"""Notices that the system's clock was set, or that the machine slept.

Timers run on the event loop's clock, which knows of neither. So after a step, every `Deadline`
fires at once; its owner looks at the time and sets it again.
"""

from __future__ import annotations

from typing import Final

import structlog

from actors.runtime.timers import Timers
from reileta.clock import Clock
from reileta.observability import log_events

EVERY_S: Final = 5.0
STEP_MS: Final = 1000
"""Smaller steps are left to the deadlines themselves: the system's clock is slewed, too."""

_log = structlog.get_logger()


class ClockSteps:
    """Compares the clock's wall time with its steady time. Called every `EVERY_S`."""

    def __init__(self, clock: Clock, timers: Timers) -> None:
        self._clock = clock
        self._timers = timers
        self._offset_ms = self._offset()

    async def check(self) -> None:
        """Fires all deadlines if the wall time has jumped since the last call."""
        before, self._offset_ms = self._offset_ms, self._offset()
        step_ms = self._offset_ms - before
        if abs(step_ms) >= STEP_MS:
            _log.warning(log_events.CLOCK_STEPPED, step_ms=step_ms)
            self._timers.fire_wall_timers()

    def _offset(self) -> int:
        return self._clock.now_ms() - self._clock.steady_ms()
