"""The load's rules: what counts as sustained, and a run against a relay over a socket pair."""

from __future__ import annotations

import pytest

from tests.benchmarks.reports import load_result


def test_a_rate_that_is_delivered_in_time_is_sustained() -> None:
    assert load_result().sustained


@pytest.mark.parametrize(
    "run",
    [
        load_result(share=0.998),
        load_result(p99_ms=1000.0),
        load_result(p99_ms=None),
        load_result(pace=0.96),
    ],
    ids=["lost", "late", "no samples", "falling behind"],
)
def test_a_rate_is_not_sustained_when_messages_are(run: object) -> None:
    assert not getattr(run, "sustained", True)
