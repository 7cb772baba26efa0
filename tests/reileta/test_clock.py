"""The wall time follows the system; the steady time never jumps."""

from __future__ import annotations

import time

import pytest

from reileta.clock import SystemClock


def test_the_wall_time_follows_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = time.time()
    assert before * 1000 - 2 <= clock.now_ms() <= time.time() * 1000 + 2
    for step_s in (7200, -7200):
        now_ns = time.time_ns() + step_s * 1_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda now_ns=now_ns: now_ns)
        assert clock.now_ms() == now_ns // 1_000_000
        monkeypatch.undo()


def test_the_steady_time_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    start = time.monotonic_ns()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "monotonic_ns", lambda: start)
    first = clock.steady_ms()
    monkeypatch.setattr(time, "monotonic_ns", lambda: start + 1_500_000_000)
    assert clock.steady_ms() == first + 1500
