"""`make bench`: starts the servers, runs all benchmarks, prints and saves the report.

    python -m benchmarks.run [--quick] [--only rooms,idle] [--seconds 10]

The server under test has one core, the load another. Results go to `benchmarks/results/latest/`.
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from benchmarks import chart, report
from benchmarks.errors import BenchmarkError
from benchmarks.machine import cores, describe, lift_file_limit
from benchmarks.questions import QUESTIONS, Runner, Scale
from benchmarks.screen import Screen
from benchmarks.servers import HTTP_KINDS, KINDS, REILETA, Servers, install_peers

RESULTS: Final = Path(__file__).parent / "results" / "latest"
_WIDTH: Final = 140
"""Width of the output if it is not a terminal: wide enough that no table is cut."""


def chosen(only: str | None) -> list[str]:
    """The chosen benchmarks, in order. Raises BenchmarkError for unknown ones."""
    if only is None:
        return list(QUESTIONS)
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in QUESTIONS]
    if unknown or not names:
        text = ", ".join(unknown) or "nothing"
        raise BenchmarkError(f"unknown benchmark: {text} (there are {', '.join(QUESTIONS)})")
    return [name for name in QUESTIONS if name in names]


def run(names: list[str], scale: Scale, peers: bool, console: Console) -> report.Report:
    """Runs the benchmarks. A failure goes into the report, and the others continue."""
    lift_file_limit()
    pair = cores()
    install_problem = install_peers() if peers else None
    with tempfile.TemporaryDirectory(prefix="reileta-bench-") as folder:
        Path(folder).chmod(0o755)  # the account of the embedded PostgreSQL must reach its data
        servers = Servers(Path(folder), pair[0] if pair else None)
        wanted = dict.fromkeys((*KINDS, *HTTP_KINDS) if peers else (REILETA,))
        problems = {kind: servers.missing(kind) for kind in wanted}
        found = report.Report(
            when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=describe(),
            pinned=pair is not None,
            quick=scale.quick,
            servers=[kind.title for kind, problem in problems.items() if problem is None],
            missing={kind.title: problem for kind, problem in problems.items() if problem},
        )
        if install_problem:
            found.missing["peers"] = install_problem
        there = {kind for kind, problem in problems.items() if problem is None}
        measured = [kind for kind in KINDS if kind in there]
        over_http = [kind for kind in HTTP_KINDS if kind in there]
        with Screen(console, len(names)) as screen:
            core = pair[1] if pair else None
            runner = Runner(servers, measured, over_http, scale, core, screen, found)
            for name in names:
                screen.question(name)
                try:
                    QUESTIONS[name](runner)
                except BenchmarkError as error:
                    found.failed[name] = str(error)
                    screen.say(f"[red]{name}: {error}[/]")
    return found


def main(
    quick: Annotated[bool, typer.Option(help="Short runs, for a first test.")] = False,
    only: Annotated[str | None, typer.Option(help=f"Some of {','.join(QUESTIONS)}.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Duration of a run.")] = None,
    peers: Annotated[bool, typer.Option(help="Measure the peers too.")] = True,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = RESULTS,
) -> None:
    """How fast Reileta is here, beside its peers."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    try:
        names = chosen(only)
        found = run(names, Scale.of(quick=quick, seconds=seconds), peers, console)
    except BenchmarkError as error:
        Console(stderr=True).print(f"error: {error}", highlight=False)
        raise typer.Exit(1) from None
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    report.show(found, console)
    if found.rooms:
        chart.save(found, output / "chart.png")
    console.print(f"written to {output}/", highlight=False)
    if found.failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
