"""Runs the long fault runs for a number of minutes: see README.md in this folder."""

from __future__ import annotations

import argparse
import itertools
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

MACHINES: Final = (
    "tests/simulation",
    "tests/reileta/test_instance_machine.py",
    "tests/reileta/test_resource_machine.py",
    "tests/reileta/test_session_machine.py",
)
VANISHING: Final = (
    "tests/e2e/test_vanishing.py",
    "tests/e2e/test_slow.py",
    "tests/api/test_hostile.py",
)
KILL_EVERY_S: Final = 4.0
LONG_FORMS_S: Final = 2 * 3600.0


def main() -> int:
    """Gives each kind of run a fifth of the time; stops at the first failure, with status 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument(
        "--only", choices=("contest", "soak", "simulation", "clients", "cluster"), help="one kind"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed of soak and simulation")
    arguments = parser.parse_args()
    seed, share_s = arguments.seed, arguments.minutes * 60 / (1 if arguments.only else 5)
    kinds = {
        "contest": _contest(share_s),
        "soak": _soak(share_s, seed),
        "simulation": _simulations(share_s, seed),
        "clients": _vanishing_clients(share_s),
        "cluster": _clusters(share_s, seed),
    }
    chosen = [arguments.only] if arguments.only else kinds
    environment = {**os.environ, "REILETA_TEST_FORMS": "long"}
    runs = itertools.chain.from_iterable(kinds[name] for name in chosen)
    for command in runs:
        print(f"$ {shlex.join(command)}", flush=True)
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            print(f"Failed; to run it again:\n  {shlex.join(command)}")
            return 1
    print("All runs passed.")
    return 0


def _contest(share_s: float) -> Iterator[list[str]]:
    kills = max(1, round(share_s / KILL_EVERY_S))
    seconds = ["--seconds", f"{share_s:.0f}", "--kills", str(kills)]
    yield [sys.executable, "-m", "tests.chaos.contest", *seconds]


def _soak(share_s: float, seed: int) -> Iterator[list[str]]:
    """Starting, and waiting until the server has forgotten its visitors, take a minute of it."""
    minutes = max(0.5, share_s / 60 - 1)
    options = ["--minutes", f"{minutes:.1f}", "--seed", str(seed)]
    yield [sys.executable, "-m", "tests.chaos.soak", *options]


def _simulations(share_s: float, first: int) -> Iterator[list[str]]:
    end = time.monotonic() + share_s
    for seed in itertools.count(first):
        explore = ["--hypothesis-profile=explore", f"--hypothesis-seed={seed}"]
        yield [sys.executable, "-m", "pytest", *MACHINES, *explore]
        if time.monotonic() >= end:
            return


def _vanishing_clients(share_s: float) -> Iterator[list[str]]:
    end = time.monotonic() + share_s
    while True:
        yield [sys.executable, "-m", "pytest", *VANISHING]
        if time.monotonic() >= end:
            return


def _clusters(share_s: float, first: int) -> Iterator[list[str]]:
    """All scenarios of a cluster, with one seed after another, as many as there is time for: with
    each failure three times; if there is time for it (about two hours), in their long forms."""
    end = time.monotonic() + share_s
    times = [] if share_s >= LONG_FORMS_S else ["--times", "3"]
    for seed in itertools.count(first):
        left = max(0.5, (end - time.monotonic()) / 60)
        options = ["--seed", str(seed), *times, "--minutes", f"{left:.1f}"]
        yield [sys.executable, "-m", "tests.chaos.cluster", *options]
        if time.monotonic() >= end:
            return


if __name__ == "__main__":
    sys.exit(main())
