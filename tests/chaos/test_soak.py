"""What a soak calls flat, and a short soak; `make chaos` runs longer ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.soak.judge import MIB, Quiet, Sample, grown_tables, growth, judge, percentile
from tests.chaos.soak.run import BRIEF, soak
from tests.chaos.soak.town import Fault, Refused, Tally, explains, leaves

COUNTS = {"tasks": 40, "sessions": 0, "http connections": 0}
SAMPLE = Sample(
    at_s=0.0,
    resident_bytes=100 * MIB,
    descriptors=20,
    threads=2,
    database_connections=5,
    counts=COUNTS,
)
QUIET = Quiet(SAMPLE, {"Hub.watchers": 0}, {"builtins.dict": 20_000}, {})


def rising(mib_a_minute: float, minutes: int = 20) -> list[Sample]:
    """Samples of a load under which the memory grows."""
    return [
        replace(SAMPLE, at_s=60.0 * one, resident_bytes=int((100 + one * mib_a_minute) * MIB))
        for one in range(minutes)
    ]


def test_a_flat_server_is_flat() -> None:
    warm = [replace(SAMPLE, at_s=float(one), counts={**COUNTS, "tasks": 90}) for one in range(9)]
    assert judge(warm, QUIET, QUIET) == []
    assert judge([], QUIET, QUIET) == []


def test_memory_that_grows_is_found() -> None:
    assert growth(rising(2, 11)) == pytest.approx(20 * MIB)
    assert judge(rising(0.1), QUIET, QUIET) == []
    (wrong,) = judge(rising(2), QUIET, QUIET)
    assert "second half" in wrong
    assert judge(rising(2), QUIET, QUIET, spare=4.0) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, resident_bytes=120 * MIB),
        lambda one: replace(one, descriptors=21),
        lambda one: replace(one, threads=9),
        lambda one: replace(one, counts={**COUNTS, "tasks": 41}),
        lambda one: replace(one, counts={**COUNTS, "sessions": 1}),
    ],
    ids=["memory", "descriptors", "threads", "tasks", "sessions"],
)
def test_what_is_left_is_found(change: Callable[[Sample], Sample]) -> None:
    assert len(judge([], QUIET, replace(QUIET, sample=change(SAMPLE)))) == 1


def test_connections_of_the_database_have_a_task_and_a_descriptor_each() -> None:
    more = replace(SAMPLE, database_connections=8, descriptors=23, counts={**COUNTS, "tasks": 43})
    assert judge([], QUIET, replace(QUIET, sample=more)) == []


def test_objects_that_stay_are_found_and_named() -> None:
    more = replace(QUIET, classes={"builtins.dict": 20_000, "actors.X": 2_500})
    (wrong,) = judge([], QUIET, more)
    assert "actors.X +2500" in wrong
    assert grown_tables(QUIET, replace(QUIET, tables={"Hub.watchers": 25})) == [
        "Hub.watchers: 0 -> 25"
    ]


def test_percentiles() -> None:
    assert percentile([*range(100)], 0.99) == 99
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_a_fault_explains_what_happens_until_shortly_after_it() -> None:
    faults = [Fault("failover", 10.0, 15.0), Fault("restart", 100.0)]
    assert not explains(faults, 1.0, 9.0)
    assert explains(faults, 9.0, 11.0)
    assert explains(faults, 16.0, 17.0)
    assert not explains(faults, 40.0, 60.0)
    assert explains(faults, 150.0, 151.0)


def test_errors_are_sorted() -> None:
    tally = Tally()
    unavailable = Refused("a request", 122)
    tally.failed("player", ExceptionGroup("", [unavailable, OSError()]), 1.0, explained=True)
    assert (tally.unexplained, tally.broken) == ([], [])
    tally.failed("player", unavailable, 1.0, explained=False)
    tally.failed("player", Refused("a request", 16), 1.0, explained=True)
    assert len(tally.unexplained) == 2
    tally.failed("player", KeyError("data"), 1.0, explained=True)
    assert len(tally.broken) == 1
    assert len(leaves(ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError()])]))) == 2


@pytest.mark.slow
# Clients that vanish leave sockets behind that the clients' libraries do not close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_server_is_as_before_after_visitors_and_a_failover(data_folder: Path) -> None:
    assert await soak(0.2, 0.15, 1, data_folder, times=BRIEF) == []
