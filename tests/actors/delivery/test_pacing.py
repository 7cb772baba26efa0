"""The rest after a fan-out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import actors.delivery.pacing
from actors.delivery.pacing import (
    EQUAL_SHARE,
    IDLE_SHARE,
    LONGEST_REST,
    PACED_FROM_S,
    REST_LIMIT_S,
    WINDOW_S,
    BusyTime,
    CoreLoad,
)
from tests.conftest import PATIENCE_S


class Core:
    """A core of which so much is used."""

    def __init__(self) -> None:
        self.now_s = self.used_s = 0.0
        self.load = CoreLoad(lambda: self.used_s, lambda: self.now_s)

    def work(self, share: float, seconds: float = WINDOW_S) -> None:
        self.now_s += seconds
        self.used_s += share * seconds


@pytest.mark.parametrize(
    ("share", "times"),
    [(0.0, 0.0), (IDLE_SHARE, 0.0), (EQUAL_SHARE, 1.0), (1.0, LONGEST_REST)],
)
def test_the_busier_the_core_the_longer_the_rest(share: float, times: float) -> None:
    core = Core()
    core.work(share, 1.0)
    assert core.load.rest_s(0.001) == pytest.approx(times * 0.001)


def test_a_rest_is_bounded_and_a_quick_fan_out_has_none() -> None:
    core = Core()
    core.work(1.0)
    assert core.load.rest_s(1.0) == pytest.approx(REST_LIMIT_S)
    assert core.load.rest_s(PACED_FROM_S / 2) == 0


def test_the_load_is_that_of_the_last_window() -> None:
    core = Core()
    core.work(1.0, 10)
    assert core.load.share() == pytest.approx(1)
    core.work(0.0, WINDOW_S / 2)
    assert core.load.share() == pytest.approx(1)
    core.work(0.0, WINDOW_S)
    assert core.load.share() == 0


@pytest.mark.parametrize("took_s", [0.0005, 0.002])
def test_a_large_room_alone_takes_half_of_the_core(took_s: float) -> None:
    """There is always something to send when its rest is over."""
    core = Core()
    for _ in range(1000):
        rest_s = core.load.rest_s(took_s)
        core.work(1.0, took_s)
        core.work(0.0, rest_s)
    begun_s, used_s = core.now_s, core.used_s
    for _ in range(1000):
        rest_s = core.load.rest_s(took_s)
        core.work(1.0, took_s)
        core.work(0.0, rest_s)
    assert (core.used_s - used_s) / (core.now_s - begun_s) == pytest.approx(EQUAL_SHARE, abs=0.05)


def test_the_threads_own_work_counts_as_busy() -> None:
    busy = BusyTime()
    before, until_s = busy(), time.monotonic() + PATIENCE_S
    while busy() <= before:
        assert time.monotonic() < until_s


def test_a_system_without_that_counter_knows_the_cpu_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(actors.delivery.pacing, "SCHEDSTAT", tmp_path / "none")
    monkeypatch.setattr(time, "thread_time", lambda: 7.5)
    assert BusyTime()() == 7.5
