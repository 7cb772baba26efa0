"""Several servers that trust each other, each in a process of its own, on loopback addresses.

    async with two_servers(databases, tmp_path) as (a, b):
        admin = await b.admin()
        async with b.ask(admin) as client:
            ...

Each server has a database of its own in the PostgreSQL of the test run, and a port that the system
has chosen. They reach each other without TLS, at 127.0.0.2, 127.0.0.3 and so on.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.conftest import PATIENCE_S, Databases
from tests.e2e.processes import ServerProcess, serving
from tests.forked import run
from tests.ports import free_port

Json = dict[str, Any]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Account:
    """An account of one of the servers."""

    id: str
    username: str
    token: str
    server: str

    @property
    def at(self) -> str:
        """Its `UserIDAt`."""
        return f"{self.id}@{self.server}"


@dataclass
class FederatedServer:
    """A server that others can reach. `stop` and `start` take it away and bring it back."""

    host: str
    port: int
    data: Path
    database: str
    options: tuple[str, ...]
    nursery: trio.Nursery
    process: ServerProcess | None = None
    _stopping: trio.Event = field(default_factory=trio.Event)
    _stopped: trio.Event = field(default_factory=trio.Event)

    @property
    def address(self) -> str:
        """Its canonical address."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def running(self) -> ServerProcess:
        assert self.process is not None, "the server does not run"
        return self.process

    async def start(self, *more: str) -> None:
        """Starts the process, with further options."""
        self._stopping, self._stopped = trio.Event(), trio.Event()
        self.process = await self.nursery.start(self._run, *more)

    async def _run(self, *more: str, task_status: trio.TaskStatus[ServerProcess]) -> None:
        """A task of its own for each process, so that they can end in any order."""
        options = (
            *("--host", self.host, "--port", str(self.port), "--address", self.address),
            *("--data", str(self.data), "--database", self.database),
            *("--shutdown-s", "2", "--log-level", "debug"),
            *self.options,
            *more,
        )
        try:
            async with serving(*options) as process:
                task_status.started(process)
                await self._stopping.wait()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stops the process; what it stored stays."""
        if self.process is not None:
            self.process = None
            self._stopping.set()
            await self._stopped.wait()

    def ask(self, account: Account | str | None = None) -> httpx.AsyncClient:
        """A client of its HTTP API, with the token of an account, or that token."""
        headers = {}
        if account is not None:
            token = account if isinstance(account, str) else account.token
            headers["Authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=PATIENCE_S, verify=False
        )

    async def get(self, path: str, account: Account | str | None = None, **more: Any) -> Any:
        """`data` of a successful read."""
        async with self.ask(account) as client:
            answer = await client.get(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def account(self, username: str | None = None) -> Account:
        """A new account that is logged in."""
        name = username or f"user{next(_numbers)}"
        async with self.ask() as client:
            made = await client.post(
                "/api/auth/register", json={"username": name, "password": "correct horse"}
            )
        assert made.status_code == 200, made.text
        login = made.json()["data"]
        return Account(login["user"]["id"], name, login["token"], self.address)

    async def admin(self) -> Account:
        """A new account that is an admin."""
        account = await self.account()
        await self.command("admin", "grant", account.username)
        async with self.ask(account) as client:
            with trio.fail_after(PATIENCE_S):
                while (await client.get("/api/audit")).status_code != 200:
                    await trio.sleep(0.05)  # the server notices within a second
        return account

    async def command(self, *arguments: str, check: bool = True) -> str:
        """Runs `reileta …` beside the server; returns its standard output."""
        done = await run(*arguments, "--data", str(self.data), "--database", self.database)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.decode()


@asynccontextmanager
async def federated_servers(
    databases: Databases,
    folder: Path,
    count: int,
    *,
    options: Sequence[str] = (),
    each: Sequence[Sequence[str]] = (),
    peers: Sequence[str] = (),
) -> AsyncIterator[tuple[FederatedServer, ...]]:
    """So many servers that run, from 127.0.0.2 on.

    Args:
        options: further options of all of them.
        each: further options of the first, the second and so on.
        peers: addresses of other servers that they may reach without TLS, such as hostile ones.
    """
    hosts = [f"127.0.0.{number}" for number in range(2, 2 + count)]
    ports = [free_port(host) for host in hosts]
    insecure = [*(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)), *peers]
    shared = ("--federation-allow", "127.0.0.0/8", "--federation-insecure", ",".join(insecure))
    names: list[str] = []
    try:
        async with trio.open_nursery() as nursery:
            servers = []
            for index, (host, port) in enumerate(zip(hosts, ports, strict=True)):
                name, url = databases.create()
                names.append(name)
                own = each[index] if index < len(each) else ()
                data = folder / f"server-{index}"
                data.mkdir(mode=0o700)
                options_of = (*shared, *options, *own)
                servers.append(FederatedServer(host, port, data, url, options_of, nursery))
                await servers[-1].start()
            yield tuple(servers)
            for server in servers:
                await server.stop()
    finally:
        for name in names:
            databases.drop(name)


@asynccontextmanager
async def two_servers(
    databases: Databases, folder: Path, *options: str, **more: Any
) -> AsyncIterator[tuple[FederatedServer, FederatedServer]]:
    """Two servers that run; `options` are further ones of both."""
    async with federated_servers(databases, folder, 2, options=options, **more) as (a, b):
        yield a, b
