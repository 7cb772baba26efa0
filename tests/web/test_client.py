"""The client at `/` in real Chromium: people meet, talk, wait, are kicked, and come back.

One server and one browser play all scenes of `client.mjs`, one after the other. `PICTURES=FOLDER`
keeps what the first two people saw when a scene failed.
"""

from __future__ import annotations

import sys

import pytest

from tests.conftest import Databases
from tests.web.scenes import check, play

pytestmark = pytest.mark.slow


def test_all_scenes(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> None:
    played = play(
        "client.mjs",
        databases,
        tmp_path_factory,
        server=[sys.executable, "-m", "reileta"],
        options=["--seat-grace-s", "3", "--temporary-accounts", "2"],
    )
    check(played, "client.mjs")
