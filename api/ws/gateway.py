"""The gateway: `/api/ws`, from the upgrade to the last frame (R "WebSocket Connection").

Each socket has one task, which reads, checks and passes on. What goes to an instance
(`instance-data`) is passed on at once; a command that needs an answer from elsewhere is waited for,
so that a socket's commands take effect in the order in which they came. Nothing is queued here: a
client that sends faster than it is served finds its TCP window closed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

import structlog
import trio
import trio.lowlevel
from quart import Blueprint, websocket
from werkzeug.datastructures import Headers

from actors.node import Node
from actors.runtime.trace import Sampler
from api.credentials import Auth, credential_from
from api.http.endpoint import DEPRECATION
from api.ws.connection_log import ConnectionLog, debugging
from api.ws.message_rate import UserRates
from api.ws.registry.connection import RegistryConnection
from api.ws.transport.base import HELD, Transport, TransportClosed
from reileta.errors import NotImplementedHere
from reileta.protocol.close_codes import CloseCode
from reileta.rules.identity import Principal

TRANSPORT_EXTENSION: Final = "reileta.wire"
"""The ASGI extension by which the route takes the wire itself over."""
WATCH_S: Final = 1.0
RETURN_SPREAD_S: Final = 10
"""Clients that a stopping server sends away come back spread over so many seconds."""

_log = structlog.get_logger()


class Handover(Protocol):
    """The extension: `claim` says what is to serve the wire once the upgrade is accepted.

    It is called in any case, also when the client has gone meanwhile.
    """

    def claim(self, serve: Callable[[Transport], Awaitable[None]]) -> None: ...


class ClientConnection(Protocol):
    """What serves one socket: a `RegistryConnection`, or a line of the session API."""

    @property
    def wire(self) -> Transport: ...
    @property
    def principal(self) -> Principal | None: ...
    @property
    def expires_at(self) -> int:
        """When its credential is no longer valid (ms)."""
        ...

    def opened(self) -> None: ...
    async def greet(self, principal: Principal) -> None: ...
    def take(self, payload: bytes | None) -> bool: ...
    async def handle(self) -> None: ...
    def charge_overhead(self) -> None: ...
    def expire(self) -> None: ...
    def look(self, now: float) -> None:
        """Looks, now and then, whether the client keeps its own times (Trio's seconds)."""
        ...

    def gone(self) -> None: ...


class Gateway:
    """The open sockets, of `/api/ws` and of the session API. `watch` is its task."""

    def __init__(self, node: Node, auth: Auth) -> None:
        self.node = node
        self.auth = auth
        self.sampler = Sampler(node.settings.trace_sample)
        self.rates = UserRates(node.settings)
        self._connections: set[ClientConnection] = set()
        self._numbers = itertools.count(1)
        self._debug = debugging()

    def __len__(self) -> int:
        return len(self._connections)

    async def serve(self, wire: Transport, principal: Principal | None) -> None:
        """Serves one socket until it ends. `principal` is None when no credential came with it."""
        connection = RegistryConnection(
            self.node, self.auth, self.sampler, wire, self.new_log(), self.rates
        )
        await self.serve_connection(connection, principal)

    def new_log(self) -> ConnectionLog:
        """The log of one more socket."""
        return ConnectionLog(next(self._numbers), debug=self._debug)

    async def serve_connection(
        self, connection: ClientConnection, principal: Principal | None
    ) -> None:
        """Serves one socket until it ends, through whatever takes its messages."""
        wire, metrics = connection.wire, self.node.metrics
        self._connections.add(connection)
        metrics.connections += 1
        metrics.connections_total += 1
        connection.opened()
        try:
            with wire.scope:
                if self.node.draining:
                    wire.close(CloseCode.GOING_AWAY, self._come_back())
                elif wire.over_limit:
                    wire.close(CloseCode.TRY_AGAIN_LATER, "too many connections")
                elif principal is not None:
                    await connection.greet(principal)
                await self._read(connection, wire)
        finally:
            # A signal: when the socket goes the handler is cancelled, and could not await.
            connection.gone()
            self._connections.discard(connection)
            metrics.connections -= 1
            await wire.finish()

    async def _read(self, connection: ClientConnection, wire: Transport) -> None:
        wire.listen(connection)
        try:
            while True:
                for payload in await wire.receive():
                    if payload is not HELD:
                        if wire.refusing:
                            break
                        if connection.take(payload):
                            continue
                    await connection.handle()
                if wire.overhead:
                    connection.charge_overhead()
        except TransportClosed:
            pass

    async def watch(self) -> None:
        """Keeps watch over all sockets: who is silent, who never said who it is, who is done."""
        while True:
            await trio.sleep(WATCH_S)
            self._look_at_all()

    def _look_at_all(self) -> None:
        settings = self.node.settings
        now = trio.current_time()
        now_ms = self.node.clock.now_ms()
        for connection in tuple(self._connections):
            wire = connection.wire
            if wire.closing_at is not None:
                if now > wire.closing_at + wire.close_timeout_s:
                    wire.cut()
            elif wire.progress_by is not None and now > wire.progress_by:
                wire.give_up()
            elif wire.pinged_at is not None:
                if now > wire.pinged_at + settings.keepalive_timeout_s:
                    wire.cut()
            elif now > wire.heard_at + settings.keepalive_interval_s:
                wire.ping()
            if connection.principal is None:
                if now > wire.opened_at + settings.credential_deadline_s:
                    wire.close(CloseCode.NO_CREDENTIAL, "no credential")
            elif connection.expires_at <= now_ms:
                connection.expire()
            connection.look(now)

    async def drain(self, within_s: float) -> None:
        """Sends all clients away (1001), a few at a time, and waits for them to go."""
        with trio.move_on_after(within_s):
            for number, connection in enumerate(tuple(self._connections), 1):
                connection.wire.close(CloseCode.GOING_AWAY, self._come_back())
                if number % 200 == 0:
                    await trio.lowlevel.checkpoint()
            while self._connections:  # noqa: ASYNC110  # once in a process' life
                await trio.sleep(0.02)
        for connection in tuple(self._connections):
            connection.wire.cut()

    def _come_back(self) -> str:
        """When to come back, in seconds: spread out, so that not all come at once."""
        return f"come back in {random.randint(1, RETURN_SPREAD_S)} s"  # noqa: S311


def gateway_blueprint(gateway: Gateway) -> Blueprint:
    """The route `/api/ws`."""
    blueprint = Blueprint("gateway", __name__)

    @blueprint.websocket("/api/ws")
    async def connect() -> None:
        """Upgrades, and hands the wire over; a credential that is not valid refuses the upgrade."""
        credential = credential_from(websocket)
        principal = await gateway.auth.authenticate(credential)
        deprecated = credential is not None and credential.deprecated
        await accept(
            lambda wire: gateway.serve(wire, principal),
            Headers({"Deprecation": DEPRECATION} if deprecated else {}),
        )

    return blueprint


async def accept(
    serve: Callable[[Transport], Awaitable[None]],
    headers: Headers,
) -> None:
    """Accepts the upgrade at hand, and has the wire served after this."""
    extensions = cast(dict[str, Any], websocket.scope.get("extensions") or {})
    handover: Handover | None = extensions.get(TRANSPORT_EXTENSION)
    if handover is None:
        raise NotImplementedHere.field("Upgrade", "needs HTTP/1.1 on this server's own port")
    await websocket.accept(headers)
    handover.claim(serve)
