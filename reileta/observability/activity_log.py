"""The log of what users and admins do, bounded however much they do.

Nearly all of these events can be caused by clients, as often as they like. So each kind of event
has a rate, and so has each source of it: a user, or an address before there is a user. One source
can't use up the rate of all others at once. Lines over a rate are left out and counted; `report`,
called every few seconds, logs the counts.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog

from reileta.clock import Clock
from reileta.observability import log_events
from reileta.rules.ratelimit import Rate, RateLimiter

ALL: Final = Rate(per_s=10, burst=1000)
"""Lines of one kind of event."""
SOURCE: Final = Rate(per_s=0.1, burst=20)
"""Lines of one kind of event from one source."""
SOURCES: Final = 5_000
"""Sources of each kind that are remembered; the least recent are forgotten."""
REPORT_S: Final = 10.0
"""Seconds between reports of what was left out."""

_log = structlog.get_logger()


class ActivityLog:
    """Logs events at level info, each kind and source within its rate.

    `addresses`: whether events have the address of the client.
    """

    def __init__(self, clock: Clock, *, addresses: bool = False) -> None:
        self._clock = clock
        self._addresses = addresses
        self._all = RateLimiter(ALL)
        self._sources: dict[str, RateLimiter] = {}
        self._left_out: Counter[str] = Counter()

    def note(
        self, event: str, source: str | None, *, address: str | None = None, **fields: object
    ) -> None:
        """Logs the event, unless there were too many of its kind.

        Args:
            source: the user or address that caused it; None: the server itself or an admin's
                command, which has no rate of its own.
            address: the client's address, which is logged only if the operator wants it.
        """
        if self.admits(event, source):
            self.write(event, address=address, **fields)

    def admits(self, event: str, source: str | None) -> bool:
        """Whether `write` may log the event, which counts against its rate. For callers whose
        fields cost something."""
        now_s = self._clock.steady_ms() / 1000
        if source is not None:
            limiter = self._sources.get(event)
            if limiter is None:  # as many as there are kinds of events
                limiter = self._sources[event] = RateLimiter(SOURCE, SOURCES)
            if limiter.take(source, now_s):
                self._left_out[event] += 1
                return False
        if self._all.take(event, now_s):
            self._left_out[event] += 1
            return False
        return True

    def write(self, event: str, *, address: str | None = None, **fields: object) -> None:
        """Logs an event that `admits` has let pass."""
        known = {name: value for name, value in fields.items() if value is not None}
        if self._addresses and address is not None:
            known["address"] = address
        _log.info(event, **known)

    async def report(self) -> None:
        """Logs how many lines of each kind were left out since the last report."""
        left_out, self._left_out = self._left_out, Counter()
        for event, lines in sorted(left_out.items()):
            _log.warning(log_events.LOG_LIMITED, of=event, lines=lines)
