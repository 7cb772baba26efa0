"""Latency statistics of a run. Everything here is pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

NS_PER_MS = 1_000_000


class Latency(msgspec.Struct, frozen=True):
    """From the due time of a message to its receiver's `recv`, in milliseconds."""

    samples: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, values_ns: Iterable[int]) -> Latency | None:
        """None without a sample, because there is no figure to show."""
        ordered = sorted(values_ns)
        if not ordered:
            return None
        return cls(
            samples=len(ordered),
            p50_ms=percentile(ordered, 0.50) / NS_PER_MS,
            p99_ms=percentile(ordered, 0.99) / NS_PER_MS,
            max_ms=ordered[-1] / NS_PER_MS,
        )


def percentile(ordered: Sequence[int], share: float) -> int:
    """The nearest-rank percentile: the smallest value with at least `share` of all at or below it.

    Raises ValueError for an empty sequence or a share outside 0 to 1.
    """
    if not ordered or not 0 <= share <= 1:
        raise ValueError("a percentile needs values and a share between 0 and 1")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def next_prime(least: int) -> int:
    """The smallest prime from `least` on.

    Every prime-th delivery is sampled, so that sampling never falls into step with the senders,
    which take turns in a fixed order.
    """
    number = max(2, least)
    while any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
