"""`python -m tests.chaos.cluster [SCENARIO …] [--times N] [--seed N] [--minutes N]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from tests.chaos.cluster.run import COURSES, play


def main() -> int:
    """Runs scenarios one after another; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cluster", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"some of {', '.join(COURSES)}")
    parser.add_argument("--times", type=int, help="how often the failure comes in each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="begin no further scenario after so long")
    arguments = parser.parse_args()
    began = time.monotonic()
    wrong = 0
    for name in arguments.scenario or COURSES:
        if arguments.minutes and time.monotonic() - began > 60 * arguments.minutes:
            break
        times = arguments.times or COURSES[name].long
        print(f"{name}, {times} times, seed {arguments.seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
            Path(folder).chmod(0o711)  # PostgreSQL may run as another account
            seen = Path(tempfile.gettempdir()) / f"cluster-{name}-{arguments.seed}.log"
            one = partial(play, name, Path(folder), times=times, seed=arguments.seed, keep=seen)
            result = trio.run(one)
        for what in result.wrong:
            print(f"WRONG {what[:2000]}", flush=True)
        wrong += len(result.wrong)
    print(f"{wrong} wrong")
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
