"""The rate limiter: its burst, its rate, its memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.ratelimit import Rate, RateLimiter

NOW = 1_790_000_000.0


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(Rate(per_s=2, burst=3))
    assert [limiter.take("a", NOW) for _ in range(3)] == [0.0] * 3
    assert limiter.take("a", NOW) == pytest.approx(0.5, abs=1e-6)
    assert limiter.take("a", NOW + 0.5) == 0.0
    assert limiter.take("a", NOW + 0.5) > 0
    assert limiter.take("b", NOW + 0.5) == 0.0


def test_a_refused_request_costs_nothing() -> None:
    limiter = RateLimiter(Rate(per_s=1, burst=1))
    limiter.take("a", NOW)
    for _ in range(100):
        assert limiter.take("a", NOW + 0.25) == pytest.approx(0.75, abs=1e-6)
    assert limiter.take("a", NOW + 1) == 0.0


def test_what_is_given_back_was_not_taken() -> None:
    limiter = RateLimiter(Rate(per_s=1, burst=2), keys=1)
    for _ in range(10):
        assert limiter.take("a", NOW) == 0.0
        limiter.give_back("a")
    assert [limiter.take("a", NOW) for _ in range(2)] == [0.0] * 2
    assert limiter.take("b", NOW) == 0.0  # and "a" is of the old generation now
    limiter.give_back("a")
    assert limiter.take("a", NOW) == 0.0
    assert limiter.take("a", NOW) > 0
    limiter.give_back("nobody")


def test_quiet_does_not_save_up_more_than_the_burst() -> None:
    limiter = RateLimiter(Rate(per_s=1, burst=2))
    limiter.take("a", NOW)
    later = NOW + 1_000_000
    assert [limiter.take("a", later) > 0 for _ in range(3)] == [False, False, True]


@given(
    st.lists(st.floats(min_value=0, max_value=3), max_size=60),
    st.floats(min_value=0.1, max_value=10),
    st.integers(min_value=1, max_value=10),
)
def test_never_more_than_the_burst_and_the_rate(
    gaps: list[float], per_s: float, burst: int
) -> None:
    limiter = RateLimiter(Rate(per_s, burst))
    now, passed = NOW, []
    for gap in gaps:
        now += gap
        if limiter.take("a", now) == 0.0:
            passed.append(now)
    for start in range(len(passed)):
        for end in range(start, len(passed)):
            span = passed[end] - passed[start]
            assert end - start + 1 <= burst + span * per_s + 1e-3


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=40))
def test_after_the_wait_it_told_a_request_passes(gaps: list[float]) -> None:
    limiter = RateLimiter(Rate(per_s=2, burst=2))
    now = NOW
    for gap in gaps:
        now += gap
        wait_s = limiter.take("a", now)
        if wait_s > 0:
            now += wait_s
            assert limiter.take("a", now) == 0.0


def test_memory_is_bounded() -> None:
    limiter = RateLimiter(Rate(per_s=1, burst=1), keys=10)
    for n in range(1000):
        limiter.take(str(n), NOW)
        assert len(limiter) <= 20


def test_who_keeps_asking_is_not_forgotten() -> None:
    limiter = RateLimiter(Rate(per_s=1, burst=1), keys=10)
    for n in range(100):
        limiter.take("a", NOW + n)
        for other in range(5):
            limiter.take(f"{n}-{other}", NOW + n)
        assert limiter.take("a", NOW + n + 0.5) > 0


def test_a_rate_lets_something_through() -> None:
    for per_s, burst in ((0, 1), (-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="per_s > 0"):
            Rate(per_s, burst)
    with pytest.raises(ValueError, match="keys"):
        RateLimiter(Rate(1, 1), keys=0)


def test_keys_that_are_no_longer_used_need_no_memory() -> None:
    limiter = RateLimiter(Rate(per_s=1, burst=3))
    for number in range(1_000):
        assert limiter.take(str(number), NOW + number) == 0.0
    assert len(limiter) < 100


def test_a_key_outlasts_its_generation_until_its_allowance_is_full() -> None:
    limiter = RateLimiter(Rate(per_s=0.1, burst=20))
    assert [limiter.take("a", NOW) for _ in range(20)] == [0.0] * 20
    for second in range(200):
        limiter.take(f"other{second}", NOW + second)
        wait_s = limiter.take("a", NOW + second)
        assert (wait_s > 0) == (second % 10 != 0 or second == 0)
