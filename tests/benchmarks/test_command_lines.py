"""Wrong use of each command line: one clear line, and a status that is not 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import http, idle, inbound, joins, rooms, run, slow, sustained, watchers
from benchmarks.errors import BenchmarkError


def invoke(main: Callable[..., None], *arguments: str) -> tuple[int, str]:
    app = typer.Typer(add_completion=False)
    app.command()(main)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


ALL = [
    http.main,
    idle.main,
    inbound.main,
    joins.main,
    rooms.main,
    slow.main,
    sustained.main,
    watchers.main,
]


@pytest.mark.parametrize("main", ALL, ids=lambda main: main.__module__)
def test_a_url_that_is_none(main: Callable[..., None], tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("ua_1\n")
    status, said = invoke(main, "--url", "nowhere", "--tokens", str(tokens))
    assert status == 1
    assert "error: 'nowhere' must be a WebSocket URL" in said


@pytest.mark.parametrize("main", ALL, ids=lambda main: main.__module__)
def test_a_url_is_needed(main: Callable[..., None]) -> None:
    status, said = invoke(main)
    assert status == 2
    assert "--url" in said


def test_tokens_that_are_not_there(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    status, said = invoke(rooms.main, "--url", "ws://127.0.0.1:1", "--tokens", absent)
    assert status == 1
    assert "error: cannot read the tokens" in said


def test_a_payload_too_small() -> None:
    options = ("--url", "ws://127.0.0.1:1", "--protocol", "plain", "--payload-bytes", "5")
    status, said = invoke(rooms.main, *options)
    assert status == 1
    assert "error: a payload needs at least" in said


@pytest.mark.parametrize("main", [sustained.main, inbound.main])
@pytest.mark.parametrize(("first", "limit"), [(0, 5), (6, 5), (-1, -1)])
def test_a_search_without_room(main: Callable[..., None], first: int, limit: int) -> None:
    options = ("--url", "ws://127.0.0.1:1", "--protocol", "plain", "--players", "2")
    status, said = invoke(main, *options, "--first", str(first), "--limit", str(limit))
    assert status == 1
    assert "error: the first rate must be above 0, and at most the limit" in said


def test_an_unknown_question() -> None:
    status, said = invoke(run.main, "--only", "rooms,weather")
    assert status == 1
    assert "unknown benchmark: weather (there are rooms, " in said


def test_questions_are_asked_in_their_order() -> None:
    assert run.chosen("slow, rooms") == ["rooms", "slow"]
    assert run.chosen(None)[0] == "rooms"
    with pytest.raises(BenchmarkError, match="nothing"):
        run.chosen(" , ")
