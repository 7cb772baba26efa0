"""Clients that are generated from a running server, as docs/clients.md shows, do their work."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.generators import NODE, node_modules, python_packages
from tests.conftest import PATIENCE_S
from tests.server_process import serving
from tests.test_house import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
SHOWN = "http://127.0.0.1:3032"
"""The server's address in the page."""
WAIT_S = 240
"""How long a command may take on a busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with a folder and a port of its own."""
    with serving(tmp_path_factory.mktemp("server") / "data") as (url, process):
        yield url
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 0


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def block(title: str, language: str) -> str:
    (code,) = re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)
    return str(code)


def command(title: str, program: str, server: str) -> list[str]:
    """The arguments of a command of the page, for a server of the test."""
    lines = [line.removeprefix("$ ") for line in block(title, "console").splitlines()]
    (line,) = (one for one in lines if re.match(rf"(npx )?{program} ", one))
    return shlex.split(line.removeprefix("npx ").replace(SHOWN, server))[1:]


def run(arguments: list[str], folder: Path, **environment: str) -> str:
    """What a command prints. It must succeed."""
    done = subprocess.run(
        arguments,
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


def expected(language: str) -> list[str]:
    """What both programs print."""
    return [
        f"logged in as ann_{language.lower()} offline",
        f"worlds: Meadow in {language}, Harbour in {language}",
        "instance: 32 seats, avr:invite_only",
        "file: 7 bytes",
        "refused: World not found",
        "logged out",
    ]


def test_a_python_client_does_a_round_trip(server: str, tmp_path: Path) -> None:
    packages = str(python_packages())
    (tmp_path / "generator.yml").write_text(block("Python", "yaml"))
    options = command("Python", "openapi-python-client", server)
    complaints = run(
        [sys.executable, "-m", "openapi_python_client", *options],
        tmp_path,
        PYTHONPATH=packages,
        PATH=f"{packages}/bin{os.pathsep}{os.environ['PATH']}",
    )
    assert "arning" not in complaints, complaints
    package = tmp_path / "reileta-client"
    models = {path.stem for path in (package / "reileta_client" / "models").glob("*.py")}
    document = httpx.get(f"{server}/openapi.json", timeout=PATIENCE_S).json()
    schemas = document["components"]["schemas"]
    named = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in schemas}
    mappings = {"figures_series"}  # they have no name of their own
    assert models - {"__init__"} - mappings <= named, "the generator had to make up names"
    assert {"user_me", "world_list_answer", "error_code", "role"} <= models
    program = tmp_path / "client.py"
    program.write_text(block("Python", "python"))
    strict = ("-m", "mypy", "--strict", "--no-incremental", "--config-file", os.devnull)
    run([sys.executable, *strict, str(program)], tmp_path, MYPYPATH=str(package))
    printed = run([sys.executable, str(program), server], tmp_path, PYTHONPATH=str(package))
    assert printed.splitlines() == expected("Python")


def test_a_typescript_client_does_a_round_trip(server: str, tmp_path: Path) -> None:
    modules = node_modules() / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "client.ts").write_text(block("TypeScript", "ts"))
    generator = str(modules / "openapi-typescript" / "bin" / "cli.js")
    compiler = str(modules / "typescript" / "bin" / "tsc")
    options = command("TypeScript", "openapi-typescript", server)
    run([str(NODE), generator, *options], tmp_path, NO_COLOR="1")
    run([str(NODE), compiler, *command("TypeScript", "tsc", server)], tmp_path)
    printed = run([str(NODE), *command("TypeScript", "node", server)], tmp_path)
    assert printed.splitlines() == expected("TypeScript")


def test_the_parser_of_asyncapi_has_no_complaints(server: str) -> None:
    document = httpx.get(f"{server}/asyncapi.json", timeout=PATIENCE_S).text
    done = subprocess.run(
        [str(NODE), str(Path(__file__).with_name("parse.mjs")), str(node_modules())],
        input=document,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["complaints"] == []
    assert found["messages"] == len(json.loads(document)["components"]["messages"])
