"""The server's clock, set right by the database's.

Tokens, bans, mutes and suspensions end at a stored time. One process writes it and another one may
judge it: a server on another machine, after a restart or a failover, or a command. So all of them
use the time of the database that they share. It is compared with the system's clock at the start
and every `FOLLOW_S`; in between, and while the database is down, the system's clock goes on from
there. With a database on the same machine, this is the system's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
    """The system's clock with the date and time of the database's, once `follow` was called."""

    def __init__(
        self,
        database_time: DatabaseTime = database_time,
        *,
        wall_ns: Callable[[], int] | None = None,
        steady_ns: Callable[[], int] | None = None,
    ) -> None:
        """`wall_ns` and `steady_ns` are the system's clocks: of the day, and one that never
        jumps."""
        self._database_time = database_time
        # Called for each message with data, so without a clock object in between.
        self._wall_ns = wall_ns or time.time_ns
        self._steady_ns = steady_ns or time.monotonic_ns
        self.ahead_ms = 0
        """By how much the database's clock is ahead of the system's."""
        self._reported_ms = 0

    def now_ms(self) -> int:
        return self._wall_ns() // 1_000_000 + self.ahead_ms

    def steady_ms(self) -> int:
        return self._steady_ns() // 1_000_000

    async def follow(self, queries: Queries) -> None:
        """Compares the clocks. Raises DatabaseUnavailable.

        The database read its clock at some moment of the round trip. So the difference is only
        known within bounds, and is kept as it is while it lies within them: a slow answer changes
        nothing.
        """
        asked_ms, steady_ms = self._wall_ns() // 1_000_000, self.steady_ms()
        database_ms = await self._database_time(queries)
        round_trip_ms = self.steady_ms() - steady_ms
        most = database_ms - asked_ms + 1  # times are rounded
        least = database_ms - asked_ms - round_trip_ms - 1
        self.ahead_ms = max(least, min(self.ahead_ms, most))
        if abs(self.ahead_ms - self._reported_ms) >= REPORTED_MS:
            self._reported_ms = self.ahead_ms
            _log.warning(log_events.CLOCK_CORRECTED, ahead_ms=self.ahead_ms)

    async def follow_again(self, queries: Queries) -> None:
        """Like `follow`; does nothing while the database is down. Called every `FOLLOW_S`."""
        try:
            await self.follow(queries)
        except DatabaseFault:
            raise  # the supervisor shows it
        except DatabaseUnavailable:
            pass  # the difference stays until the database is back
