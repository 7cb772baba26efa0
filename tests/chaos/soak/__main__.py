"""A server under visitors and faults, for minutes or hours: see README.md in the folder above.

python -m tests.chaos.soak [--minutes 30] [--scale 1] [--seed 1] [--log FILE]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.chaos.soak.run import run


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--scale", type=float, default=1, help="visitors; 1 is about 50")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="a file for the server's log")
    return run(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
