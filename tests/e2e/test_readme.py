"""The README's commands with curl, run as they are written, and what they print."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio

from tests.e2e.processes import serving
from tests.tools import need

pytestmark = pytest.mark.slow

README: Final = Path(__file__).parent.parent.parent / "README.md"
_BLOCK: Final = re.compile(r"^```console\n(.*?)^```", re.M | re.S)
_SHOWN: Final = re.compile(r'[{,]"(\w+)":')
"""The names of members in a JSON text of which parts are left out."""


def steps() -> list[tuple[str, str]]:
    """The commands of the blocks that use curl, with the output that follows each."""
    found: list[tuple[str, str]] = []
    for block in _BLOCK.findall(README.read_text()):
        if "$ curl " in block:
            for part in block.split("$ ")[1:]:
                command, _, output = part.partition("\n")
                while command.endswith("\\"):
                    line, _, output = output.partition("\n")
                    command = f"{command[:-1]}{line.strip()}"
                found.append((command, output.strip()))
    return found


async def test_each_command_prints_what_the_readme_says(database_url: str, tmp_path: Path) -> None:
    need("curl")
    variables: dict[str, str] = {}
    answer: dict[str, str] = {}
    ran = 0
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    async with serving(*where) as served:
        for command, output in steps():
            if assigned := re.fullmatch(r"([A-Z]+)=(\w+)_…", command):
                name, kind = assigned.groups()
                values = [text for text in answer.values() if text.startswith(f"{kind}_")]
                assert len(values) == 1, command
                variables[name] = values[0]
                continue
            if not command.startswith("curl "):
                continue
            done = await trio.run_process(
                ["bash", "-euc", command.replace("http://127.0.0.1:3032", served.url)],
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", **variables},
                capture_stdout=True,
                stderr=subprocess.STDOUT,
            )
            envelope = msgspec.json.decode(done.stdout, type=dict[str, object])
            assert "error" not in envelope, done.stdout
            data = envelope["data"]
            assert isinstance(data, dict)
            answer = {name: text for name, text in data.items() if isinstance(text, str)}
            printed = set(_SHOWN.findall(done.stdout.decode()))
            assert printed >= set(_SHOWN.findall(output)) != set(), command
            ran += 1
    assert ran >= 3
