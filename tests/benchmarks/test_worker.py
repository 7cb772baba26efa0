"""What every question's command line shares: progress, results, errors."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
import typer

from benchmarks.errors import BenchmarkError
from benchmarks.worker import flatten, part, shown, throttled, work


class Found(msgspec.Struct):
    rate_per_s: float


def job(progress: Callable[[float], None]) -> Found:
    progress(1.0)
    return Found(12.5)


def failing(progress: Callable[[float], None]) -> Found:
    raise BenchmarkError("the server is out to lunch")


def test_json_lines_end_with_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert work("title", job, as_json=True) == Found(12.5)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"progress": 1.0}, {"result": {"rate_per_s": 12.5}}]


def test_a_person_gets_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    work("the title", job)
    out = capsys.readouterr().out
    assert "the title" in out
    assert "rate per s" in out
    assert "12.500" in out


class Asked(msgspec.Struct):
    what: str
    took: dict[str, float]


class Many(msgspec.Struct):
    asked: list[Asked]


def test_a_list_of_objects_is_a_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    work("the title", lambda _: Many([Asked("a page", {"p50_ms": 1.5}), Asked("a name", {})]))
    lines = capsys.readouterr().out.splitlines()
    (heading,) = [line for line in lines if "took.p50 ms" in line]
    assert "what" in heading
    assert [line.split()[-2] for line in lines if "a page" in line or "a name" in line] == [
        "1.500",
        "-",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_an_error_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    with pytest.raises(typer.Exit) as caught:
        work("title", failing, as_json=as_json)
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: the server is out to lunch\n"


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    now = 0.0
    told: list[float] = []
    progress = throttled(told.append, lambda: now)
    for step in range(10):
        now = step * 0.03
        progress(step / 10)
    progress(1.0)
    assert told == [0.0, 0.4, 0.8, 1.0]


def test_the_progress_of_a_part() -> None:
    told: list[float] = []
    inner = part(told.append, 0.2, 0.6)
    inner(0.0)
    inner(0.5)
    inner(1.0)
    assert told == pytest.approx([0.2, 0.4, 0.6])


def test_nested_results_are_one_level() -> None:
    assert flatten({"a": 1, "b": {"c": {"d": 2}}}) == {"a": 1, "b.c.d": 2}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "True"), (1234567, "1,234,567"), (0.5, "0.500"), (1234.5, "1,234")],
)
def test_figures_are_shown_for_people(value: object, text: str) -> None:
    assert shown(value) == text
