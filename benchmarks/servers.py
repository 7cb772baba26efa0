"""Starting and stopping of the measured servers: Reileta and its peers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.machine import pinned

PEERS: Final = Path(__file__).parent / "peers"
_START_S: Final = 60.0
_STOP_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A server that can be measured. `protocol` is its dialect."""

    name: str
    title: str
    protocol: str


REILETA: Final = Kind("reileta", "Reileta", "reileta")
WS: Final = Kind("ws", "Node ws", "plain")
SOCKETIO: Final = Kind("socketio", "Socket.IO", "socketio")
BUN: Final = Kind("bun", "Bun", "plain")
KINDS: Final = (REILETA, WS, SOCKETIO, BUN)
FASTAPI: Final = Kind("fastapi", "FastAPI", "http")
EXPRESS: Final = Kind("express", "Express", "http")
HTTP_KINDS: Final = (REILETA, FASTAPI, EXPRESS)
"""The servers that answer `/api/time`. FastAPI runs on uvicorn with uvloop and httptools."""
_PACKAGES: Final = {WS: "ws", SOCKETIO: "socket.io", EXPRESS: "express"}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    url: str
    pid: int


class Servers:
    """Starts servers, each on its core, with its output in a file of the work folder.

    `binaries` is where Reileta is installed; by default, beside this Python. `options` are further
    ones of `reileta serve`.
    """

    def __init__(
        self,
        folder: Path,
        core: int | None,
        binaries: Path | None = None,
        *,
        options: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._core = core
        self._reileta = (binaries or Path(sys.executable).parent) / "reileta"
        self.tokens = folder / "tokens"
        self._options = options

    def missing(self, kind: Kind) -> str | None:
        """The reason why a server can't be measured here; None if it can."""
        if kind is REILETA:
            return None if self._reileta.exists() else f"{self._reileta} is not installed"
        if kind is BUN:
            return None if _bun() else "Bun is not installed (npm ci in benchmarks/peers)"
        if kind is FASTAPI:
            wanted = [
                name for name in ("fastapi", "uvicorn", "uvloop", "httptools") if not _has(name)
            ]
            return f"not installed: {', '.join(wanted)}" if wanted else None
        if shutil.which("node") is None:
            return "Node is not installed"
        package = _PACKAGES[kind]
        if not (PEERS / "node_modules" / package).is_dir():
            return f"{package} is not installed (npm ci in benchmarks/peers)"
        return None

    def make_bots(self, count: int) -> None:
        """Creates bot accounts in Reileta's data folder, and writes their tokens to `tokens`."""
        command = ["bots", "create", "--count", str(count), "--tokens", str(self.tokens)]
        with self.run(REILETA):  # which makes the database
            self._call([str(self._reileta), *command, "--data", str(self._data)])

    @contextmanager
    def run(self, kind: Kind) -> Iterator[Running]:
        """Starts the server, waits until it accepts connections, and stops it at the end.

        Raises BenchmarkError with the end of its output if it does not start.
        """
        output = self._folder / f"{kind.name}.log"
        with output.open("wb") as sink, pinned(self._core):
            process = subprocess.Popen(
                self._command(kind),
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._folder,
                env={**os.environ, "NODE_ENV": "production"},
                start_new_session=True,
            )
        try:
            yield Running(_await_ready(kind, process, output), process.pid)
        finally:
            _stop(process)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _command(self, kind: Kind) -> Sequence[str]:
        if kind is REILETA:
            options = ["--port", "0", "--data", str(self._data), "--rate-limits", "off"]
            return [str(self._reileta), "serve", *options, "--log-format", "json", *self._options]
        if kind is BUN:
            return [str(_bun()), str(PEERS / "bun.js")]
        if kind is FASTAPI:
            return [sys.executable, str(PEERS / "fastapi_app.py")]
        return ["node", str(PEERS / f"{kind.name}.js")]

    def _call(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip()[-2000:]
            raise BenchmarkError(f"{' '.join(command)} failed:\n{output}")


def install_peers() -> str | None:
    """Installs the peers' packages once. Returns why that failed, or None."""
    if (PEERS / "node_modules").is_dir():
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    command = [npm, "ci", "--no-audit", "--no-fund", "--prefix", str(PEERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"npm ci failed: {done.stderr.strip()[-500:]}"


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _bun() -> Path | None:
    """Bun's binary: where its postinstall puts it, or in the package of this platform."""
    modules = PEERS / "node_modules"
    found = [*modules.glob("@oven/bun-linux-*/bin/bun"), *modules.glob("bun/bin/bun.exe")]
    return next((path for path in found if path.stat().st_size > 1 << 20), None)


def ready_url(line: str) -> str | None:
    """The URL in a server's line that it accepts connections; None for other lines."""
    words = line.split()
    if len(words) == 2 and words[0] == "ready":
        return f"ws://127.0.0.1:{words[1]}"
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or event.get("event") != "server.ready":
        return None
    return str(event["url"]).replace("http", "ws", 1)


def _await_ready(kind: Kind, process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        text = output.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            url = ready_url(line)
            if url is not None:
                return url
        if ended:
            raise BenchmarkError(f"{kind.title} ended at once:\n{text[-2000:]}")
        time.sleep(0.05)
    raise BenchmarkError(f"{kind.title} was not ready within {_START_S:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
