"""`python -m reileta`: the same as the command `reileta`."""

from __future__ import annotations

import sys

from reileta.cli import main

if __name__ == "__main__":
    sys.exit(main())
