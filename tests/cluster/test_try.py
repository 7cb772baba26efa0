"""`make cluster` starts three nodes, says how to try them, and leaves nothing behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import trio


async def test_it_runs_three_nodes_and_stops_all_of_them() -> None:
    ended = await trio.run_process(
        [sys.executable, "-m", "tests.cluster", "--seconds", "0.1"], capture_stdout=True
    )
    said = ended.stdout.decode()
    pids = [int(pid) for pid in re.findall(r"pid (\d+)", said)]
    assert len(pids) == 3
    assert not any(psutil.pid_exists(pid) for pid in pids)
    (folder,) = re.findall(r"removes (/\S+)\.", said)
    assert not Path(folder).exists()
    assert "node list" in said
    assert said.endswith("Stopped.\n")
