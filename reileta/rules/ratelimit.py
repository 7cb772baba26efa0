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
        self.shared = False
        """Whether other processes count the same keys: then `spent` must be called often."""
        self._busy: dict[str, float] = {}
        """Keys that have used more than half, each with the time that others know of already."""
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
        if self.shared and next_whole - now_s > self._tolerance_s / 2:
            self._busy.setdefault(key, now_s)
        return 0.0

    def spent(self, now_s: float, limit: int) -> dict[str, float]:
        """What keys have spent here since the last call, in seconds of allowance, from when they
        had used half of it until it is full again: of up to `limit` keys, those that spent most.
        """
        spent = {}
        for key, told in list(self._busy.items()):
            whole_at = self._young.get(key) or self._old.get(key, 0.0)
            new = whole_at - max(told, now_s)
            if new > 0:
                spent[key] = new
            if whole_at > now_s:
                self._busy[key] = whole_at
            else:
                del self._busy[key]
        if len(spent) > limit:
            most = sorted(spent.items(), key=lambda item: item[1], reverse=True)[:limit]
            spent = dict(most)
        return spent

    def spend(self, key: str, seconds: float, now_s: float) -> None:
        """Another process has spent so much of the key's allowance. It counts here, at most until
        the key has spent twice as much as it may."""
        whole_at = self._young.get(key) or self._old.get(key, 0.0)
        latest = max(whole_at, now_s + 2 * self._tolerance_s)
        next_whole = min(max(whole_at, now_s) + max(seconds, 0.0), latest)
        if key not in self._young and len(self._young) >= self._keys:
            return  # as many as may be kept; the own count stands alone
        self._old.pop(key, None)
        self._young[key] = next_whole
        known = next_whole - max(whole_at, now_s)  # what is not this process's own
        self._busy[key] = max(self._busy.get(key, now_s), now_s) + known

    def give_back(self, key: str) -> None:
        """Undoes one `take` of the key that should not count."""
        for kept in (self._young, self._old):
            if key in kept:
                kept[key] -= self._cost_s
                return
