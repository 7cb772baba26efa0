"""Notices that the database's clock was set, or that the machine slept.

Timers run on the event loop's clock, which knows of neither. So after a step, every `Deadline`
fires at once; its owner looks at the time and sets it again. An owner whose deadlines are waits of
a known length has a `StepWatch`, and moves them with the clock.
"""

from __future__ import annotations

from typing import Final

import structlog

from actors.runtime.timers import Timers
from reileta.clock import Clock
from reileta.observability import log_events

EVERY_S: Final = 5.0
STEP_MS: Final = 1000
"""Smaller steps fire no deadlines: the system's clock is slewed, too."""
NOTICED_MS: Final = 100
"""A `StepWatch` adds up smaller steps until they are this much."""

_log = structlog.get_logger()


class StepWatch:
    """Compares the clock's wall time with its steady time, from one look to the next."""

    __slots__ = ("_clock", "_least_ms", "_offset_ms")

    def __init__(self, clock: Clock, least_ms: int = NOTICED_MS) -> None:
        self._clock = clock
        self._least_ms = least_ms
        self._offset_ms = self._offset()

    def look(self, now_ms: int | None = None) -> int:
        """By how many ms the wall clock was set since that was last told, back if negative; 0 for
        less than `least_ms`. `now_ms`: the wall time, if the caller has just read it."""
        step_ms = self._offset(now_ms) - self._offset_ms
        if abs(step_ms) < self._least_ms:
            return 0
        self._offset_ms += step_ms
        return step_ms

    def _offset(self, now_ms: int | None = None) -> int:
        return (self._clock.now_ms() if now_ms is None else now_ms) - self._clock.steady_ms()


class ClockSteps:
    """Fires all deadlines after a step. Called every `EVERY_S`."""

    def __init__(self, clock: Clock, timers: Timers) -> None:
        self._watch = StepWatch(clock, STEP_MS)
        self._timers = timers

    async def check(self) -> None:
        """Fires all deadlines if the wall time has jumped since the last call."""
        step_ms = self._watch.look()
        if step_ms:
            _log.warning(log_events.CLOCK_STEPPED, step_ms=step_ms)
            self._timers.fire_wall_timers()
