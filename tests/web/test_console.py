"""The console in real Chromium: an admin sees what is live, moderates, and is shown a crash.

One server and one browser play all scenes of `console.mjs`, one after the other. `PICTURES=FOLDER`
keeps what the admin saw when a scene failed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clients.web import build_pages
from tests.conftest import Databases
from tests.test_house import ROOT
from tests.tools import missing, need

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SCENES = re.findall(
    r'^  async "([^"]+)"\(\)', (HERE / "console.mjs").read_text("utf-8"), re.MULTILINE
)
WAIT_S = 600
"""How long all scenes may take on a busy machine. Each step of a scene has a bound of its own."""


@pytest.fixture(scope="module")
def played(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What went wrong in each scene that was played."""
    chromium = need("chromium")
    try:
        build_pages.build(checks=True)
        node = build_pages.node()
    except build_pages.BuildError as error:
        missing(f"a build of the pages ({error})")
        raise AssertionError("missing() returned") from error
    name, url = databases.create()
    options = ["--database", url, "--rate-limits", "off"]
    grant = [sys.executable, "-m", "reileta", "admin", "grant", "--database", url]
    done = subprocess.run(
        [
            node,
            "--experimental-websocket",
            HERE / "console.mjs",
            chromium,
            json.dumps(options),
            json.dumps(grant),
        ],
        env={
            "PYTHONPATH": str(ROOT),
            **{key: text for key, text in os.environ.items() if not key.startswith("REILETA_")},
            "REILETA_COMMAND": json.dumps([sys.executable, str(HERE / "crashing_server.py")]),
            "TMPDIR": str(tmp_path_factory.mktemp("browser")),
        },
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    databases.drop(name)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told, done.stderr
    return {one["scene"]: one["error"] for one in told}


def test_all_scenes(played: dict[str, str | None]) -> None:
    """One test, so that one worker plays them once."""
    wrong = {scene: error for scene, error in played.items() if error is not None}
    assert wrong == {}
    assert list(played) == SCENES
