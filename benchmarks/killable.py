"""A server that is killed and started again, and the session API's messages, for its clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from benchmarks.machine import pinned

START_S = 120.0
"""The longest time that a start takes on a machine that is busy with other programs."""


class Server:
    """`reileta serve` on a data folder, with a durable database of its own.

    `options` go to `serve`; `core` is the processor that it gets, if any. `up` is set while it
    takes connections, at `url`; `life` counts its starts.
    """

    def __init__(self, data: Path, options: Sequence[str] = (), core: int | None = None) -> None:
        self.data = data
        self.url = ""
        self.up = trio.Event()
        self.life = 0
        self._options = options
        self._core = core
        self._process: trio.Process | None = None

    async def start(self) -> None:
        """Starts it, and waits until it takes connections."""
        command = [sys.executable, "-m", "reileta", "serve", "--port", "0", "--data"]
        options = [str(self.data), "--log-format", "json", "--rate-limits", "off", *self._options]
        with pinned(self._core):
            self._process = await trio.lowlevel.open_process(
                [*command, *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in os.environ if name != "REILETA_DATA"},
            )
        try:
            output = await self._ready_log(self._process)
        except trio.TooSlowError:
            self._process.terminate()
            with trio.CancelScope(shield=True):
                await self._process.wait()
            raise
        events = map(json.loads, output.decode().splitlines())
        self.life += 1
        self.url = next(one["url"] for one in events if one["event"] == "server.ready")
        self.up.set()

    async def _ready_log(self, process: trio.Process) -> bytes:
        """What it logs until it is ready. Raises TooSlowError."""
        output = b""
        assert process.stdout is not None
        with trio.fail_after(START_S):
            while b'"server.ready"' not in output or not output.endswith(b"\n"):
                output += await process.stdout.receive_some(4096)
        return output

    async def read(self) -> None:
        """Reads the log, so that it never blocks the server."""
        while True:
            process = self._process
            if process is not None and process.stdout is not None:
                try:
                    if await process.stdout.receive_some(65536):
                        continue
                except (trio.ClosedResourceError, trio.BusyResourceError):
                    pass
            await trio.sleep(0.05)

    async def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self.up = trio.Event()
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Ends it in order."""
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f%z")


def event(patch: dict[str, object]) -> dict[str, Any]:
    """A client's event that changes the state."""
    payload = {"kind": "state", "patch": patch}
    rest = {"status": "ok", "reason": None, "payload": payload}
    return {"type": "event", "id": str(uuid.uuid4()), "sent_at": _now(), **rest}


def ack(id_: str) -> dict[str, str]:
    """The Ack of an event."""
    return {"type": "ack", "id": id_, "sent_at": _now()}
