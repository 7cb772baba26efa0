"""Writes, one at a time and in order."""

from __future__ import annotations

import outcome
import pytest

from actors.runtime.jobs import LIMIT, SerialJobs, Work
from reileta.errors import Overloaded


async def work() -> str:
    return "done"


def test_the_next_write_begins_when_the_one_before_has_its_outcome() -> None:
    begun: list[Work] = []
    told: list[str] = []
    jobs = SerialJobs(begun.append)

    async def first() -> None: ...
    async def second() -> None: ...

    jobs.write(first, lambda _: told.append("first"))
    jobs.write(second, lambda _: told.append("second"))
    assert (begun, told, len(jobs)) == ([first], [], 2)
    jobs.written(outcome.Error(Overloaded()))
    assert (begun, told) == ([first, second], ["first"])
    jobs.written(outcome.Value(None))
    assert (begun, told, len(jobs)) == ([first, second], ["first", "second"], 0)


def test_what_follows_may_write_again() -> None:
    begun: list[Work] = []
    jobs = SerialJobs(begun.append)
    jobs.write(work, lambda _: jobs.write(work, lambda _: None))
    jobs.written(outcome.Value(None))
    assert (len(begun), len(jobs)) == (2, 1)


def test_too_much_is_refused() -> None:
    jobs = SerialJobs(lambda _: None)
    for _ in range(LIMIT):
        jobs.ensure_room()
        jobs.write(work, lambda _: None)
    with pytest.raises(Overloaded):
        jobs.ensure_room()
    jobs.written(outcome.Value(None))
    jobs.ensure_room()
