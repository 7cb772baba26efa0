"""Jobs, one at a time and in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import outcome
import pytest

from actors.runtime import SerialJobs
from actors.runtime.trace import Span, Traced, current
from reileta.errors import Overloaded, SessionNotFound
from tests.actors.probe import HeldWork

T = TypeVar("T")


async def nothing() -> None:
    """Work that does nothing."""


async def test_the_next_job_begins_when_the_one_before_is_done() -> None:
    context, done = HeldWork(), list[str]()
    jobs = SerialJobs(context)

    async def fail() -> None:
        raise Overloaded

    jobs.add(fail, lambda result: done.append(type(result).__name__))
    jobs.add(nothing, lambda result: done.append(type(result).__name__))
    assert (len(context), len(jobs), done) == (1, 2, [])
    await context.finish()
    assert (len(context), len(jobs), done) == (1, 1, ["Error"])
    await context.finish()
    assert (len(context), len(jobs), done) == (0, 0, ["Error", "Value"])


async def test_a_job_that_is_done_may_add_another() -> None:
    context = HeldWork()
    jobs = SerialJobs(context)
    jobs.add(nothing, lambda _: jobs.add(nothing, lambda _: None))
    await context.finish()
    assert (len(context), len(jobs)) == (1, 1)


async def test_requests_over_the_limit_are_refused() -> None:
    context = HeldWork()
    jobs = SerialJobs(context, limit=2)
    for _ in range(2):
        jobs.ensure_room()
        jobs.add(nothing, lambda _: None)
    with pytest.raises(Overloaded):
        jobs.ensure_room()
    jobs.add(nothing, lambda _: None)  # what the actor adds for itself is taken
    await context.finish()
    await context.finish()
    jobs.ensure_room()


async def test_jobs_that_have_not_begun_can_be_refused() -> None:
    context, results = HeldWork(), list[outcome.Outcome[None]]()
    jobs = SerialJobs(context)
    jobs.refuse_waiting(SessionNotFound())
    for _ in range(3):
        jobs.add(nothing, results.append)
    jobs.refuse_waiting(SessionNotFound())
    assert len(jobs) == 1
    for result in results:
        with pytest.raises(SessionNotFound):
            result.unwrap()
    assert len(results) == 2
    await context.finish()
    assert (len(results), len(context), len(jobs)) == (3, 0, 0)


class TracedWork(HeldWork):
    """Notes the trace in which each job begins."""

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[int] = []

    def run(
        self, work: Callable[[], Awaitable[T]], then: Callable[[outcome.Outcome[T]], None]
    ) -> None:
        self.traces.append(current.get().trace)
        super().run(work, then)


async def test_a_job_that_waited_belongs_to_the_trace_that_added_it() -> None:
    context = TracedWork()
    jobs = SerialJobs(context)
    with Traced(Span(1)):
        jobs.add(nothing, lambda _: None)
    with Traced(Span(2)):
        jobs.add(nothing, lambda _: None)
    with Traced(Span(1)):
        await context.finish()
    assert context.traces == [1, 2]
