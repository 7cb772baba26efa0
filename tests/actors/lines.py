"""Lines that are none, and sessions of a node over the real database."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from actors.node import Node
from actors.session.messages import (
    AcquireResource,
    OpenSocket,
    PatchState,
    ReleaseResource,
    WriteResource,
)
from reileta.errors import ReiletaError
from reileta.observability.metrics import Metrics
from reileta.records import Resource
from reileta.rules.identity import Claimant, Principal
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import Content
from reileta.settings import Settings
from reileta.store import Store
from tests.actors.sinks import FakeSink
from tests.conftest import ManualClock

_numbers = itertools.count(1)
PATIENCE_S = 8.0


class FakeLine(FakeSink):
    """A `Line` whose client reads at once. `acks` and `refused` are of its own events."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.acks: list[str] = []
        self.refused: list[tuple[str, int]] = []
        self.flushes = 0

    def tell(self, event_id: str, frame: bytes) -> None:
        self.send(frame)

    def ack(self, event_id: str) -> None:
        self.acks.append(event_id)

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        self.refused.append((event_id, error.code))

    def flush(self) -> None:
        self.flushes += 1

    def payloads(self) -> list[dict[str, Any]]:
        """All that came since the last time."""
        return [one["payload"] for one in self.take()]


@dataclass
class Someone:
    """A user's session, through one token."""

    node: Node
    principal: Principal

    @property
    def claimant(self) -> Claimant:
        return Claimant(self.principal.session_id, self.principal.user.id)

    async def open(self, line: FakeLine | None = None) -> FakeLine:
        """A line of it, greeted."""
        line = line or FakeLine()
        ref = await self.node.sessions.live(self.principal)
        await ref.ask(OpenSocket(line, self.principal.token_hash, self.principal.token_expires))
        return line

    async def patch(self, line: FakeLine, event_id: str, **patch: Any) -> None:
        (await self.node.sessions.live(self.principal)).tell(PatchState(line, event_id, patch))

    async def acquire(self, name: ResourceKey) -> int:
        ref = await self.node.sessions.live(self.principal)
        return (await ref.ask(AcquireResource(name, self.claimant))).fence

    async def release(self, name: ResourceKey) -> None:
        await (await self.node.sessions.live(self.principal)).ask(
            ReleaseResource(name, self.claimant)
        )

    async def write(self, name: ResourceKey, **patch: Any) -> Resource:
        ref = await self.node.sessions.live(self.principal)
        return await ref.ask(WriteResource(name, self.claimant, patch, None))

    async def document(self) -> ResourceKey:
        made = await self.node.store.resources.create("document", self.claimant, Content("Door"))
        return ResourceKey("document", made.number)


async def someone(
    node: Node, *, session: str | None = None, user: str | None = None, autopilot: bool = False
) -> Someone:
    """A token of a new user's new session, or of those that are given."""
    store, number = node.store, next(_numbers)
    if user is None:
        name = f"user{number}"
        made = await store.users.create(
            username=name, displayname=name, password_hash=None, autopilot=autopilot
        )
    else:
        found = await store.users.by_id(user)
        assert found is not None
        made = found
    session = session or (await store.sessions.open(made.id)).id
    expires = node.clock.now_ms() + 3_600_000
    token = await store.tokens.issue(
        session_id=session,
        user_id=made.id,
        access_hash=b"token %d" % number,
        refresh_hash=None,
        access_expires=expires,
        refresh_expires=expires,
        limit=32,
    )
    return Someone(
        node, Principal(made, session, token.id, expires_at=expires, token_expires=expires)
    )


async def sibling(one: Someone) -> Someone:
    """Another token of the same session."""
    return await someone(one.node, session=one.principal.session_id, user=one.principal.user.id)


@asynccontextmanager
async def open_node(store: Store, clock: ManualClock, **settings: Any) -> AsyncIterator[Node]:
    metrics = Metrics()
    async with Node.open(
        settings=Settings(**settings),
        store=store,
        clock=clock,
        metrics=metrics,
        instruments=metrics,
        address="play.example.org:3032",
        public_key="",
    ) as node:
        yield node


async def until(condition: Any) -> None:
    """Waits for the database to have done something."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.002)
