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
        self.settings = settings
        self.host, _, port = server.url.rpartition("//")[2].rpartition(":")
        self.port = int(port)
        self.address = server.node.address

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
    **changes: Any,
) -> AsyncIterator[ServerHarness]:
    """A server on a port of the system's choice; `changes` are settings, `timeouts` those of HTTP
    connections. Servers of one database have the same key."""
    with TemporaryDirectory(prefix="reileta-e2e-") as data:
        defaults = {
            "port": 0,
            "data": Path(data),
            "database": database_url,
            "shutdown_s": 4,
            "key": Path(_keys.name) / urlsplit(database_url).path[1:],
        }
        settings = Settings(**{**defaults, **changes})
        ended = trio.Event()

        async def serve(*, task_status: trio.TaskStatus[main.Server]) -> None:
            await main.serve(settings, types, timeouts=timeouts, task_status=task_status)
            ended.set()

        async with trio.open_nursery() as nursery:
            yield ServerHarness(await nursery.start(serve), settings, ended)
            nursery.cancel_scope.cancel()
