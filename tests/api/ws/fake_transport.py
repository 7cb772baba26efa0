"""Wires that are none, and the node as a gateway sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import trio

from actors.clients import ModeratedClients
from actors.console.watches import Watches
from actors.delivery.batch import Piece
from actors.node import Node
from actors.runtime.errors import ActorStopped
from actors.runtime.trace_watch import TraceWatch
from api.credentials import Auth, Credential
from api.ws.transport.base import Messages, Transport, TransportClosed
from reileta.errors import CredentialInvalid
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import payload_of
from reileta.records import User
from reileta.rules.identity import Principal
from reileta.settings import Settings
from tests.actors.sinks import frames_of

ADDRESS = "play.example.org:3032"
EPOCH_MS = 1_790_000_000_000

ADA = User(
    *("u_00000000-0000-4000-8000-00000000000a", 1, "ada", "Ada", None, None),
    *("online", frozenset[str](), False, None, 0, 0),
)


def principal(*, session: str = "s_1", expires_at: int = EPOCH_MS + 10**9) -> Principal:
    return Principal(ADA, session, b"hash", expires_at=expires_at)


class TrioClock:
    def now_ms(self) -> int:
        return EPOCH_MS + round(trio.current_time() * 1000)

    def steady_ms(self) -> int:
        return self.now_ms()


class FakeTransport(Transport):
    """A client that reads at once, and says what a test puts into `inbox`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__(nursery, Metrics(), backlog_limit_bytes=1 << 20, remote="192.0.2.1")
        self.frames: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.pings = 0
        self.finishes = 0
        self.inbox, self._incoming = trio.open_memory_channel[Messages](100)

    @property
    def said(self) -> list[dict[str, Any]]:
        """What the server said, as JSON."""
        return [msgspec.json.decode(payload_of(one)) for one in self.frames]

    @property
    def close_code(self) -> int:
        """0 while it is open."""
        return 0 if self.closed is None else self.closed[0]

    async def receive(self) -> Messages:
        try:
            messages = await self._incoming.receive()
        except trio.EndOfChannel:
            raise TransportClosed from None
        self.heard_at = trio.current_time()
        self.pinged_at = None
        return messages

    def ping(self) -> None:
        self.pings += 1
        self.pinged_at = trio.current_time()

    async def finish(self) -> None:
        self.finishes += 1

    def _write_now(self, pieces: Sequence[Piece]) -> None:
        self.frames += frames_of(pieces)

    def _begin_close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    async def _flush(self) -> None:
        raise AssertionError("nothing waits")


@dataclass
class FakeSession:
    """A session that answers each request with what a test chose: an error, or after an event."""

    raises: Exception | None = None
    gate: trio.Event | None = None
    told: list[object] = field(default_factory=list)

    async def ask(self, request: object) -> None:
        self.told.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.raises is not None:
            raise self.raises

    def tell_now(self, message: object) -> None:
        self.tell(message)

    def tell(self, message: object) -> None:
        self.told.append(message)
        if self.raises is not None:
            raise self.raises

    def signal(self, message: object) -> bool:
        self.told.append(message)
        return True


class FakeResources:
    """Knows which sockets have closed."""

    def __init__(self) -> None:
        self.closed: list[object] = []

    def socket_closed(self, sink: object) -> None:
        self.closed.append(sink)


@dataclass
class FakeNode:
    """A `Node` as far as sockets need one."""

    settings: Settings = field(default_factory=Settings)
    metrics: Metrics = field(default_factory=Metrics)
    clock: TrioClock = field(default_factory=TrioClock)
    address: str = ADDRESS
    draining: bool = False
    actor: FakeSession = field(default_factory=FakeSession)
    hub: FakeSession = field(default_factory=FakeSession)
    resources: FakeResources = field(default_factory=FakeResources)
    stopped_sessions: int = 0
    """So many times the session turns out to have stopped."""

    def __post_init__(self) -> None:
        self.activity = ActivityLog(self.clock)
        rules: Any = None
        self.clients = ModeratedClients(rules, self.clock, self.activity, self.metrics, "here")
        self.traces = TraceWatch()
        console: Any = None
        self.watches = Watches(console)

    @property
    def turns_away(self) -> bool:
        return self.draining

    @property
    def sessions(self) -> FakeNode:
        return self

    def current(self, principal: Principal) -> Principal:
        return principal

    async def live(self, principal: Principal) -> FakeSession:
        if self.stopped_sessions:
            self.stopped_sessions -= 1
            return FakeSession(ActorStopped())
        return self.actor


def port(node: FakeNode) -> Node:
    return cast(Node, node)


class FakeAuth:
    """Knows the tokens in `known`."""

    def __init__(self, **known: Principal) -> None:
        self.known = known

    async def authenticate_token(self, token: str) -> Principal:
        if token not in self.known:
            raise CredentialInvalid
        return self.known[token]

    async def authenticate(self, credential: Credential | None) -> Principal | None:
        return None if credential is None else await self.authenticate_token(credential.token)


def auth(**known: Principal) -> Auth:
    return cast(Auth, FakeAuth(**known))
