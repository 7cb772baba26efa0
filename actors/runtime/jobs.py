"""Serial jobs: an actor's work beside it, one job at a time, in order.

Two writes to the database at once would use two connections, and the older write might be done
last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

import outcome

from actors.runtime.trace import Traced, current
from reileta.errors import Overloaded, ReiletaError

T = TypeVar("T")

LIMIT: Final = 64


class RunsWork(Protocol):
    """The part of an actor's `Context` that jobs need."""

    def run(
        self, work: Callable[[], Awaitable[T]], then: Callable[[outcome.Outcome[T]], None]
    ) -> None: ...


class _Job(Generic[T]):
    __slots__ = ("span", "then", "work")

    def __init__(
        self, work: Callable[[], Awaitable[T]], then: Callable[[outcome.Outcome[T]], None]
    ) -> None:
        self.work = work
        self.then = then
        self.span = current.get()


class SerialJobs:
    """Jobs of one incarnation. Make it in `on_start`, where the actor has its context.

    `limit` counts the jobs that wait and the one that runs. Overflow policy: `ensure_room` refuses
    at the limit, so that a requester gets `Overloaded`; `add` takes every job, because an actor
    adds only a bounded number of jobs for itself.
    """

    def __init__(self, context: RunsWork, limit: int = LIMIT) -> None:
        self._context = context
        self._limit = limit
        self._jobs: list[_Job[Any]] = []  # hardly ever more than one; a deque has 760 bytes

    def __len__(self) -> int:
        """How many jobs wait or run."""
        return len(self._jobs)

    def ensure_room(self) -> None:
        """Raises:
        Overloaded: as many jobs as the limit allows wait or run.
        """
        if len(self._jobs) >= self._limit:
            raise Overloaded

    def add(
        self, work: Callable[[], Awaitable[T]], then: Callable[[outcome.Outcome[T]], None]
    ) -> None:
        """Runs `work` after all earlier jobs; then calls `then(outcome)` in the actor.

        Both belong to the trace that is current now.
        The next job begins before `then` is called, but does nothing until the drain awaits.
        """
        self._jobs.append(_Job(work, then))
        if len(self._jobs) == 1:
            self._begin()

    def refuse_waiting(self, error: ReiletaError) -> None:
        """Drops the jobs that have not begun; each gets the error as its outcome, at once."""
        jobs = list(self._jobs)
        self._jobs = jobs[:1]
        for job in jobs[1:]:
            job.then(outcome.Error(error))

    def _begin(self) -> None:
        job = self._jobs[0]
        with Traced(job.span):  # not that of the job before, which has just ended
            self._context.run(job.work, self._done)

    def _done(self, result: outcome.Outcome[Any]) -> None:
        job = self._jobs.pop(0)
        if self._jobs:
            self._begin()
        job.then(result)
