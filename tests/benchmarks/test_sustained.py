"""The search for the highest rate, against servers that hold up to a known one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import BenchmarkError
from benchmarks.load import Plan
from benchmarks.sustained import PRECISION, at_rate, highest


@given(st.floats(2, 390), st.floats(5, 100))
def test_it_comes_close_from_above_and_below(capacity: float, first: float) -> None:
    found = highest(lambda rate: rate <= capacity, first, 400, probes=40)
    assert found is not None
    assert capacity / PRECISION <= found <= capacity


def test_it_stops_at_the_limit_of_the_load() -> None:
    asked: list[float] = []

    def holds(rate: float) -> bool:
        asked.append(rate)
        return True

    assert highest(holds, 10, 40) == 40
    assert asked == sorted(asked)
    assert max(asked) == 40


def test_a_server_that_holds_nothing_ends_the_search() -> None:
    asked: list[float] = []

    def holds(rate: float) -> bool:
        asked.append(rate)
        return False

    assert highest(holds, 16, 40, probes=5) is None
    assert asked == [16, 8, 4, 2, 1]


@pytest.mark.parametrize(("first", "limit"), [(0, 10), (20, 10)])
def test_a_search_without_room_is_refused(first: float, limit: float) -> None:
    with pytest.raises(BenchmarkError, match="first"):
        highest(lambda rate: True, first, limit)


def test_a_plan_at_another_rate_is_the_same_plan() -> None:
    plan = Plan(20, 4, warm_up_s=0.5, drain_s=1, server_pid=7)
    assert at_rate(plan, 30) == Plan(30, 4, warm_up_s=0.5, drain_s=1, server_pid=7)
