"""Leaves out warnings and errors that come too often.

A client that finds a defect can repeat it as often as it likes, and each time costs a line with a
traceback. So each kind of warning and error has a rate. Lines over it are left out, and the next
line of that kind says how many. Lines below level warning are not its business: `activity_log.py`
bounds those that clients cause.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from reileta.observability import log_events
from reileta.rules.ratelimit import Rate, RateLimiter

RATE: Final = Rate(per_s=1, burst=100)
"""Lines of one kind of warning or error."""
KINDS: Final = 1_000
"""Kinds that are remembered. There are as many as events, and libraries that log."""

_LIMITED: Final = frozenset({"warning", "warn", "error", "exception", "critical", "fatal"})
_EXEMPT: Final = frozenset({log_events.LOG_LIMITED, log_events.LOG_DROPPED})
"""Counts of lines, written every few seconds."""


class WarningRate:
    """A processor of structlog. `now_s` is a clock that doesn't go back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._limiter = RateLimiter(RATE, KINDS)
        self._left_out: Counter[str] = Counter()

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        name = str(event.get("event"))
        if method not in _LIMITED or name in _EXEMPT:
            return event
        kind = f"{name} {event.get('logger', '')}"
        if self._limiter.take(kind, self._now_s()):
            self._left_out[kind] += 1
            raise structlog.DropEvent
        left_out = self._left_out.pop(kind, 0)
        if left_out:
            event["left_out"] = left_out
        return event
