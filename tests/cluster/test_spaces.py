"""Network namespaces of a run's own: cuts are silent, one way if wanted, and leave nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cluster import spaces
from tests.tools import missing


def test_cables_are_cut_both_ways_and_each_single_way() -> None:
    why = spaces.unavailable()
    if why is not None:
        missing(f"network namespaces ({why})")
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.spaces"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    there = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "to-a" not in there


def test_only_root_may_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert spaces.unavailable() == "only root may make them"
