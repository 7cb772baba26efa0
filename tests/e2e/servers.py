"""Whole servers for tests: `reileta.main.serve` in the test's own nursery, over real sockets."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import trio

from api.listen.timeouts import Timeouts
from api.ws.gateway import Gateway
from reileta import main
from reileta.observability.metrics import Metrics
from reileta.records import ADMIN_TAG, InstanceRecord
from reileta.rules.resource.types import BUILT_IN, ResourceTypes
from reileta.security.credentials import digest, new_token
from reileta.settings import Settings
from reileta.store import Store
from tests.conftest import PATIENCE_S
from tests.e2e.split_roles import SPLIT, behind, shared_settings

_numbers = itertools.count(1)
_keys = TemporaryDirectory(prefix="reileta-e2e-keys-")


@dataclass(frozen=True)
class Account:
    """An account that a test made, and what it logs in with."""

    id: str
    username: str
    session: str
    token: str


class ServerHarness:
    """A server that takes connections in this process, and ways to fill it.

    `ended` is set when it has stopped, and put everything away.
    """

    def __init__(self, server: main.Server, settings: Settings, ended: trio.Event) -> None:
        self.server = server
        self.ended = ended
        self.behind: dict[str, main.Server] = {}
        """The processes behind the gateway, by their roles, if `server` is one."""
        self.settings = settings
        self.host, _, port = server.url.rpartition("//")[2].rpartition(":")
        self.port = int(port)
        self.address = server.node.address

    @property
    def registry(self) -> main.Server:
        """The process that has the role `eta`."""
        return self.behind.get("eta", self.server)

    @property
    def hosting(self) -> main.Server:
        """The process that has the role `ins`."""
        return self.behind.get("ins", self.server)

    @property
    def store(self) -> Store:
        return self.server.node.store

    @property
    def gateway(self) -> Gateway:
        return self.server.gateway

    @property
    def metrics(self) -> Metrics:
        return self.server.node.metrics

    async def account(self, username: str | None = None, *, admin: bool = False) -> Account:
        """A new account with a session and a token, without the cost of a password."""
        name = username or f"user{next(_numbers)}"
        user = await self.store.users.create(username=name, displayname=name, password_hash=None)
        if admin:
            user = await self.store.users.grant(user.id, ADMIN_TAG)
        return await self.login(user.id, name)

    async def login(self, user_id: str, username: str = "") -> Account:
        """A further session and token of an account."""
        token = new_token("ua")
        session = await self.store.sessions.open(user_id)
        expires = self.server.node.clock.now_ms() + 3_600_000
        await self.store.tokens.issue(
            session_id=session.id,
            user_id=user_id,
            access_hash=digest(token),
            refresh_hash=None,
            access_expires=expires,
            refresh_expires=expires,
            limit=32,
        )
        return Account(user_id, username, session.id, token)

    async def instance(self, owner: Account, *, capacity: int = 1024) -> InstanceRecord:
        """A public instance."""
        return await self.store.instances.create(
            name=f"room-{next(_numbers)}",
            title=None,
            description=None,
            world="w_00000000-0000-4000-8000-000000000000",
            owner=owner.id,
            capacity=capacity,
            tags=frozenset({"avr:public"}),
        )


@asynccontextmanager
async def running(
    database_url: str,
    *,
    timeouts: Timeouts | None = None,
    types: ResourceTypes = BUILT_IN,
    split: bool = False,
    **changes: Any,
) -> AsyncIterator[ServerHarness]:
    """A server on a port of the system's choice; `changes` are settings, `timeouts` those of HTTP
    connections. Servers of one database have the same key. `split`: as gateway, registry and host
    of instances (`split_roles.py`)."""
    with TemporaryDirectory(prefix="reileta-e2e-") as data:
        defaults = {
            "port": 0,
            "data": Path(data),
            "database": database_url,
            "shutdown_s": 4,
            "key": Path(_keys.name) / urlsplit(database_url).path[1:],
        }
        values = {**defaults, **changes}
        ended = trio.Event()
        async with trio.open_nursery() as nursery:

            async def serve(
                settings: Settings, *, task_status: trio.TaskStatus[main.Server]
            ) -> None:
                await main.serve(settings, types, timeouts=timeouts, task_status=task_status)
                if settings is front:
                    ended.set()

            front: Settings | None = None
            behind_it: dict[str, main.Server] = {}
            if SPLIT or split:
                values, behind_it = await _start_behind(nursery, serve, database_url, values)
            front = Settings(**values)
            harness = ServerHarness(await nursery.start(serve, front), front, ended)
            harness.behind = behind_it
            await _until_they_know_each_other(harness)
            yield harness
            nursery.cancel_scope.cancel()


async def _until_they_know_each_other(harness: ServerHarness) -> None:
    for server in (harness.server, *harness.behind.values()):
        cluster = server.node.cluster
        if harness.behind and cluster is not None:
            with trio.fail_after(PATIENCE_S):
                while len(cluster.member.nodes) <= len(harness.behind):
                    await trio.sleep(0.02)


async def _start_behind(
    nursery: trio.Nursery, serve: Any, database_url: str, values: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, main.Server]]:
    """Starts registry and host of instances; returns the settings of the gateway, and both."""
    data: Path = values["data"]
    secret = data / "gateway-secret"
    values = shared_settings(database_url, values, secret)
    trust = {"trusted_proxies": "127.0.0.1", "gateway_secret": secret}
    eta = await nursery.start(serve, Settings(**behind(values, "eta", data / "eta") | trust))
    ins = await nursery.start(serve, Settings(**behind(values, "ins", data / "ins")))
    front = {**values, "role": "reil", "eta": eta.url, "gateway_secret": secret}
    return front, {"eta": eta, "ins": ins}
