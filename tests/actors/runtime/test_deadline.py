"""A timer that is set again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from actors.runtime import Deadline, Timers
from actors.runtime.clock_steps import ClockSteps
from tests.actors.probe import Do, Note, Probe, ProbeLog, crash, open_supervisor


class TrioClock:
    """Trio's clock, in ms since the test's start."""

    def __init__(self) -> None:
        self._start = trio.current_time()

    def now_ms(self) -> int:
        return round((trio.current_time() - self._start) * 1000)

    def steady_ms(self) -> int:
        return self.now_ms()


class Ticking:
    """What an actor with one deadline does with it."""

    def __init__(self) -> None:
        self.clock = TrioClock()
        self.journal = ProbeLog()
        self.deadlines: list[Deadline] = []
        self.at: list[int] = []

    def begin(self, probe: Probe) -> None:
        self.deadlines.append(probe.context.deadline(Do(self.fired), self.clock))

    def fired(self, _: Probe) -> None:
        self.at.append(self.clock.now_ms())
        self.deadlines[-1].fired()

    def set(self, *due: int | None) -> Callable[[Probe], None]:
        def act(_: Probe) -> None:
            for one in due:
                self.deadlines[-1].set(one)

        return act


async def test_it_fires_when_due_or_at_once(autojump_clock: MockClock) -> None:
    ticking = Ticking()
    ticking.journal.on_start = ticking.begin
    async with open_supervisor() as harness:
        ref = await harness.start(ticking.journal)
        await trio.sleep(1)
        ref.tell(Do(ticking.set(3500)))
        await trio.sleep(10)
        ref.tell(Do(ticking.set(500)))
        await trio.sleep(10)
    assert ticking.at == [3500, 11000]


async def test_only_the_time_set_last_counts(autojump_clock: MockClock) -> None:
    ticking = Ticking()
    ticking.journal.on_start = ticking.begin
    async with open_supervisor() as harness:
        ref = await harness.start(ticking.journal)
        ref.tell(Do(ticking.set(2000, 2000, 3000, 3000)))
        await trio.sleep(10)
        ref.tell(Do(ticking.set(12000, None)))
        await trio.sleep(10)
        assert len(harness.timers) == 0
    assert ticking.at == [3000]


async def test_once_it_fired_the_same_time_can_be_set_again(autojump_clock: MockClock) -> None:
    ticking = Ticking()
    ticking.journal.on_start = ticking.begin
    async with open_supervisor() as harness:
        ref = await harness.start(ticking.journal)
        ref.tell(Do(ticking.set(2000)))
        await trio.sleep(3)
        ref.tell(Do(ticking.set(2000)))
        await trio.sleep(3)
    assert ticking.at == [2000, 3000]


async def test_it_ends_with_its_incarnation(autojump_clock: MockClock) -> None:
    ticking = Ticking()
    ticking.journal.on_start = ticking.begin
    async with open_supervisor() as harness:
        ref = await harness.start(ticking.journal)
        ref.tell(Do(ticking.set(2000)))
        ref.tell(Do(crash))
        await trio.sleep(10)
        ref.tell(Note("alive"))
    assert ticking.at == []
    assert ticking.journal.words == ["alive"]


async def test_a_deadline_beyond_what_a_clock_counts_fires_early(
    autojump_clock: MockClock,
) -> None:
    ticking = Ticking()
    ticking.journal.on_start = ticking.begin
    async with open_supervisor() as harness:
        ref = await harness.start(ticking.journal)
        ref.tell(Do(ticking.set(1 << 53)))
        await trio.sleep(3601)
    assert ticking.at == [3_600_000]


async def test_no_timer_outlives_its_actor(autojump_clock: MockClock) -> None:
    """A session's deadline may be an hour away when the session ends."""
    ticking = Ticking()
    ticking.journal.on_start = ticking.begin
    async with open_supervisor() as harness:
        ref = await harness.start(ticking.journal)
        ref.tell(Do(ticking.set(3_000_000)))
        ref.drain()
        await ref.wait_stopped()
        assert len(harness.timers) == 0
        ref = await harness.start(ticking.journal)
        ref.tell(Do(ticking.set(3_000_000)))
        ref.tell(Do(crash))
        await trio.sleep(1)
        assert len(harness.timers) == 0


@dataclass
class SteppedClock:
    """A wall time that is set, beside a steady time that runs."""

    step_ms: int = 0

    def now_ms(self) -> int:
        return self.steady_ms() + self.step_ms

    def steady_ms(self) -> int:
        return round(trio.current_time() * 1000)


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000])
async def test_deadlines_are_looked_at_again_when_the_wall_time_has_jumped(
    autojump_clock: MockClock, nursery: trio.Nursery, step_ms: int
) -> None:
    class Listener:
        def signal(self, message: str, /) -> bool:
            fired_at.append((message, trio.current_time()))
            return True

    clock, timers, fired_at = SteppedClock(), Timers(), list[tuple[str, float]]()
    nursery.start_soon(timers.run)
    steps = ClockSteps(clock, timers)
    deadline = Deadline(timers, Listener(), "deadline", clock)
    deadline.set(clock.now_ms() + 600_000)
    timers.after(60, Listener(), "timer")
    began = trio.current_time()
    await steps.check()
    assert fired_at == []
    clock.step_ms = step_ms
    with capture_logs() as logged:
        await steps.check()
        await steps.check()
    assert [(entry["event"], entry["step_ms"]) for entry in logged] == [("clock.stepped", step_ms)]
    assert fired_at == [("deadline", began)]
    await trio.sleep(100)
    assert fired_at[1:] == [("timer", began + 60)]
