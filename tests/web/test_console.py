"""The console in real Chromium: an admin sees what is live, moderates, and is shown a crash.

One server and one browser play all scenes of `console.mjs`, one after the other. `PICTURES=FOLDER`
keeps what the admin saw when a scene failed.
"""

from __future__ import annotations

import sys

import pytest

from tests.conftest import Databases
from tests.web.scenes import HERE, check, play

pytestmark = pytest.mark.slow


def test_all_scenes(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> None:
    played = play(
        "console.mjs",
        databases,
        tmp_path_factory,
        server=[sys.executable, str(HERE / "crashing_server.py")],
        options=["--rate-limits", "off"],
        commands=[[sys.executable, "-m", "reileta", "admin", "grant"]],
        node_options=["--experimental-websocket"],
    )
    check(played, "console.mjs")
