"""The clock that never jumps."""

from __future__ import annotations

import time

import pytest

from reileta.clock import MonotonicClock


def test_it_begins_at_the_wall_clock() -> None:
    before = time.time()
    now = MonotonicClock().now_ms()
    assert before * 1000 - 2 <= now <= time.time() * 1000 + 2


def test_a_step_of_the_wall_clock_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MonotonicClock()
    before = clock.now_ms()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.now_ms() >= before


def test_it_goes_on_with_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MonotonicClock()
    start = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start)
    first = clock.now_ms()
    monkeypatch.setattr(time, "monotonic", lambda: start + 1.5)
    assert clock.now_ms() - first in (1499, 1500, 1501)
