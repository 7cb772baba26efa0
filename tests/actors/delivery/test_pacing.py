"""The rest after a fan-out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import actors.delivery.pacing
from actors.delivery.pacing import (
    BUSY_SHARE,
    CROWDED_SHARE,
    FULL_REST_S,
    FULL_REST_TIMES,
    IDLE_SHARE,
    MEMORY_S,
    NEWEST_SHARE,
    OTHERS_SHARE,
    PACED_FROM_S,
    REST_S,
    REST_TIMES,
    WHOLE_SHARE,
    WINDOW_S,
    BusyTime,
    CoreLoad,
    FanoutPace,
)
from tests.conftest import PATIENCE_S


class Core:
    """A core of which so much is used."""

    def __init__(self) -> None:
        self.now_s = self.used_s = 0.0
        self.load = CoreLoad(lambda: self.used_s, lambda: self.now_s)

    def work(self, share: float, seconds: float = WINDOW_S, *, read: float = 0.0) -> None:
        """`read`: the share of it that the reader has."""
        self.now_s += seconds
        self.used_s += share * seconds
        self.load.traffic_s += read * seconds


BETWEEN = (IDLE_SHARE + BUSY_SHARE) / 2
QUICK_S = REST_S / REST_TIMES
"""The longest fan-out whose rest is not shortened."""


@pytest.mark.parametrize(
    ("share", "times"),
    [
        (0.0, 0.0),
        (IDLE_SHARE, 0.0),
        (BETWEEN, REST_TIMES / 2),
        (BUSY_SHARE, REST_TIMES),
        (CROWDED_SHARE, REST_TIMES),
        ((CROWDED_SHARE + 1) / 2, (REST_TIMES + FULL_REST_TIMES) / 2),
        (1.0, FULL_REST_TIMES),
    ],
)
def test_the_busier_the_core_the_longer_the_rest(share: float, times: float) -> None:
    core = Core()
    core.work(share, 1.0)
    assert core.load.rest_s(QUICK_S) == pytest.approx(times * QUICK_S)


def test_only_a_full_core_has_long_rests_and_a_quick_fan_out_has_none() -> None:
    core = Core()
    core.work(CROWDED_SHARE, 1.0)
    assert core.load.rest_s(1.0) == pytest.approx(REST_S)
    core.work(1.0, 1.0)
    assert core.load.rest_s(0.001) == pytest.approx(FULL_REST_TIMES * 0.001)
    assert core.load.rest_s(1.0) == pytest.approx(FULL_REST_S)
    assert core.load.rest_s(PACED_FROM_S / 2) == 0


def test_the_load_is_an_average_of_the_last_windows() -> None:
    core = Core()
    core.work(1.0, 10)
    assert core.load.share() == pytest.approx(1)
    core.work(0.0, WINDOW_S * 0.75)
    assert core.load.share() == pytest.approx(1)
    core.work(0.0, WINDOW_S * 0.75)
    assert core.load.share() == pytest.approx(1 - WINDOW_S * 1.5 / MEMORY_S)
    core.work(0.0, MEMORY_S)
    assert core.load.share() == pytest.approx(0)


@pytest.mark.parametrize(
    ("share", "suits"),
    [(IDLE_SHARE / 2, False), (BUSY_SHARE, True), (WHOLE_SHARE, False), (1.0, False)],
)
def test_turns_are_for_cores_that_are_busy_but_not_full(share: float, suits: bool) -> None:
    core = Core()
    core.work(share, 1.0)
    assert core.load.suits_turns == suits


@pytest.mark.parametrize("took_s", [QUICK_S, 0.002])
def test_a_large_room_alone_leaves_a_part_of_the_core(took_s: float) -> None:
    """There is always something to send when its rest is over."""
    core = Core()

    def run() -> None:
        for _ in range(1000):
            rest_s = core.load.rest_s(took_s)
            core.work(1.0, took_s)
            core.work(0.0, rest_s)

    run()
    begun_s, used_s = core.now_s, core.used_s
    run()
    share = (core.used_s - used_s) / (core.now_s - begun_s)
    assert share == pytest.approx(took_s / (took_s + min(REST_TIMES * took_s, REST_S)), abs=0.02)


@pytest.mark.parametrize("turns", [1, 4])
def test_rests_follow_the_average_fan_out_and_each_turn_has_its_part(turns: int) -> None:
    core = Core()
    core.work(CROWDED_SHARE, 1.0)
    pace, took_s = FanoutPace(core.load), QUICK_S * 0.75
    rests_s = [pace.rest_s(took_s / turns, turns) for _ in range(200)]
    assert rests_s[-1] == pytest.approx(REST_TIMES * took_s / turns)
    longer_s = pace.rest_s(2 * took_s / turns, turns)
    assert longer_s == pytest.approx(REST_TIMES * took_s * (1 + NEWEST_SHARE) / turns)


@pytest.mark.parametrize(
    ("share", "pause_s"),
    [(0.0, 0.0), (IDLE_SHARE, 0.0), (BETWEEN, REST_S / 2), (1.0, REST_S)],
)
def test_the_busier_the_core_the_longer_the_pause(share: float, pause_s: float) -> None:
    core = Core()
    core.work(share, 1.0)
    assert core.load.pause_s(0.000_01) == pytest.approx(pause_s)


@pytest.mark.parametrize("took_s", [PACED_FROM_S, QUICK_S, 0.002])
def test_after_a_fan_out_the_reader_pauses_while_the_instance_rests(took_s: float) -> None:
    core = Core()
    core.work(CROWDED_SHARE, 1.0)
    assert core.load.pause_s(took_s) == pytest.approx(core.load.rest_s(took_s))
    core.work(1.0, 1.0)
    assert core.load.pause_s(took_s) == min(core.load.rest_s(took_s), REST_S)


@pytest.mark.parametrize(
    ("others", "alone"), [(0.0, True), (OTHERS_SHARE / 2, True), (OTHERS_SHARE * 2, False)]
)
def test_the_reader_is_alone_while_the_rest_of_the_load_is_small(
    others: float, alone: bool
) -> None:
    core = Core()
    core.work(0.9, 1.0, read=0.2)
    core.load.share()
    core.work(0.9, 1.0, read=0.9 - others)
    assert core.load.traffic_dominates == alone


def test_the_threads_own_work_counts_as_busy() -> None:
    busy = BusyTime()
    before, until_s = busy(), time.monotonic() + PATIENCE_S
    while busy() <= before:
        assert time.monotonic() < until_s


@pytest.mark.parametrize("text", [None, "0 0 0\n", "", "7\n", "a b c\n"])
def test_a_system_without_that_counter_knows_the_cpu_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    counter = tmp_path / "schedstat"
    if text is not None:
        counter.write_text(text)
    monkeypatch.setattr(actors.delivery.pacing, "SCHEDSTAT", counter)
    monkeypatch.setattr(time, "thread_time", lambda: 7.5)
    assert BusyTime()() == 7.5


def test_the_load_goes_on_with_the_cpu_time_when_that_counter_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counter = tmp_path / "schedstat"
    counter.write_text("8000000000 1000000000 5\n")
    monkeypatch.setattr(actors.delivery.pacing, "SCHEDSTAT", counter)
    used_s, now_s = 0.0, 0.0
    monkeypatch.setattr(time, "thread_time", lambda: used_s)
    busy = BusyTime()
    assert busy() == 9
    load = CoreLoad(busy, lambda: now_s)
    counter.write_text("")
    used_s, now_s = 2.0, 10.0
    assert load.share() == 0
    used_s, now_s = 12.0, 20.0
    assert load.share() == pytest.approx(1)
