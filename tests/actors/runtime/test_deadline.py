"""One timer that is moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from actors.runtime.deadline import DeadlineTimer
from actors.runtime.timers import Timer


@dataclass
class FakeTimer:
    delay_s: float
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Bench:
    """An alarm, and the timers it made."""

    now: int = 1000
    timers: list[FakeTimer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alarm = DeadlineTimer(self.after, lambda: self.now)

    def after(self, delay_s: float) -> Timer:
        self.timers.append(FakeTimer(delay_s))
        return cast(Timer, self.timers[-1])


def test_it_rings_when_due_or_at_once() -> None:
    bench = Bench()
    bench.alarm.set(3500)
    assert [timer.delay_s for timer in bench.timers] == [2.5]
    bench.alarm.set(500)
    assert [timer.delay_s for timer in bench.timers] == [2.5, 0]


def test_moving_it_takes_the_old_timer_back_and_staying_does_nothing() -> None:
    bench = Bench()
    bench.alarm.set(2000)
    bench.alarm.set(2000)
    assert len(bench.timers) == 1
    bench.alarm.set(3000)
    assert [timer.cancelled for timer in bench.timers] == [True, False]
    bench.alarm.set(None)
    assert [timer.cancelled for timer in bench.timers] == [True, True]


def test_after_it_rang_the_same_time_is_set_anew() -> None:
    bench = Bench()
    bench.alarm.set(1000)
    bench.alarm.rang()
    bench.alarm.set(1000)
    assert len(bench.timers) == 2
