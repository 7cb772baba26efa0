"""Percentiles, against values worked out by hand and against their definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import Latency, next_prime, percentile


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_the_nearest_rank(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_one_value_is_every_percentile() -> None:
    assert percentile([7], 0.0) == percentile([7], 0.5) == percentile([7], 1.0) == 7


@given(st.lists(st.integers(), min_size=1), st.floats(0.01, 1))
def test_enough_values_are_at_or_below(values: list[int], share: float) -> None:
    values.sort()
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1], -0.1), ([1], 1.1)])
def test_nonsense_is_refused(values: list[int], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_latency_is_in_milliseconds_whatever_the_order() -> None:
    found = Latency.of([3_000_000, 1_000_000, 2_000_000])
    assert found == Latency(samples=3, p50_ms=2.0, p99_ms=3.0, max_ms=3.0)


def test_no_samples_give_no_latency() -> None:
    assert Latency.of([]) is None


@pytest.mark.parametrize(("least", "prime"), [(0, 2), (2, 2), (4, 5), (53, 53), (54, 59)])
def test_next_prime(least: int, prime: int) -> None:
    assert next_prime(least) == prime
