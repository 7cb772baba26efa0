"""A NATS server of a test's own, which can be killed, paused and restarted."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import trio

from tests.conftest import PATIENCE_S
from tests.ports import free_port
from tests.tools import missing

MAX_PAYLOAD_BYTES = 64 * 1024


def nats_server_program() -> str:
    """Where the program is: beside this Python, as its wheel installs it, or on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        missing("nats-server")
        raise AssertionError("missing() returned")
    return found


class NatsServer:
    """One server with JetStream, on the same port each time. `options` are further lines of its
    configuration; `under` is a command that runs another one, which is on the machine `host`."""

    def __init__(
        self,
        folder: Path,
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        options: str = "",
        host: str = "127.0.0.1",
        under: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._max_payload_bytes = max_payload_bytes
        self._options = options
        self._under = under
        self._port = -1 if under else free_port(host)
        self._monitored = 0
        self.host = host
        self._process: trio.Process | None = None
        self.log = ""

    def join(self, name: str, port: int, routes: Sequence[str]) -> None:
        """Makes it part of a cluster, before it is started. Clients learn no other addresses.
        `routes`: host and port of each server."""
        others = ", ".join(f'"nats://{other}"' for other in routes)
        self._options += (
            f"server_name: {name}\n"
            f"cluster {{ name: test, listen: {self.host}:{port}, no_advertise: true, "
            f"routes: [{others}] }}\n"
        )

    @property
    def port(self) -> int:
        """Where clients connect. A server that runs elsewhere has it only once it was started."""
        assert self._port > 0
        return self._port

    @property
    def url(self) -> str:
        return f"nats://{self.host}:{self._port}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Starts it; returns once it takes connections."""
        self._folder.mkdir(exist_ok=True)
        config = self._folder / "nats.conf"
        self._monitored = self._monitored or free_port()
        config.write_text(
            f"listen: {self.host}:{self._port}\n"
            f"http: {self.host}:{self._monitored}\n"
            f"max_payload: {self._max_payload_bytes}\n"
            f'jetstream {{ store_dir: "{self._folder / "store"}", max_file_store: 64MB }}\n'
            f"{self._options}"
        )
        self._process = await trio.lowlevel.open_process(
            [*self._under, nats_server_program(), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        self.log = ""
        with trio.fail_after(PATIENCE_S):
            async for chunk in self._process.stderr:
                self.log += chunk.decode()
                if "Server is ready" in self.log:
                    break
        said = rf"Listening for client connections on {re.escape(self.host)}:(\d+)"
        port = re.search(said, self.log)
        assert port is not None, self.log
        self._port = int(port[1])

    async def kill(self) -> None:
        """Ends it without notice, if it runs."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Removes the data of the server, which must not run."""
        assert self._process is None
        shutil.rmtree(self._folder / "store")

    async def pause(self) -> None:
        """Stops it; returns once it does nothing more."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        status = psutil.Process(self._process.pid).status
        with trio.fail_after(PATIENCE_S):
            while status() != psutil.STATUS_STOPPED:
                await trio.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def subscriptions(self) -> int:
        """How many it has, of all clients."""
        async with httpx.AsyncClient(
            base_url=f"http://{self.host}:{self._monitored}", timeout=PATIENCE_S
        ) as client:
            many: int = (await client.get("/subsz")).json()["num_subscriptions"]
            return many

    async def ask(self, subject: str, request: object = None) -> Any:
        """The answer to a request of JetStream's API. Raises OSError, or trio's errors of broken
        connections."""
        body = b"" if request is None else json.dumps(request).encode()
        where = f"{subject} here {len(body)}".encode()
        said = b""
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            await stream.send_all(
                b'CONNECT {"verbose":false}\r\nSUB here 1\r\nPUB %b\r\n%b\r\n' % (where, body)
            )
            while (found := re.search(rb"MSG here 1 (\d+)\r\n", said)) is None or len(
                said
            ) < found.end() + int(found[1]):
                if not (more := await stream.receive_some()):
                    raise trio.BrokenResourceError
                said += more
        return json.loads(said[found.end() : found.end() + int(found[1])])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@asynccontextmanager
async def nats_server(
    folder: Path, *, max_payload_bytes: int = MAX_PAYLOAD_BYTES, host: str = "127.0.0.1"
) -> AsyncIterator[NatsServer]:
    """A running server, whose files are in the folder."""
    server = NatsServer(folder, max_payload_bytes=max_payload_bytes, host=host)
    await server.start()
    try:
        yield server
    finally:
        with trio.CancelScope(shield=True):
            await server.kill()
