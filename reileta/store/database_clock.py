"""The server's clock, set right by the database's.

Tokens, bans, mutes and suspensions end at a stored time. One process writes it and another one may
judge it: a server on another machine, after a restart or a failover, or a command. So all of them
use the time of the database that they share. It is compared with this clock at the start and every
`FOLLOW_S`; in between, and while the database is down, this clock goes on from there with the time
since the machine was booted. That goes on while the machine sleeps, and can't be set: whoever sets
the system's clock does not make tokens, tickets and proofs invalid until the next comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from reileta.errors import DatabaseFault, DatabaseUnavailable
from reileta.observability import log_events
from reileta.store.database import Queries
from reileta.store.database_time import DatabaseTime, database_time

FOLLOW_S: Final = 5.0
REPORTED_MS: Final = 1000
"""The log has a difference of this much, and each further change of it by as much."""

_log = structlog.get_logger()


class DatabaseClock:
    """The date and time of the database's clock; until `follow` was called, of the system's."""

    def __init__(
        self,
        database_time: DatabaseTime = database_time,
        *,
        wall_ns: Callable[[], int] | None = None,
        steady_ns: Callable[[], int] | None = None,
        booted_ns: Callable[[], int] | None = None,
    ) -> None:
        """`wall_ns`, `steady_ns` and `booted_ns` are the system's clocks: of the day, one that
        never jumps, and one that jumps only by the time that the machine slept."""
        self._database_time = database_time
        # Called for each message with data, so without a clock object in between.
        self._wall_ns = wall_ns or time.time_ns
        self._steady_ns = steady_ns or time.monotonic_ns
        self._booted_ns = booted_ns or partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
        self._booted_at_ms = self._wall_ms() - self._booted_ns() // 1_000_000
        """When the machine was booted, by the database's clock."""
        self._reported_ms = 0

    def now_ms(self) -> int:
        return self._booted_ns() // 1_000_000 + self._booted_at_ms

    def _wall_ms(self) -> int:
        return self._wall_ns() // 1_000_000

    def steady_ms(self) -> int:
        return self._steady_ns() // 1_000_000

    async def follow(self, queries: Queries) -> None:
        """Compares the clocks. Raises DatabaseUnavailable.

        The database read its clock at some moment of the round trip. So the difference is only
        known within bounds, and is kept as it is while it lies within them: a slow answer changes
        nothing.
        """
        asked_ms = self._booted_ns() // 1_000_000
        database_ms = await self._database_time(queries)
        round_trip_ms = self._booted_ns() // 1_000_000 - asked_ms
        most = database_ms - asked_ms + 1  # times are rounded
        least = database_ms - asked_ms - round_trip_ms - 1
        self._booted_at_ms = max(least, min(self._booted_at_ms, most))
        ahead_ms = self.now_ms() - self._wall_ms()
        if abs(ahead_ms - self._reported_ms) >= REPORTED_MS:
            self._reported_ms = ahead_ms
            _log.warning(log_events.CLOCK_CORRECTED, ahead_ms=ahead_ms)

    async def follow_again(self, queries: Queries) -> None:
        """Like `follow`; does nothing while the database is down. Called every `FOLLOW_S`."""
        try:
            await self.follow(queries)
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            pass  # the difference stays until the database is back
