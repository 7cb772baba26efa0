"""Limits a user's data while receivers can't keep up.

Usually there is no limit here: the connection limits how often a client sends. When so much data
waits for a receiver that it may soon be closed as too slow, there are two steps:

- The users with the largest share of the waiting data are held back.
- If it still grows, everybody inside is held back, since many users who send little can fill it,
  too.

A user who is held back may send no more than a fair rate, which any connection can take, for ten
seconds; more is refused. So a user who sends much pays for it, and not those with less bandwidth.
In the second step, all users together may send at once no more than what still fits. A receiver
that can't take the fair rates either is itself too slow.

The rate is per user and not per player, and outlives a leave: leaving and joining again gains
nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

HOLD_MS: Final = 10_000
"""How long a user is held back, from the last time that too much of its data waited."""
FAIR_BYTES_PER_S: Final = 32 * 1024
FAIR_BURST_BYTES: Final = 64 * 1024
LEAST_BURST_BYTES: Final = 2 * 1024
"""Least burst of one user when all are held back, however many they are."""
MESSAGE_LEAST_BYTES: Final = 256
"""A smaller message counts as this many bytes, since its frame has a header, too."""
ALL_BURSTS_SHARE: Final = 3 / 16
"""Burst of all users together when all are held back, as a share of a receiver's backlog limit."""
GONE_LIMIT: Final = 1024
"""Users who left and whose rate is still remembered; beyond that, the oldest is forgotten."""


class DataRate:
    """The rate of one user in one instance. Call `allows` only if `held` is set."""

    __slots__ = ("_counted_at", "_instance", "_left", "_pressed", "_until", "held")

    def __init__(self, instance: InstanceRates | None = None) -> None:
        self.held = False
        self._instance = instance
        self._pressed = False
        self._until = 0
        self._left = 0.0
        self._counted_at = 0

    def hold_back(self) -> None:
        """Too much of the user's data waits for a receiver."""
        self.held = self._pressed = True

    def hold_all_back(self) -> None:
        """So much data waits for a receiver that all users in the instance are held back."""
        if self._instance is not None:
            self._instance.hold_back()

    def allows(
        self, size: int, now: int, *, burst: int = FAIR_BURST_BYTES, all_until: int = 0
    ) -> bool:
        """Whether the user may send that many bytes now (ms); if so, they are counted.

        `burst` is the number of bytes it may send at once. `all_until` is the time (ms) until which
        all are held back; not later than now if they are not.
        """
        size = max(size, MESSAGE_LEAST_BYTES)
        until = all_until
        if self._pressed:
            self._pressed = False
            until = now + HOLD_MS
        if until > now:
            if self._until <= now:
                # One second's worth: a user who sends no more than the fair rate is never refused.
                self._left, self._counted_at = float(FAIR_BYTES_PER_S), now
            self._until = max(self._until, until)
        elif self._until <= now:
            self.held = False
            return True
        elapsed_ms, self._counted_at = max(now - self._counted_at, 0), now
        self._left = min(burst, self._left + elapsed_ms * FAIR_BYTES_PER_S / 1000)
        if self._left < size:
            return False
        self._left -= size
        return True


class InstanceRates:
    """The rates of all users of one instance. `held` is set while all are held back.

    Bounded: users who left are forgotten after `HOLD_MS`, and beyond `GONE_LIMIT` the oldest.

    Args:
        limit_bytes: the backlog limit of one receiver.
    """

    __slots__ = ("_bursts_bytes", "_gone", "_pressed", "_rates", "_until", "held")

    def __init__(self, limit_bytes: int) -> None:
        self.held = False
        self._bursts_bytes = int(limit_bytes * ALL_BURSTS_SHARE)
        self._pressed = False
        self._until = 0
        self._rates: dict[str, DataRate] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()  # until when it is remembered, ms

    def __len__(self) -> int:
        """The number of users with a rate."""
        return len(self._rates)

    def of(self, user: str) -> DataRate:
        """The rate of a user who enters; the same as before if it left a moment ago."""
        self._gone.pop(user, None)
        rate = self._rates.get(user)
        if rate is None:
            rate = self._rates[user] = DataRate(self)
        return rate

    def went(self, user: str, now: int) -> None:
        """A user has no player inside any more (now in ms)."""
        if user in self._rates:
            self._gone[user] = now + HOLD_MS
        while self._gone:
            first, until = next(iter(self._gone.items()))
            if until > now and len(self._gone) <= GONE_LIMIT:
                break
            del self._gone[first], self._rates[first]

    def hold_back(self) -> None:
        """So much data waits for a receiver that all users are held back."""
        self.held = self._pressed = True

    def allows(self, rate: DataRate, size: int, now: int, users: int) -> bool:
        """Whether a user may send that many bytes now (ms), with that many users inside."""
        if self._pressed:
            self._pressed = False
            self._until = now + HOLD_MS
        elif self._until <= now:
            self.held = False
        return rate.allows(size, now, burst=self.burst(users), all_until=self._until)

    def burst(self, users: int) -> int:
        """The number of bytes that one of so many users may send at once."""
        if not self.held:
            return FAIR_BURST_BYTES
        each = self._bursts_bytes // max(users, 1)
        return min(FAIR_BURST_BYTES, max(LEAST_BURST_BYTES, each))


def hold_back_loudest(shares: Iterable[tuple[DataRate, int]]) -> None:
    """Holds back the users who have at least an equal share of a receiver's waiting data.

    `shares` are (rate, bytes); a user can occur several times.
    """
    waiting: dict[DataRate, int] = {}
    for pace, size in shares:
        waiting[pace] = waiting.get(pace, 0) + size
    total = sum(waiting.values())
    for pace, size in waiting.items():
        if size * len(waiting) >= total:
            pace.hold_back()
