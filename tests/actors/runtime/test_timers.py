from __future__ import annotations

import gc
import weakref

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.runtime.timers import Timer, Timers
from actors.runtime.trace import Span, Traced, current


class Listener:
    """Who is signalled."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, float]] = []
        self.traces: list[int] = []

    def signal(self, message: object) -> bool:
        self.heard.append((message, round(trio.current_time(), 3)))
        self.traces.append(current.get().trace)
        return True

    @property
    def messages(self) -> list[object]:
        return [message for message, _ in self.heard]


async def test_timers_fire_in_order_and_on_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers, listener, begun = Timers(), Listener(), trio.current_time()
    nursery.start_soon(timers.run)
    for delay_s, name in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (1.0, "a2"), (0.0, "now")):
        timers.after(delay_s, listener, name)
    assert len(timers) == 5
    await trio.sleep(10)
    assert listener.messages == ["now", "a", "a2", "b", "c"]
    assert [round(at - begun, 3) for _, at in listener.heard] == [0, 1, 1, 2, 3]
    assert len(timers) == 0
    nursery.cancel_scope.cancel()


async def test_an_earlier_timer_that_comes_later_fires_on_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers, listener, begun = Timers(), Listener(), trio.current_time()
    nursery.start_soon(timers.run)
    timers.after(1000, listener, "late")
    await wait_all_tasks_blocked()
    timers.after(1, listener, "early")
    await trio.sleep(5)
    assert listener.heard == [("early", round(begun + 1, 3))]
    nursery.cancel_scope.cancel()


async def test_what_is_due_before_run_begins_fires_then(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers, listener = Timers(), Listener()
    timers.after(1, listener, "a")
    await trio.sleep(2)
    assert listener.messages == []
    nursery.start_soon(timers.run)
    await wait_all_tasks_blocked()
    assert listener.messages == ["a"]
    nursery.cancel_scope.cancel()


async def test_a_cancelled_timer_never_fires(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers, listener = Timers(), Listener()
    nursery.start_soon(timers.run)
    first = timers.after(1, listener, "first")
    second = timers.after(2, listener, "second")
    assert [first.pending, second.pending] == [True, True]
    first.cancel()
    first.cancel()
    assert [first.pending, second.pending] == [False, True]
    assert len(timers) == 1
    await trio.sleep(3)
    assert listener.messages == ["second"]
    second.cancel()
    assert [first.pending, second.pending] == [False, False]
    nursery.cancel_scope.cancel()


async def test_one_that_fires_can_set_the_next(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    fired: list[float] = []

    class Again:
        def signal(self, message: object) -> bool:
            fired.append(trio.current_time())
            if len(fired) < 3:
                timers.after(1, self, message)
            return True

    nursery.start_soon(timers.run)
    begun = trio.current_time()
    timers.after(1, Again(), "tick")
    await trio.sleep(10)
    assert [round(at - begun, 3) for at in fired] == [1, 2, 3]
    nursery.cancel_scope.cancel()


async def test_thousands_of_cancelled_timers_are_let_go_though_none_is_due() -> None:
    # `run` need not wake for it: here it does not even run.
    timers, listener = Timers(), Listener()
    timers.after(86_400, listener, "tomorrow")
    for number in range(50_000):
        timers.after(100_000 + number, listener, number).cancel()
    assert len(timers) == 1
    kept = [timer for timer in gc.get_objects() if isinstance(timer, Timer)]
    assert len(kept) <= 1_200


async def test_pruning_keeps_all_that_are_pending(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers, listener = Timers(), Listener()
    nursery.start_soon(timers.run)
    for number in range(5_000):
        timer = timers.after(1 + (number * 7919 % 5_000) / 1_000, listener, number)
        if number % 2:
            timer.cancel()
    assert len(timers) == 2_500
    await trio.sleep(10)
    assert len(listener.messages) == 2_500
    times = [at for _, at in listener.heard]
    assert times == sorted(times)
    nursery.cancel_scope.cancel()


async def test_a_cancelled_timer_holds_on_to_nobody() -> None:
    timers, listener = Timers(), Listener()
    timer = timers.after(1000, listener, "a")
    gone = weakref.ref(listener)
    timer.cancel()
    del listener
    gc.collect()
    assert gone() is None


async def test_timers_belong_to_no_trace(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    timers, listener = Timers(), Listener()
    with Traced(Span(5)):
        nursery.start_soon(timers.run)
        timers.after(1, listener, "a")
    await trio.sleep(2)
    assert listener.traces == [0]
    nursery.cancel_scope.cancel()
