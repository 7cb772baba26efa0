"""Servers as their operators run them: `reileta serve` in a process of its own, and its logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio

from reileta.observability import log_events
from tests.conftest import PATIENCE_S
from tests.forked import ForkedProcess, run, start

Json = dict[str, Any]

START_S = 10 * PATIENCE_S
"""How long a start may take: it needs seconds of CPU, which can take minutes while other tests have
the processors. `ServerProcess.until_ready` notices one that hangs sooner."""


@dataclass(frozen=True)
class Bot:
    """An account, as far as it is known here."""

    token: str


class ServerProcess:
    """A running server. `log` has what it said on standard output so far, a line each."""

    def __init__(self, process: trio.Process | ForkedProcess) -> None:
        self.process = process
        self.log: list[str] = []
        self.errors = ""
        self.url = ""
        self._said = trio.Event()

    @property
    def host(self) -> str:
        return self.url.rpartition("//")[2].rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def events(self, name: str) -> list[Json]:
        """The log's events of that name."""
        return [event for event in map(json.loads, self.log) if event["event"] == name]

    async def until_ready(self) -> Json:
        """Waits until it serves. Its start needs seconds of CPU, which can take minutes while other
        tests have the processors. So only time in which it does nothing counts."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_if_it_hangs, scope)
                while not (found := self.events(log_events.SERVER_READY)):
                    assert self.process.poll() is None, "\n".join([*self.log, self.errors])
                    await self._said.wait()
                nursery.cancel_scope.cancel()
            return found[-1]
        raise AssertionError("\n".join(["it hangs at its start", *self.log, self.errors]))

    async def _cancel_if_it_hangs(self, scope: trio.CancelScope) -> None:
        before, last = -1.0, trio.current_time()
        while trio.current_time() - last < PATIENCE_S:
            used = _cpu_s(self.process.pid)
            if used is None or used != before:
                before, last = used or 0.0, trio.current_time()
            await trio.sleep(1)
        scope.cancel()

    async def until_logged(self, name: str, many: int = 1) -> Json:
        """Waits for the log's event of that name, or for so many of them; the last."""
        with trio.fail_after(PATIENCE_S):
            while len(found := self.events(name)) < many:
                assert self.process.poll() is None, "\n".join([*self.log, self.errors])
                await self._said.wait()
        return found[-1]

    async def read_log(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            self.log += [line.decode() for line in lines]
            self._said.set()
            self._said = trio.Event()
        self._said.set()

    async def read_errors(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.errors += chunk.decode()

    def ask(self) -> httpx.AsyncClient:
        """A client of its HTTP API."""
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S, verify=False)

    async def ended(self, within_s: float = PATIENCE_S) -> int:
        """Waits for its end; the exit status."""
        with trio.fail_after(within_s):
            return await self.process.wait()


def _cpu_s(pid: int) -> float | None:
    """CPU seconds of a process and its children; None if it has ended."""
    try:
        root = psutil.Process(pid)
        times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return None
    return sum(one.user + one.system for one in times)


def _environment() -> dict[str, str]:
    return {key: text for key, text in os.environ.items() if "REILETA" not in key}


@asynccontextmanager
async def serving(
    *options: str, fresh: bool = False, world: Mapping[str, Any] | None = None
) -> AsyncIterator[ServerProcess]:
    """`reileta serve` on a port of the system's choice, which is killed after the test.

    `fresh`: as its operator starts it, not in a fork (tests/forked.py). `world`: see there.
    """
    command = ["serve", "--port", "0", "--log-format", "json", *options]
    process: trio.Process | ForkedProcess
    if fresh:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "reileta", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
    else:
        process = await start(*command, env=_environment(), world=world)
    served = ServerProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.read_log)
            nursery.start_soon(served.read_errors)
            ready = await served.until_ready()
            served.url = ready["url"]
            yield served
            if process.poll() is None:
                process.terminate()
                assert await served.ended() == 0
            nursery.cancel_scope.cancel()
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            await trio.aclose_forcefully(stream)


async def bots(count: int, folder: Path, *options: str) -> list[Bot]:
    """Accounts of a server that runs or not; `options` say where its database is."""
    tokens = folder / "tokens"
    made = ["bots", "create", "--count", str(count), "--tokens", str(tokens)]
    done = await run(*made, *options, env=_environment())
    assert done.returncode == 0, done.stderr
    return [Bot(line) for line in tokens.read_text().splitlines()]


async def new_instance(served: ServerProcess, owner: Bot) -> str:
    """A public instance, made over HTTP; its id."""
    headers = {"Authorization": f"Bearer {owner.token}"}
    async with served.ask() as client:
        made = await client.put("/api/worlds", json={"title": "Harbour"}, headers=headers)
        world = made.json()["data"]["id"]
        wanted = {"world": world, "capacity": 1024, "tags": ["avr:public"]}
        made = await client.put("/api/instances", json=wanted, headers=headers)
        assert made.status_code == 200, made.text
        id_: str = made.json()["data"]["id"]
        return id_


async def eventually(ask: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Asks over and over until the answer is true, and returns it."""
    with trio.fail_after(within_s):
        while not (answer := await ask()):
            await trio.sleep(0.02)
        return answer
