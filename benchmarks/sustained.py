"""The highest rate that a server sustains, found by short runs at different rates.

    python -m benchmarks.sustained --url ws://host:3032 --tokens bots.txt --players 100

A rate is sustained if at least 99.9% is delivered, the p99 stays below 1 s, and deliveries keep
pace with sending. (With a queue that grows all the time, a rate is not sustained.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final

import msgspec
import typer

from benchmarks import worker
from benchmarks.connect import Target
from benchmarks.dialects import choose, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.load import LoadResult, Plan
from benchmarks.rooms import PAYLOAD_BYTES, Rooms

PRECISION: Final = 1.06
"""The search ends when the lowest rate that failed is this close to the highest that held."""
_GROWTH: Final = 1.6
PROBES: Final = 12
"""Limit of runs of a search."""
READ_EVERY: Final = 5
"""To read what comes on each connection, the load needs more than a core at the highest rates."""
_REST_S: Final = 0.5


class SustainedResult(msgspec.Struct, frozen=True):
    """`best` is the run at the highest rate that held; None if not even the lowest held."""

    best: LoadResult | None
    at_limit: bool
    """The search ended because the load could go no higher: the server can do more."""
    probes: list[LoadResult]


def highest(
    holds: Callable[[float], bool], first: float, limit: float, probes: int = PROBES
) -> float | None:
    """The highest rate up to `limit` that holds, starting at `first`; None if none does.

    Raises BenchmarkError unless 0 < first <= limit.
    """
    if not 0 < first <= limit:
        raise BenchmarkError("the first rate must be above 0, and at most the limit")
    low: float | None = None
    high: float | None = None
    rate = first
    for _ in range(probes):
        if holds(rate):
            low = rate
        else:
            high = rate
        if low is None:
            rate /= 2
        elif low >= limit or (high is not None and high / low <= PRECISION):
            break
        elif high is None:
            rate = min(limit, low * _GROWTH)
        else:
            rate = math.sqrt(low * high)
    return low


def search(
    rooms: Rooms, plan: Plan, first: float, limit: float, probes: int, progress: worker.Share
) -> SustainedResult:
    """Probes rates per player, each over fresh connections."""
    runs: list[LoadResult] = []

    def holds(rate: float) -> bool:
        done = len(runs)
        share = worker.part(progress, done / probes, (done + 1) / probes)
        run = rooms.run(at_rate(plan, rate), share)
        runs.append(run)
        time.sleep(_REST_S)
        return run.sustained

    best = highest(holds, first, limit, probes)
    progress(1.0)
    found = next((run for run in runs if run.rate == best), None)
    return SustainedResult(found, best is not None and best >= limit, runs)


def at_rate(plan: Plan, rate: float) -> Plan:
    """The same plan at another rate."""
    return replace(plan, rate=rate)


def main(
    url: worker.Url,
    tokens: worker.Tokens = None,
    players: Annotated[int, typer.Option(min=2, help="Players in all.")] = 100,
    group: Annotated[int, typer.Option(min=0, help="Players per room; 0: one room.")] = 0,
    first: Annotated[float, typer.Option(help="First rate: messages/s per player.")] = 20,
    limit: Annotated[float, typer.Option(help="Highest rate to try.")] = 400,
    probes: Annotated[int, typer.Option(min=1, help="Limit of runs.")] = PROBES,
    read_every: worker.ReadEvery = READ_EVERY,
    seconds: worker.Seconds = 4,
    protocol: worker.Protocol = "reileta",
    pid: worker.Pid = None,
    core: worker.Core = None,
    json: worker.Json = False,
) -> None:
    """The highest rate that a server sustains with that many players."""

    def job(progress: worker.Share) -> SustainedResult:
        target, size = Target.parse(url), group or players
        dialect = choose(protocol, target, read_tokens(tokens), players, size, None)
        rooms = Rooms(target, dialect, players, size, PAYLOAD_BYTES)
        plan = Plan(first, seconds, server_pid=pid, read_every=read_every)
        return search(rooms, plan, first, limit, probes, progress)

    worker.work(f"what {players} players sustain", job, as_json=json, core=core)


if __name__ == "__main__":
    typer.run(main)
