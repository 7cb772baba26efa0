"""Bursts: a server is paused while they are sent, and its own time is what counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from benchmarks import bursts
from benchmarks.bursts import Row, busy_s, paused, table


@pytest.fixture
def busy() -> Iterator[int]:
    """The pid of a process that computes all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process.pid
    process.kill()
    process.wait()


def test_a_process_does_nothing_while_it_is_paused(busy: int) -> None:
    with paused(busy):
        while psutil.Process(busy).status() != psutil.STATUS_STOPPED:
            os.sched_yield()
        before_s = busy_s(busy)
        assert busy_s(busy) == before_s
    while busy_s(busy) == before_s:
        os.sched_yield()


def test_the_table_compares_round_by_round() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table([Row("new", [1.0, 2.0, 3.0]), Row("old", [2.0, 4.0, 6.0])]))
    assert "0.50 (0.50-0.50)" in capture.get()


def test_a_burst_has_at_least_one_message() -> None:
    app = typer.Typer()
    app.command()(bursts.main)
    assert CliRunner().invoke(app, ["--each", "0"]).exit_code == 2
