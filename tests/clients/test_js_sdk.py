"""The JavaScript SDK in clients/js: it is built as its README says, and its own tests pass."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.generators import NODE, node_modules
from tests.server_process import serving
from tests.test_house import ROOT

pytestmark = pytest.mark.slow

SDK = ROOT / "clients" / "js"
PAGES = ROOT / "clients" / "web"
SHOWN = "http://127.0.0.1:3032"
"""The server's address in the README."""
WAIT_S = 400
"""How long a command may take on a busy machine."""


def run(folder: Path, *arguments: str | Path, **environment: str) -> str:
    """What Node prints. It must succeed."""
    done = subprocess.run(
        [NODE, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server") / "data") as (url, _):
        yield url


@pytest.fixture(scope="module")
def built(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the SDK that was built from the server's description."""
    folder = tmp_path_factory.mktemp("sdk")
    for name in ("src", "scripts", "tests"):
        shutil.copytree(SDK / name, folder / name, ignore=shutil.ignore_patterns("generated"))
    for name in ("package.json", "package-lock.json", "tsconfig.json", "README.md"):
        shutil.copy(SDK / name, folder)
    modules = node_modules(SDK) / "node_modules"
    (folder / "node_modules").symlink_to(modules)
    run(folder, "scripts/types.mjs", server)
    run(folder, modules / "typescript" / "bin" / "tsc", "--project", "tsconfig.json")
    return folder


def test_the_lines_of_the_readme_work_as_printed(server: str, built: Path, tmp_path: Path) -> None:
    (code,) = re.findall(r"```js\n(.*?)```", (SDK / "README.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "reileta-client").symlink_to(built)
    (tmp_path / "lines.mjs").write_text(code.replace(SHOWN, server))
    assert run(tmp_path, "--preserve-symlinks", "lines.mjs") == "players: ann_example\n"


def test_its_own_tests_pass_against_real_servers(built: Path, tmp_path: Path) -> None:
    command = json.dumps([sys.executable, "-m", "reileta"])
    files = sorted(str(one) for one in (built / "tests").glob("*.test.mjs"))
    printed = run(
        built,
        "--test",
        "--test-reporter=tap",
        "--test-timeout=120000",
        *files,
        REILETA_COMMAND=command,
        TMPDIR=str(tmp_path),
    )
    assert re.search(r"^# fail 0$", printed, re.MULTILINE), printed
    assert re.search(r"^# skipped 0$", printed, re.MULTILINE), printed


def test_it_has_no_dependencies_and_its_types_are_whole(built: Path, tmp_path: Path) -> None:
    package = json.loads((built / "package.json").read_text("utf-8"))
    assert "dependencies" not in package
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "reileta-client").symlink_to(built)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(
        'import { Client, ErrorCode, Refused } from "reileta-client";\n'
        'const client = new Client("http://127.0.0.1:1");\n'
        "export async function use(): Promise<number> {\n"
        '  const page = await client.http.get("/api/instances", { query: { free: true } });\n'
        "  const [first] = page.items;\n"
        "  if (first === undefined) return ErrorCode.InstanceNotFound;\n"
        "  const room = await client.join(first.id);\n"
        '  client.connection.on("instance-joined", ({ data }) => data.displayname.trim());\n'
        "  // @ts-expect-error: there is no such path\n"
        '  await client.http.get("/api/nothing", {});\n'
        "  // @ts-expect-error: there is no such event\n"
        '  client.connection.on("instance-jumped", () => {});\n'
        "  // @ts-expect-error: a world's title is text\n"
        '  await client.http.put("/api/worlds", { body: { title: 1 } });\n'
        '  return room.once("ended").then(({ error }) => (error instanceof Refused ? 1 : 0));\n'
        "}\n"
    )
    compiler = node_modules(SDK) / "node_modules" / "typescript" / "bin" / "tsc"
    options = ("--strict", "--noEmit", "--target", "es2022", "--module", "nodenext")
    run(tmp_path, compiler, *options, "--lib", "es2022,dom,dom.iterable", "use.ts")


def test_the_pages_fit_its_types(built: Path, tmp_path: Path) -> None:
    """The client and the console, as their own check does it."""
    modules = node_modules(PAGES) / "node_modules"
    (tmp_path / "js").symlink_to(built)
    web = tmp_path / "web"
    shutil.copytree(PAGES / "src", web / "src")
    shutil.copy(PAGES / "tsconfig.json", web)
    (web / "node_modules").symlink_to(modules)
    run(web, modules / "typescript" / "bin" / "tsc", "--project", "tsconfig.json")
