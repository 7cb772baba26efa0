"""`make`, as a new user sees it: no recipes, and one line if something is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make` reads."""
    for name in COPIED:
        shutil.copy(ROOT / name, tmp_path)
    package = tmp_path / "reileta"
    package.mkdir()
    shutil.copy(ROOT / "reileta" / "__init__.py", package)
    return tmp_path


def make(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: text for name, text in os.environ.items() if not name.startswith(("PIP_", "MAKE"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        env={**inherited, **environment},
    )


def program(path: Path, text: str) -> str:
    """A program in the place of another one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on standard error, before the one that make itself adds."""
    assert done.returncode != 0
    line, by_make = done.stderr.splitlines()
    assert by_make.startswith("make: ***")
    return line


@pytest.mark.slow
@pytest.mark.parametrize("target", ["serve", "test"])
def test_without_a_network_one_line_says_so(checkout: Path, target: str) -> None:
    done = make(
        checkout,
        *(target, f"PYTHON={sys.executable}"),
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:1/simple",
        PIP_RETRIES="1",
    )
    assert "is there a network?" in complaint(done)
    assert done.stdout.startswith("Setting up .venv/")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("python", ["/bin/false", "/nonexistent/python3", ""])
def test_without_a_new_python_one_line_says_so(checkout: Path, python: str) -> None:
    done = make(checkout, "serve", f"PYTHON={python}")
    assert complaint(done).startswith("Reileta needs Python 3.11 or newer")
    assert done.stdout == ""
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_named_in_one_line(checkout: Path) -> None:
    reason = "python3: No module named venv"
    python = program(
        checkout / "python3",
        f'[ "$1 $2" != "-m venv" ] || {{ echo "{reason}" >&2; exit 1; }}\n'
        f'exec "{sys.executable}" "$@"',
    )
    line = complaint(make(checkout, "install", f"PYTHON={python}"))
    assert reason in line
    assert "python3-venv" in line


def test_a_failure_of_pip_is_one_line(checkout: Path) -> None:
    programs = checkout / ".venv" / "bin"
    program(
        programs / "python",
        'case "$*" in *install*) echo "WARNING: a wheel is odd"\n'
        'echo "ERROR: the disk is full" >&2; exit 1;; esac',
    )
    line = complaint(make(checkout, "install", "PYTHON=python3"))
    assert line == "Reileta can't be set up: the disk is full (details in .venv/set-up.log)"
    assert "a wheel is odd" in (checkout / ".venv" / "set-up.log").read_text()


@pytest.mark.parametrize("target", ["serve", "install", "test", "check", "bench", "format", "help"])
def test_nothing_prints_a_recipe(checkout: Path, target: str) -> None:
    programs = checkout / ".venv" / "bin"
    for name in ("python", "reileta", "ruff", "mypy", "lint-imports"):
        program(programs / name, '[ "$1" = -c ] || echo ran')
    done = make(checkout, target, "PYTHON=python3")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for line in done.stdout.splitlines():
        expected = ("make ", "ran", "Setting up .venv/", ".venv/bin/reileta is ready: ran")
        assert line.startswith(expected)
