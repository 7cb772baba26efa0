"""When a server that does not answer is asked again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.federation.backoff import FREE_FAILURES, JITTER, LONGEST_MS, wait_ms


def test_the_first_failures_cost_nothing_and_then_the_wait_doubles() -> None:
    waits = [wait_ms(failures, 1.0) for failures in range(8)]
    assert waits == [0, 0, 0, 5_000, 10_000, 20_000, 40_000, 80_000]
    assert FREE_FAILURES == 3


@given(failures=st.integers(0, 10**9), jitter=st.floats(*JITTER))
def test_the_wait_is_bounded_however_often_it_fails(failures: int, jitter: float) -> None:
    wait = wait_ms(failures, jitter)
    assert 0 <= wait <= LONGEST_MS
    if FREE_FAILURES <= failures < 9:
        exact = 5_000 * 2 ** (failures - FREE_FAILURES)
        assert exact * 0.79 <= wait <= exact * 1.41


def test_the_servers_own_wish_counts_from_the_first_failure_and_up_to_ten_minutes() -> None:
    assert wait_ms(1, 1.0, asked_ms=30_000) == 30_000
    assert wait_ms(3, 1.0, asked_ms=1_000) == 5_000
    assert wait_ms(1, 1.0, asked_ms=10**12) == LONGEST_MS
