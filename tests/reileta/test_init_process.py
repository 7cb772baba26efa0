"""Process 1: orphans are reaped, signals passed on, and the status handed over."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from tests.conftest import PATIENCE_S

# A subreaper gets orphans as process 1 does, and needs no permission.
PROGRAM = """
import ctypes, os, signal, subprocess, sys, time
from reileta.init_process import run_as_child

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

def orphan():
    # The shell ends at once, and what it started belongs to the subreaper.
    subprocess.run(["sh", "-c", "sleep 0.01 &"], check=True)

def run():
    signal.signal(signal.SIGHUP, lambda *_: print("reload", flush=True))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    for _ in range(5):
        orphan()
    print(os.getpid(), flush=True)
    while True:
        signal.pause()

sys.exit(run_as_child(run))
"""


@dataclass
class Init:
    """The process that stands for process 1, and its program."""

    process: subprocess.Popen[str]
    program: psutil.Process

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def init() -> Iterator[Init]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        program = psutil.Process(int(process.stdout.readline()))
        yield Init(process, program)
        if process.poll() is None:
            program.kill()


def test_orphans_are_reaped(init: Init) -> None:
    parent = psutil.Process(init.process.pid)
    orphans = [child for child in parent.children() if child != init.program]
    _gone, alive = psutil.wait_procs(orphans, timeout=PATIENCE_S)
    assert not alive
    assert parent.children() == [init.program]


def test_signals_reach_the_program_and_its_status_is_handed_over(init: Init) -> None:
    init.process.send_signal(signal.SIGHUP)
    assert init.line() == "reload"
    init.process.send_signal(signal.SIGTERM)
    assert init.process.wait(PATIENCE_S) == 3


def test_a_program_that_was_killed_ends_it(init: Init) -> None:
    init.program.kill()
    assert init.process.wait(PATIENCE_S) == 128 + signal.SIGKILL
