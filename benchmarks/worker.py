"""The shared command line of benchmarks: options, progress, result.

For a person, a progress bar and a table. For `benchmarks.run` (`--json`), one JSON object per line
on standard output: `{"progress": 0.5}` while it runs, and `{"result": {…}}` at the end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.errors import BenchmarkError
from benchmarks.machine import lift_file_limit

Url = Annotated[str, typer.Option(help="The server, such as ws://127.0.0.1:3032.")]
Tokens = Annotated[
    Path | None, typer.Option(help="File with a token per line, from `reileta bots create`.")
]
Pid = Annotated[
    int | None, typer.Option(help="Process id of the server, to measure its CPU and memory.")
]
Core = Annotated[int | None, typer.Option(help="Pin the load to this core.")]
Json = Annotated[bool, typer.Option("--json", help="Progress and result as JSON lines.")]
Seconds = Annotated[float, typer.Option(min=0.5, help="Duration of the measurement.")]
ReadEvery = Annotated[
    int, typer.Option(min=1, help="Read one in so many connections; count bytes of the others.")
]
Protocol = Annotated[str, typer.Option(help="reileta, plain (ws, Bun) or socketio.")]

_WIDTH = 120
"""Width of the output if it is not a terminal."""

Share = Callable[[float], None]
"""Called with the share of the work that is done, 0 to 1."""

Result = TypeVar("Result", bound=msgspec.Struct)


def work(
    title: str, job: Callable[[Share], Result], *, as_json: bool = False, core: int | None = None
) -> Result:
    """Runs the job in this process, shows its progress, and prints its result.

    A BenchmarkError becomes one line on standard error and exit status 1.
    """
    lift_file_limit()
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        if as_json:
            result = job(throttled(_json_progress))
            print(json.dumps({"result": msgspec.to_builtins(result)}), flush=True)
            return result
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), transient=True
        ) as bar:
            task = bar.add_task(title, total=1.0)
            result = job(throttled(lambda share: bar.update(task, completed=share)))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for table in tables(title, msgspec.to_builtins(result)):
        console.print(table)
    return result


def part(progress: Share, begin: float, end: float) -> Share:
    """Maps the progress of a part of the work to the progress of the whole."""
    return lambda share: progress(begin + share * (end - begin))


def throttled(
    progress: Share, clock: Callable[[], float] = time.monotonic, gap_s: float = 0.1
) -> Share:
    """The same, but called no more often than that. The end is always reported."""
    last = -gap_s

    def report(share: float) -> None:
        nonlocal last
        now = clock()
        if share >= 1 or now - last >= gap_s:
            last = now
            progress(share)

    return report


def _json_progress(share: float) -> None:
    print(json.dumps({"progress": round(share, 3)}), flush=True)


def tables(title: str, values: Mapping[str, Any]) -> list[Table]:
    """The figures for a person. A list of objects is a table of its own."""
    first, others = Table("what", "value", title=title), []
    for name, value in flatten(values).items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            rows = [flatten(one) for one in value]
            names = list(dict.fromkeys(column for row in rows for column in row))
            table = Table(*(_words(one) for one in names), title=_words(name))
            for row in rows:
                table.add_row(*(shown(row.get(one)) for one in names))
            others.append(table)
        else:
            first.add_row(_words(name), shown(value))
    return [first, *others]


def _words(name: str) -> str:
    return name.replace("_", " ")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level: `latency.p99_ms`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def shown(value: object) -> str:
    """A figure for a person."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and abs(value) < 100:
        return f"{value:,.3f}"
    return f"{value:,.0f}"
