"""Failures of a cluster, one scenario after another.

    python -m tests.chaos.cluster [SCENARIO …] [--times N] [--seed N] [--minutes N] [--table FILE]
        [--other CHECKOUT]

With root, each runs in network namespaces of its own; else the cuts are made by gates on loopback.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from tests.chaos.cluster.run import COURSES, Played, play, rows
from tests.cluster import spaces
from tests.cluster.spaces import Spaces


def main() -> int:
    """Runs scenarios one after another; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cluster", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"some of {', '.join(COURSES)}")
    parser.add_argument("--times", type=int, help="how often the failure comes in each, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="begin no further scenario after so long")
    parser.add_argument("--table", type=Path, help="append the table to this file, too")
    parser.add_argument("--figures", type=Path, help="write what was measured to this file (JSON)")
    parser.add_argument(
        "--other", type=Path, help="a checkout of another version, with .venv, for `mixed`"
    )
    parser.add_argument("--gates", action="store_true", help="no network namespaces")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.scenario if name not in COURSES]
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(COURSES)}")
    cables = None if arguments.gates else _cables()
    began = time.monotonic()
    played: list[Played] = []
    names = arguments.scenario or [name for name in COURSES if name != "mixed" or arguments.other]
    if arguments.minutes and not arguments.scenario:
        # Not always the same ones in a short time, but first what is cut in the network.
        random.Random(arguments.seed).shuffle(names)
        names.sort(key=lambda name: name not in ("cuts", "unheard"))
    for name in names:
        if arguments.minutes and time.monotonic() - began > 60 * arguments.minutes:
            break
        times = min(arguments.times or COURSES[name].long, COURSES[name].long)
        print(f"{name}, {times} times, seed {arguments.seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
            Path(folder).chmod(0o711)  # PostgreSQL may run as another account
            seen = Path(tempfile.gettempdir()) / f"cluster-{name}-{arguments.seed}.log"
            one = partial(
                play,
                name,
                Path(folder),
                times=times,
                seed=arguments.seed,
                keep=seen,
                spaces=cables,
                other=arguments.other,
            )
            played.append(trio.run(one))
        print(f"took {played[-1].took_s:.0f} s")
        for what in played[-1].result.wrong:
            print(f"WRONG {what[-2000:]}", flush=True)
    table = "\n".join(rows(played))
    print(f"\n{table}\n")
    if arguments.table is not None:
        with arguments.table.open("a") as file:
            file.write(f"{table}\n")
    if arguments.figures is not None:
        told = {
            one.name: {
                "times": one.times,
                "back_s": one.result.back_s,
                "violations": len(one.result.wrong),
            }
            for one in played
        }
        arguments.figures.write_text(json.dumps(told))
    wrong = sum(len(one.result.wrong) for one in played)
    print(f"{wrong} wrong")
    return min(1, wrong)


def _cables() -> Spaces | None:
    """The machines of this process, which is in namespaces of its own, if it can be."""
    if not spaces.inside():
        why = spaces.unavailable()
        if why is not None:
            print(f"NO NETWORK NAMESPACES: {why}. Gates on loopback make the cuts.", flush=True)
            return None
    spaces.enter("tests.chaos.cluster", sys.argv[1:])
    return Spaces.make()


if __name__ == "__main__":
    sys.exit(main())
