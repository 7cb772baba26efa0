"""Clients of sessions on a node over the real database, with sockets that keep what they get."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from actors.cluster.facts import ClusterMember
from actors.node import Node
from actors.session.messages import (
    AcquireResource,
    OpenSocket,
    PatchState,
    ReleaseResource,
    WriteResource,
)
from reileta.clock import Clock
from reileta.errors import ReiletaError
from reileta.observability.metrics import Metrics
from reileta.records import ResourceRecord
from reileta.rules.identity import Claimant, Principal
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import Content
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store
from tests.actors.sinks import FakeSink
from tests.conftest import PATIENCE_S

_numbers = itertools.count(1)


class FakeSessionSink(FakeSink):
    """A `SessionSink` whose client reads at once. `acks` and `refused` are of its own events."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.acks: list[str] = []
        self.refused: list[tuple[str, int]] = []
        self.flushes = 0

    def send_event(self, event_id: str, frame: bytes) -> None:
        self.send(frame)

    def ack(self, event_id: str) -> None:
        self.acks.append(event_id)

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        self.refused.append((event_id, error.code))

    def flush(self) -> None:
        self.flushes += 1

    def payloads(self) -> list[dict[str, Any]]:
        """All that came since the last time."""
        return [message["payload"] for message in self.take()]


@dataclass
class SessionClient:
    """A user's session on a node, through one of its tokens."""

    node: Node
    principal: Principal

    @property
    def claimant(self) -> Claimant:
        return Claimant(self.principal.session_id, self.principal.user.id)

    async def open(self, socket: FakeSessionSink | None = None) -> FakeSessionSink:
        """A socket of the session API, greeted."""
        socket = socket or FakeSessionSink()
        ref = await self.node.sessions.live(self.principal)
        await ref.ask(OpenSocket(socket, self.principal.token_hash, self.principal.token_expires))
        return socket

    async def patch(self, socket: FakeSessionSink, event_id: str, **patch: Any) -> None:
        (await self.node.sessions.live(self.principal)).tell(PatchState(socket, event_id, patch))

    async def acquire(self, key: ResourceKey) -> int:
        """Acquires a resource; its fencing number."""
        ref = await self.node.sessions.live(self.principal)
        return (await ref.ask(AcquireResource(key, self.claimant))).fence

    async def release(self, key: ResourceKey) -> None:
        await (await self.node.sessions.live(self.principal)).ask(
            ReleaseResource(key, self.claimant)
        )

    async def write(self, key: ResourceKey, **patch: Any) -> ResourceRecord:
        ref = await self.node.sessions.live(self.principal)
        return await ref.ask(WriteResource(key, self.claimant, patch, None))

    async def document(self) -> ResourceKey:
        return await new_document(self.node.store, self.claimant)


async def new_principal(
    store: Store,
    clock: Clock,
    *,
    session: str | None = None,
    user: str | None = None,
    autopilot: bool = False,
) -> Principal:
    """A new token of that session and user; without them, of a new session and a new user."""
    number = next(_numbers)
    if user is None:
        name = f"user{number}"
        account = await store.users.create(
            username=name, displayname=name, password_hash=None, autopilot=autopilot
        )
    else:
        known = await store.users.by_id(user)
        assert known is not None
        account = known
    session = session or (await store.sessions.open(account.id)).id
    expires = clock.now_ms() + 3_600_000
    token = await store.tokens.issue(
        session_id=session,
        user_id=account.id,
        access_hash=b"token %d" % number,
        refresh_hash=None,
        access_expires=expires,
        refresh_expires=expires,
        limit=32,
    )
    return Principal(account, session, token.id, expires_at=expires, token_expires=expires)


async def new_document(store: Store, owner: Claimant) -> ResourceKey:
    made = await store.resources.create("document", owner, Content("Door"))
    return ResourceKey("document", made.number)


async def log_in(
    node: Node, *, session: str | None = None, user: str | None = None, autopilot: bool = False
) -> SessionClient:
    """A client with a new token; see `new_principal`."""
    principal = await new_principal(
        node.store, node.clock, session=session, user=user, autopilot=autopilot
    )
    return SessionClient(node, principal)


async def second_token(client: SessionClient) -> SessionClient:
    """The same session through another token."""
    principal = client.principal
    return await log_in(client.node, session=principal.session_id, user=principal.user.id)


@asynccontextmanager
async def open_node(
    store: Store,
    clock: Clock,
    kind: type[Node] = Node,
    member: ClusterMember | None = None,
    **settings: Any,
) -> AsyncIterator[Node]:
    metrics = Metrics()
    async with kind.open(
        settings=Settings(**settings),
        store=store,
        clock=clock,
        metrics=metrics,
        instruments=metrics,
        address="play.example.org:3032",
        key=ServerKey.generate(),
        member=member,
    ) as node:
        yield node


async def until(condition: Callable[[], object]) -> None:
    """Waits until the database has done something; fails after `PATIENCE_S`."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.002)
