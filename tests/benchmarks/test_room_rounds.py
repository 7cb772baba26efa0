"""Rounds of rooms alternate, and ratios are of the same round."""

from __future__ import annotations

from typing import cast

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import room_rounds
from benchmarks.connect import Dialect
from benchmarks.load import LoadResult
from benchmarks.ratios import spread
from benchmarks.room_rounds import Contender, Rounds, Row, cpu, p99, table
from benchmarks.servers import Running
from benchmarks.stats import Latency


def result(cpu_s: float | None, p99_ms: float = 3.0, share: float = 1.0) -> LoadResult:
    return LoadResult(
        players=2,
        rate=1,
        seconds=1,
        warm_up_s=0,
        messages_per_s=2,
        expected=2,
        delivered=2,
        share=share,
        deliveries_per_s=2,
        received_bytes_per_s=2,
        latency=Latency(9, 1.0, p99_ms, 9.0),
        late_p99_ms=0.1,
        generator_cpu=0.1,
        lost_connections=0,
        close_codes={},
        server_cpu=0.1,
        cpu_s_per_million=cpu_s,
        rss_bytes=1,
        rss_bytes_all=1,
    )


def test_each_round_begins_with_another_server() -> None:
    asked: list[str] = []

    def load(one: Contender) -> LoadResult:
        asked.append(one.title)
        return result(1.0)

    running, dialect = Running("ws://127.0.0.1:1", 1), cast(Dialect, None)
    there = [Contender(title, running, dialect) for title in ("new", "old")]
    rows = Rounds(load).run(there, 3)
    assert asked == ["new", "old", "old", "new", "new", "old"]
    assert [(row.server, len(row.rounds)) for row in rows] == [("new", 3), ("old", 3)]


def test_ratios_are_those_of_each_round() -> None:
    new = Row("new", [result(each) for each in (10.0, 20.0, 5.0)])
    old = Row("old", [result(each) for each in (20.0, 20.0, 20.0)])
    assert new.ratios(old, cpu) == [0.25, 0.5, 1.0]
    assert new.ratios(old, p99) == [1.0, 1.0, 1.0]
    assert Row("no figure", [result(None)] * 3).median(cpu) is None


@pytest.mark.parametrize(
    ("ratios", "said"), [([0.9, 1.0, 1.1], "1.00 (0.90-1.10)"), ([1, 2], "1.50 (1.00-2.00) !")]
)
def test_ratios_that_differ_too_much_are_marked(ratios: list[float], said: str) -> None:
    assert spread(ratios) == said
    assert spread([]) == "-"


def test_the_table_shows_the_lowest_share() -> None:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table([Row("new", [result(1.0, share=0.5), result(1.0)])]))
    assert "50.00%" in capture.get()


def test_the_table_compares_each_figure() -> None:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table([Row("new", [result(1.0, 6.0)]), Row("old", [result(2.0, 3.0)])]))
    (line,) = [line for line in capture.get().splitlines() if "old" in line]
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells[:6] == ["old", "100.00%", "2.00", "0.50 (0.50-0.50)", "3.00", "2.00 (2.00-2.00)"]
    assert cells[6:8] == ["-", "-"]


def test_an_unknown_peer_is_an_error() -> None:
    app = typer.Typer()
    app.command()(room_rounds.main)
    assert CliRunner().invoke(app, ["--players", "1"]).exit_code == 2
