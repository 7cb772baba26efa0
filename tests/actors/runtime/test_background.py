"""Background tasks: contained, logged, restarted with a back-off, and visible."""

from __future__ import annotations

import itertools

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from actors.runtime.background import BACKOFF_LIMIT_S, STEADY_S, BackgroundTasks
from tests.actors.probe import Boom


async def test_a_loop_that_raises_is_started_again_with_a_back_off(
    autojump_clock: MockClock,
) -> None:
    tasks, starts = BackgroundTasks(), list[float]()

    async def loop() -> None:
        starts.append(trio.current_time())
        raise Boom

    with capture_logs() as logged, trio.move_on_after(200):
        async with trio.open_nursery() as nursery:
            tasks.run(nursery, "loop", loop)
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps[:7] == [1, 2, 4, 8, 16, 32, BACKOFF_LIMIT_S]
    assert [(entry["event"], entry["task"]) for entry in logged[:1]] == [("task.crashed", "loop")]
    assert isinstance(logged[0]["exc_info"], Boom)
    assert tasks.tasks["loop"].crashes == len(starts)
    assert tasks.failing == ["loop"]


async def test_its_siblings_go_on(autojump_clock: MockClock) -> None:
    tasks, steps = BackgroundTasks(), 0

    async def fail() -> None:
        raise Boom

    async def count() -> None:
        nonlocal steps
        steps += 1

    with trio.move_on_after(10.5):
        async with trio.open_nursery() as nursery:
            tasks.repeat(nursery, "one", fail, every_s=1)
            tasks.repeat(nursery, "two", count, every_s=1, delayed=True)
    assert steps == 10
    assert tasks.failing == ["one"]


async def test_a_step_that_succeeds_ends_the_failure(autojump_clock: MockClock) -> None:
    tasks, healthy = BackgroundTasks(), False

    async def step() -> None:
        if not healthy:
            raise Boom

    async with trio.open_nursery() as nursery:
        tasks.repeat(nursery, "task", step, every_s=5)
        await trio.sleep(0.5)
        assert tasks.failing == ["task"]
        healthy = True
        await trio.sleep(1)
        assert tasks.failing == []
        healthy = False
        await trio.sleep(5)
        assert tasks.failing == ["task"]
        nursery.cancel_scope.cancel()
    assert tasks.tasks["task"].crashes == 2


async def test_a_loop_without_steps_works_again_when_it_has_run_for_a_while(
    autojump_clock: MockClock,
) -> None:
    tasks, crashes = BackgroundTasks(), 1

    async def loop() -> None:
        nonlocal crashes
        crashes -= 1
        if crashes >= 0:
            raise Boom
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        tasks.run(nursery, "loop", loop)
        await trio.sleep(STEADY_S)
        assert tasks.failing == ["loop"]
        await trio.sleep(2)
        assert tasks.failing == []
        nursery.cancel_scope.cancel()


async def test_cancellation_ends_it(autojump_clock: MockClock) -> None:
    tasks = BackgroundTasks()
    async with trio.open_nursery() as nursery:
        tasks.run(nursery, "loop", trio.sleep_forever)
        nursery.cancel_scope.cancel()
    assert tasks.failing == []
