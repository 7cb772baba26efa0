"""How much a user may say while those who hear it can't keep up.

Usually there is no bound here: how often a client may send is its connection's matter. When so much
waits for a receiver that it may soon be closed as too slow, there are two steps:

- The users with the largest share of what waits are held back.
- If it grows on, everybody inside is held back, for many who say little each fill it as well.

Whoever is held back may say no more than a fair rate, which any connection can take, for ten
seconds; whatever is beyond is refused. So a user who says much costs itself, and not those who have
less bandwidth. In the second step, all inside together may say at once no more than what still
fits. A receiver that can't take the fair rates either is too slow itself.

It is kept by user and not by player, and outlives a leave: leaving and coming back gains nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

HOLD_MS: Final = 10_000
"""How long a user is held back, from the last time that too much of what it said waited."""
FAIR_BYTES_PER_S: Final = 32 * 1024
FAIR_BURST_BYTES: Final = 64 * 1024
LEAST_BURST_BYTES: Final = 2 * 1024
"""What each may say at once when all are held back, however many they are."""
MESSAGE_LEAST_BYTES: Final = 256
"""A smaller message counts as that: its frame has a head as well."""
ALL_BURSTS_SHARE: Final = 3 / 16
"""What all may say at once when all are held back, of what may wait for a receiver."""
GONE_LIMIT: Final = 1024
"""Users that have left of whom it is known how much they said; over it, the first is forgotten."""


class DataRate:
    """One user's in one instance. `held` says whether `allows` is to be asked at all."""

    __slots__ = ("_counted_at", "_instance", "_left", "_pressed", "_until", "held")

    def __init__(self, instance: InstanceRates | None = None) -> None:
        self.held = False
        self._instance = instance
        self._pressed = False
        self._until = 0
        self._left = 0.0
        self._counted_at = 0

    def hold_back(self) -> None:
        """Too much of what the user said waits for somebody."""
        self.held = self._pressed = True

    def hold_all_back(self) -> None:
        """So much waits for somebody that all in the user's instance are held back."""
        if self._instance is not None:
            self._instance.hold_back()

    def allows(
        self, size: int, now: int, *, burst: int = FAIR_BURST_BYTES, all_until: int = 0
    ) -> bool:
        """Whether the user may say so many bytes now (ms); then they are counted.

        `burst` is what it may say at once, in bytes. `all_until` is how long all are held back, in
        ms; not after now, if they are not.
        """
        size = max(size, MESSAGE_LEAST_BYTES)
        until = all_until
        if self._pressed:
            self._pressed = False
            until = now + HOLD_MS
        if until > now:
            if self._until <= now:
                # A second's worth: who says no more than is fair is never refused.
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
    """The rates of all users of one instance. `held` says whether all are held back.

    Bounded: users who left are forgotten after `HOLD_MS`, and over `GONE_LIMIT` of them the first.

    Args:
        limit_bytes: what may wait for one receiver.
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
        """How many users are known."""
        return len(self._rates)

    def of(self, user: str) -> DataRate:
        """The rate of a user that is inside, the same as before if it left a moment ago."""
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
        """So much waits for somebody that all are held back."""
        self.held = self._pressed = True

    def allows(self, rate: DataRate, size: int, now: int, users: int) -> bool:
        """Whether a user may say so many bytes now (ms), with so many users inside."""
        if self._pressed:
            self._pressed = False
            self._until = now + HOLD_MS
        elif self._until <= now:
            self.held = False
        return rate.allows(size, now, burst=self.burst(users), all_until=self._until)

    def burst(self, users: int) -> int:
        """What one of so many users may say at once, in bytes."""
        if not self.held:
            return FAIR_BURST_BYTES
        each = self._bursts_bytes // max(users, 1)
        return min(FAIR_BURST_BYTES, max(LEAST_BURST_BYTES, each))


def hold_back_loudest(shares: Iterable[tuple[DataRate, int]]) -> None:
    """Holds those back who have at least an equal share of what waits for somebody.

    `shares` are (rate, bytes); a user may come several times.
    """
    waiting: dict[DataRate, int] = {}
    for pace, size in shares:
        waiting[pace] = waiting.get(pace, 0) + size
    total = sum(waiting.values())
    for pace, size in waiting.items():
        if size * len(waiting) >= total:
            pace.hold_back()
