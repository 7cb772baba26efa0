"""Rooms of this version and of others, in alternating rounds of one run.

    python -m benchmarks.room_rounds --against ../other-checkout [--players 200 --group 2 --rate 20]

`--against` is a checkout of another version with its own `.venv` (`make install` there). All
servers run at once on one core, and one at a time gets messages, so that other work of the machine
affects all alike. Shows medians of the rounds, and the medians of the ratios of each round with
their lowest and highest.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import worker
from benchmarks.connect import Dialect, Target
from benchmarks.dialects import choose
from benchmarks.errors import BenchmarkError
from benchmarks.http_rounds import Against, versions
from benchmarks.load import LoadResult, Plan
from benchmarks.machine import cores, describe, lift_file_limit
from benchmarks.ratios import ratios, spread, turned
from benchmarks.rooms import PAYLOAD_BYTES, Rooms
from benchmarks.servers import KINDS, REILETA, Running, Servers, install_peers

WARM_UP_S: Final = 0.5
DRAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is measured, and how its clients speak."""

    title: str
    running: Running
    dialect: Dialect


class Row(msgspec.Struct, frozen=True):
    """One server: a result per round."""

    server: str
    rounds: list[LoadResult]

    def median(self, of: Callable[[LoadResult], float | None]) -> float | None:
        """The median of a figure; None if a round has none."""
        values = [value for value in map(of, self.rounds) if value is not None]
        return statistics.median(values) if len(values) == len(self.rounds) else None

    def ratios(self, other: Row, of: Callable[[LoadResult], float | None]) -> list[float]:
        """Another row's figure as a multiple of this one's, round by round, in order of size."""
        return ratios(list(map(of, self.rounds)), list(map(of, other.rounds)))


def cpu(result: LoadResult) -> float | None:
    return result.cpu_s_per_million


def p99(result: LoadResult) -> float | None:
    return None if result.latency is None else result.latency.p99_ms


FIGURES: Final[tuple[tuple[str, Callable[[LoadResult], float | None]], ...]] = (
    ("CPU s/million", cpu),
    ("p99 ms", p99),
    ("calm p99 ms", lambda result: result.calm_p99_ms),
    ("million/s", lambda result: result.deliveries_per_s / 1e6),
)
"""The columns of the table."""


@dataclass(slots=True)
class Rounds:
    """The rounds, one after the other. Each begins with a different server."""

    load: Callable[[Contender], LoadResult]
    results: dict[str, list[LoadResult]] = field(default_factory=dict)

    def run(self, contenders: Sequence[Contender], rounds: int) -> list[Row]:
        """Runs all rounds. Returns rows in the order of the contenders."""
        for number in range(rounds):
            for contender in turned(contenders, number):
                self.results.setdefault(contender.title, []).append(self.load(contender))
        return [Row(one.title, self.results[one.title]) for one in contenders]


def table(rows: Sequence[Row]) -> Table:
    """The medians, and the ratios of this version (the first row) to the others."""
    titles = [title for figure, _ in FIGURES for title in (figure, "this / it")]
    shown = Table("server", "delivered", *titles)
    first = rows[0]
    for row in rows:
        cells = [row.server, f"{min(result.share for result in row.rounds):.2%}"]
        for _, of in FIGURES:
            middle = row.median(of)
            cells.append("-" if middle is None else f"{middle:.2f}")
            cells.append("" if row is first else spread(first.ratios(row, of)))
        shown.add_row(*cells)
    return shown


@contextmanager
def contenders(
    against: Sequence[Path], peers: Sequence[str], players: int, group: int
) -> Iterator[list[Contender]]:
    """This version, those checkouts and those peers, all on the first core; this process takes the
    other one. Raises BenchmarkError if one of them is unknown, or does not start."""
    pair = cores()
    core = pair[0] if pair else None
    with tempfile.TemporaryDirectory(prefix="reileta-bench-") as made, ExitStack() as stack:
        folder = Path(made)
        folder.chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
        there: list[Contender] = []
        for title, running, tokens in stack.enter_context(versions(folder, against, players, core)):
            target = Target.parse(running.url)
            dialect = choose(REILETA.protocol, target, tokens, players, group, None)
            there.append(Contender(title, running, dialect))
        problem = install_peers() if peers else None
        kinds = {kind.name: kind for kind in KINDS if kind is not REILETA}
        for name in peers:
            if name not in kinds or problem is not None:
                raise BenchmarkError(problem or f"--peer must be one of {', '.join(kinds)}")
            running = stack.enter_context(Servers(folder, core).run(kinds[name]))
            target = Target.parse(running.url)
            dialect = choose(kinds[name].protocol, target, (), players, group, None)
            there.append(Contender(kinds[name].title, running, dialect))
        if pair:
            os.sched_setaffinity(0, {pair[1]})
        yield there


Peers = Annotated[
    list[str] | None, typer.Option(help="Another server: ws, socketio, bun. Can be repeated.")
]
Players = Annotated[int, typer.Option(min=2, help="Players in all.")]
Group = Annotated[int, typer.Option(min=2, help="Players per room.")]


def main(
    against: Against = None,
    peer: Peers = None,
    players: Players = 200,
    group: Group = 2,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages/s per player.")] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, help="Duration of a measurement.")] = 4,
    read_every: worker.ReadEvery = 1,
    output: Annotated[Path | None, typer.Option(help="JSON file for all results.")] = None,
) -> None:
    """CPU and latency of several versions in rooms, in alternating rounds."""
    console = Console() if Console().is_terminal else Console(width=160)
    lift_file_limit()

    def load(contender: Contender) -> LoadResult:
        target = Target.parse(contender.running.url)
        rooms = Rooms(target, contender.dialect, players, group, PAYLOAD_BYTES)
        pid = contender.running.pid
        plan = Plan(rate, seconds, WARM_UP_S, DRAIN_S, pid, read_every=read_every)
        return rooms.run(plan, lambda _: None)

    try:
        with contenders(against or (), peer or (), players, group) as there:
            rows = Rounds(load).run(there, rounds)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    console.print(table(rows))
    console.print(
        f"{players} players in rooms of {group}, {rate:g} messages/s each; "
        f"{rounds} rounds of {seconds:g} s; {describe()}",
        highlight=False,
    )
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


if __name__ == "__main__":
    typer.run(main)
