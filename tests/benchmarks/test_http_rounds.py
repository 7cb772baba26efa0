"""Rounds alternate, and ratios are of the same round."""

from __future__ import annotations

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import http_rounds
from benchmarks.http import PathResult
from benchmarks.http_rounds import Contender, Rounds, Row, table
from benchmarks.servers import Running
from benchmarks.stats import Latency


def result(path: str, per_s: float, generator_cpu: float = 0.4) -> PathResult:
    return PathResult(path, per_s, Latency(9, 1.0, 2.0, 3.0), {"200": 9}, 0.1, generator_cpu)


def contender(title: str, *paths: str) -> Contender:
    return Contender(title, Running("ws://127.0.0.1:1", 1), paths, ())


def test_each_round_begins_with_another_server_and_asks_all() -> None:
    asked: list[tuple[str, str]] = []

    def ask(one: Contender, path: str) -> PathResult:
        asked.append((one.title, path))
        return result(path, 1.0)

    there = [contender("new", "/a", "/b"), contender("old", "/a", "/b"), contender("peer", "/a")]
    rows = Rounds(ask).run(there, 2)
    assert asked == [
        ("new", "/a"), ("old", "/a"), ("peer", "/a"), ("new", "/b"), ("old", "/b"),
        ("old", "/a"), ("peer", "/a"), ("new", "/a"), ("old", "/b"), ("new", "/b"),
    ]  # fmt: skip
    assert [(row.path, row.server, len(row.rounds)) for row in rows] == [
        ("/a", "new", 2), ("/a", "old", 2), ("/a", "peer", 2), ("/b", "new", 2), ("/b", "old", 2),
    ]  # fmt: skip


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    new = Row("/a", "new", [result("/a", per_s) for per_s in (400.0, 900.0, 100.0)])
    old = Row("/a", "old", [result("/a", per_s) for per_s in (100.0, 300.0, 50.0)])
    assert new.per_s == 400.0
    assert new.times(old) == 3.0


def test_the_table_tells_of_a_load_at_its_limit() -> None:
    rows = [
        Row("/a", "new", [result("/a", 5000.0, 0.95)]),
        Row("/a", "old", [result("/a", 1000.0)]),
    ]
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table(rows))
    said = capture.get()
    assert "5.00" in said
    assert "95% !" in said
    assert "40% !" not in said


def test_a_checkout_that_is_not_installed_is_said(tmp_path: object) -> None:
    app = typer.Typer(add_completion=False)
    app.command()(http_rounds.main)
    given = ("--no-peers", "--against", f"{tmp_path}/absent", "--rounds", "1")
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 1
    assert "is not installed" in done.output


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_all_have_as_many_rounds(rounds: int) -> None:
    there = [contender("new", "/a"), contender("old", "/a")]
    rows = Rounds(lambda _, path: result(path, 1.0)).run(there, rounds)
    assert {len(row.rounds) for row in rows} == {rounds}
