"""Plays the scenes of a script in Chromium, against a server that the script starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from clients.web import build_pages
from tests.conftest import Databases
from tests.test_house import ROOT
from tests.tools import missing, need

HERE = Path(__file__).parent
WAIT_S = 600
"""How long all scenes may take on a busy machine. Each step of a scene has a bound of its own."""


def names(script: str) -> list[str]:
    """The scenes of a script, in order, and those that follow in every script."""
    text = "".join((HERE / name).read_text("utf-8") for name in (script, "scenes.mjs"))
    return re.findall(r'^ +async "([^"]+)"\(\)', text, re.MULTILINE)


def play(
    script: str,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    server: Sequence[str],
    options: Sequence[str],
    commands: Sequence[Sequence[str]] = (),
    node_options: Sequence[str] = (),
) -> dict[str, str | None]:
    """What went wrong in each scene that was played; None: nothing.

    Args:
        server: the command of the server.
        options: its options, besides the database.
        commands: further arguments of the script: commands about the same database.
        node_options: options of Node.
    """
    chromium = need("chromium")
    try:
        build_pages.build(checks=True)
        node = build_pages.node()
    except build_pages.BuildError as error:
        missing(f"a build of the pages ({error})")
        raise AssertionError("missing() returned") from error
    name, url = databases.create()
    database = ["--database", url]
    done = subprocess.run(
        [
            str(node),
            *node_options,
            *(str(HERE / script), str(chromium)),
            json.dumps([*database, *options]),
            *(json.dumps([*command, *database]) for command in commands),
        ],
        env={
            "PYTHONPATH": str(ROOT),
            **{key: text for key, text in os.environ.items() if not key.startswith("REILETA_")},
            "REILETA_COMMAND": json.dumps(server),
            "REILETA_ERRORS": json.dumps(build_pages.error_codes()),
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


def check(played: dict[str, str | None], script: str) -> None:
    """One test for all scenes, so that one worker plays them once."""
    wrong = {scene: error for scene, error in played.items() if error is not None}
    assert not wrong, wrong
    assert list(played) == names(script)
