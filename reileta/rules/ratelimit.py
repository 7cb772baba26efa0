"""Rate limits: the generic cell rate algorithm, with one number per key.

A limit allows `burst` requests at once and `per_s` per second on average. The only state of a key
is the time at which its allowance is full again, so a key that is idle for `burst / per_s` seconds
needs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, `per_s` per second on average."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_s <= 0 or self.burst < 1:
            raise ValueError("a rate needs per_s > 0 and burst >= 1")


GENERATION_S: Final = 30.0
"""How long keys are stored at least, unless there are too many."""


class RateLimiter:
    """One `Rate`, counted separately for each key.

    Keys are stored in two generations. The young generation becomes the old one, and the previous
    old one is dropped, when the young one is full, or is so old that all allowances of the old one
    are full again. So memory follows the traffic of the last moments, and at most `2 * keys` keys
    are stored. A key is dropped before its allowance is full again only if more than `keys` other
    keys were used since its last use.
    """

    def __init__(self, rate: Rate, keys: int = 20_000) -> None:
        if keys < 1:
            raise ValueError("keys must be at least 1")
        self._cost_s = 1.0 / rate.per_s
        self._tolerance_s = rate.burst / rate.per_s
        self._keys = keys
        self._generation_s = max(GENERATION_S, self._tolerance_s)
        self._young_until_s: float | None = None
        """When the young generation becomes the old one; None before the first request."""
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}

    def __len__(self) -> int:
        """The number of stored keys."""
        return len(self._young) + len(self._old)

    def take(self, key: str, now_s: float, cost: int = 1) -> float:
        """Counts a request of the key, which costs `cost`, if the limit allows it.

        Returns 0.0 if the request may pass, else the seconds after which it will. A refused request
        costs nothing. `now_s` is any clock that doesn't go back.
        """
        whole_at = self._young.get(key)
        if whole_at is None:
            whole_at = self._old.get(key, 0.0)
        next_whole = max(whole_at, now_s) + cost * self._cost_s
        wait_s = next_whole - self._tolerance_s - now_s
        # Sums of seconds since 1970 are only precise to a quarter of a microsecond.
        if wait_s > 1e-6:
            return wait_s
        if key not in self._young:
            if self._young_until_s is None:
                self._young_until_s = now_s + self._generation_s
            elif now_s >= self._young_until_s or len(self._young) >= self._keys:
                self._old, self._young = self._young, {}
                self._young_until_s = now_s + self._generation_s
            self._old.pop(key, None)
        self._young[key] = next_whole
        return 0.0

    def give_back(self, key: str) -> None:
        """Undoes one `take` of the key that should not count."""
        for kept in (self._young, self._old):
            if key in kept:
                kept[key] -= self._cost_s
                return
