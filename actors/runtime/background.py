"""Background tasks: loops of a node that are supervised like actors.

A loop that raises is logged and started again, after a back-off that doubles from `BACKOFF_S` to
`BACKOFF_LIMIT_S`. The other tasks, the actors and the connections notice nothing. `failing` names
the tasks that crashed and have not worked since; `/readyz` and the metrics show them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
import trio

from actors.runtime.failures import capture_failure
from actors.runtime.trace import NO_TRACE, Traced
from reileta.observability import log_events

BACKOFF_S: Final = 1.0
BACKOFF_LIMIT_S: Final = 60.0
STEADY_S: Final = 30.0
"""A loop that has run for so long after a crash works again."""

_log = structlog.get_logger()


class Task:
    """The state of one background task."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.crashes = 0
        """All crashes so far."""
        self._in_a_row = 0
        self._began_at: float | None = None

    @property
    def failing(self) -> bool:
        """Whether it crashed, and has not worked since."""
        if not self._in_a_row:
            return False
        return self._began_at is None or trio.current_time() < self._began_at + STEADY_S

    def began(self) -> None:
        self._began_at = trio.current_time()

    def worked(self) -> None:
        """A step succeeded."""
        self._in_a_row = 0

    def crashed(self) -> float:
        """Counts a crash; returns the back-off in seconds."""
        if not self.failing:
            self._in_a_row = 0
        self._began_at = None
        self.crashes += 1
        self._in_a_row += 1
        return float(min(BACKOFF_LIMIT_S, BACKOFF_S * 2 ** min(self._in_a_row - 1, 16)))


class BackgroundTasks:
    """The background tasks of a node, by name. Each runs in a nursery of its starter."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks by name; only to be read."""
        return self._tasks

    @property
    def failing(self) -> list[str]:
        """The names of the tasks that crashed and have not worked since."""
        return sorted(task.name for task in self._tasks.values() if task.failing)

    def run(self, nursery: trio.Nursery, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Runs a loop in the nursery, and starts it again whenever it raises."""
        nursery.start_soon(self._supervise, self._task(name), loop, name=name)

    def repeat(
        self,
        nursery: trio.Nursery,
        name: str,
        step: Callable[[], Awaitable[None]],
        *,
        every_s: float,
        delayed: bool = False,
    ) -> None:
        """Runs a step in the nursery again and again, with `every_s` seconds in between.

        The first step comes at once or, if `delayed`, after `every_s` seconds. After a crash, the
        next step comes after the back-off.
        """
        task = self._task(name)

        async def loop() -> None:
            if delayed and not task.crashes:
                await trio.sleep(every_s)
            while True:
                await step()
                task.worked()
                await trio.sleep(every_s)

        nursery.start_soon(self._supervise, task, loop, name=name)

    def _task(self, name: str) -> Task:
        return self._tasks.setdefault(name, Task(name))

    async def _supervise(self, task: Task, loop: Callable[[], Awaitable[None]]) -> None:
        # A task belongs to no request's trace.
        with Traced(NO_TRACE):
            while True:
                task.began()
                error = await capture_failure(loop)
                if error is None:
                    return
                again_in_s = task.crashed()
                _log.error(
                    log_events.TASK_CRASHED, task=task.name, again_in_s=again_in_s, exc_info=error
                )
                del error
                await trio.sleep(again_in_s)
