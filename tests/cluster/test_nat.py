"""A hosted instance on a node behind a NAT, in network namespaces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster import spaces
from tests.tools import missing


def test_players_meet_on_a_node_that_nothing_can_reach(database_url: str, tmp_path: Path) -> None:
    why = spaces.unavailable()
    if why is not None:
        missing(f"network namespaces ({why})")
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.nat", database_url, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
