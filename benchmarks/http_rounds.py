"""HTTP requests per second of this version and of others, in alternating rounds of one run.

    python -m benchmarks.http_rounds --against ../other-checkout [--rounds 7] [--seconds 4]

`--against` is a checkout of another version with its own `.venv` (`make install` there). All
servers run at once on one core, with their PostgreSQLs, and one at a time gets requests. So other
work of the machine affects all alike. Shows medians of the rounds, and the ratios of each round.
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

from benchmarks.connect import Target
from benchmarks.dialects import read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.http import HTTP_PATH, PATHS, PathResult, measure
from benchmarks.machine import cores, describe, lift_file_limit
from benchmarks.ratios import turned
from benchmarks.servers import HTTP_KINDS, REILETA, Running, Servers, install_peers

BOTS: Final = 32
_LIMIT: Final = 0.9
"""The generator's share of its core above which it may have been the limit."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that is measured: on these paths, with these tokens."""

    title: str
    running: Running
    paths: Sequence[str]
    tokens: Sequence[str]


class Row(msgspec.Struct, frozen=True):
    """One server on one path: a result per round."""

    path: str
    server: str
    rounds: list[PathResult]

    @property
    def per_s(self) -> float:
        """The median of its rounds."""
        return statistics.median(result.requests_per_s for result in self.rounds)

    @property
    def generator_cpu(self) -> float:
        return max(result.generator_cpu for result in self.rounds)

    def times(self, other: Row) -> float:
        """The median of the ratios to another row, round by round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(mine.requests_per_s / its.requests_per_s for mine, its in pairs)


@dataclass(slots=True)
class Rounds:
    """The rounds, one after the other. Each begins with a different server."""

    ask: Callable[[Contender, str], PathResult]
    results: dict[tuple[str, str], list[PathResult]] = field(default_factory=dict)

    def run(self, contenders: Sequence[Contender], rounds: int) -> list[Row]:
        """Runs all rounds. Returns rows by path, in the order of the contenders."""
        paths = list(dict.fromkeys(path for contender in contenders for path in contender.paths))
        for number in range(rounds):
            for path in paths:
                for contender in turned(contenders, number):
                    if path in contender.paths:
                        self.results.setdefault((path, contender.title), []).append(
                            self.ask(contender, path)
                        )
        return [
            Row(path, contender.title, self.results[path, contender.title])
            for path in paths
            for contender in contenders
            if path in contender.paths
        ]


def table(rows: Sequence[Row]) -> Table:
    """The medians, and the ratio of this version (the first of each path) to the others.

    `CPU µs` is the CPU time of the server process per request, without its PostgreSQL.
    """
    table_ = Table("path", "server", "requests/s", "this / it", "CPU µs", "p99 ms", "load's CPU")
    ours: dict[str, Row] = {}
    for row in rows:
        first = ours.setdefault(row.path, row)
        p99s = [result.latency.p99_ms for result in row.rounds if result.latency is not None]
        cpus = [result.server_cpu_ms_each for result in row.rounds if result.server_cpu_ms_each]
        mark = " !" if row.generator_cpu > _LIMIT else ""
        table_.add_row(
            row.path,
            row.server,
            f"{row.per_s:,.0f}",
            "" if first is row else f"{first.times(row):.2f}",
            f"{statistics.median(cpus) * 1000:,.0f}" if cpus else "-",
            f"{statistics.median(p99s):.1f}" if p99s else "-",
            f"{row.generator_cpu:.0%}{mark}",
        )
    return table_


@contextmanager
def versions(
    folder: Path, against: Sequence[Path], bots: int, core: int | None
) -> Iterator[list[tuple[str, Running, list[str]]]]:
    """Starts this version, and those of other checkouts: for each a title, and tokens."""
    with ExitStack() as stack:
        there = []
        for number, checkout in enumerate((None, *against)):
            place = folder / f"version-{number}"
            place.mkdir(mode=0o755)
            binaries = None if checkout is None else checkout.resolve() / ".venv" / "bin"
            servers = Servers(place, core, binaries)
            problem = servers.missing(REILETA)
            if problem is not None:
                raise BenchmarkError(problem)
            there.append(("this version" if checkout is None else str(checkout), servers))
        started = []
        for title, servers in there:
            servers.make_bots(bots)
            running = stack.enter_context(servers.run(REILETA))
            started.append((title, running, read_tokens(servers.tokens)))
        yield started


@contextmanager
def contenders(
    folder: Path, against: Sequence[Path], peers: bool, core: int | None, console: Console
) -> Iterator[list[Contender]]:
    """Starts the servers, this version first."""
    with ExitStack() as stack:
        there = stack.enter_context(versions(folder, against, BOTS, core))
        started = [Contender(title, running, PATHS, tokens) for title, running, tokens in there]
        servers = Servers(folder, core)
        for kind in HTTP_KINDS if peers else ():
            problem = None if kind is REILETA else servers.missing(kind)
            if problem is not None:
                console.print(f"[yellow]not measured: {kind.title}: {problem}[/]")
            elif kind is not REILETA:
                running = stack.enter_context(servers.run(kind))
                started.append(Contender(kind.title, running, (HTTP_PATH,), ()))
        yield started


Against = Annotated[
    list[Path] | None, typer.Option(help="A checkout of another version. Can be repeated.")
]


def main(
    against: Against = None,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Duration of a measurement.")] = 4,
    connections: Annotated[int, typer.Option(min=1)] = 32,
    peers: Annotated[bool, typer.Option(help="Measure Express and FastAPI too.")] = True,
    output: Annotated[Path | None, typer.Option(help="JSON file for all results.")] = None,
) -> None:
    """Requests per second of several versions, in alternating rounds."""
    console = Console() if Console().is_terminal else Console(width=140)
    lift_file_limit()
    pair = cores()
    if peers and (problem := install_peers()) is not None:
        console.print(f"[yellow]{problem}[/]")

    def ask(contender: Contender, path: str) -> PathResult:
        target = Target.parse(contender.running.url)
        pid = contender.running.pid
        return measure(target, path, contender.tokens, connections, seconds, pid, lambda _: None)

    with tempfile.TemporaryDirectory(prefix="reileta-bench-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
        try:
            core = pair[0] if pair else None
            with contenders(folder, against or (), peers, core, console) as there:
                if pair:
                    os.sched_setaffinity(0, {pair[1]})
                rows = Rounds(ask).run(there, rounds)
        except BenchmarkError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
    console.print(table(rows))
    console.print(f"{rounds} rounds of {seconds:g} s; {describe()}", highlight=False)
    if output is not None:
        output.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))


if __name__ == "__main__":
    typer.run(main)
