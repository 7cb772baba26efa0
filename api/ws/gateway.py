"""The gateway: every open WebSocket, from the upgrade to the last frame.

Each socket has one task, which reads messages, checks them and passes them on. It passes data for
an instance (`instance-data`) on at once, and waits for other commands to finish, so a socket's
commands take effect in the order in which they came. Nothing is queued here: a client that sends
faster than the server serves it finds its TCP window closed.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
import trio
import trio.lowlevel
from quart import Blueprint, websocket
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import Headers

from actors.node import GatewaySeen, Node
from actors.runtime.failures import CapturedFailure
from actors.runtime.trace import Sampler
from api.credentials import Auth
from api.http.endpoint import DEPRECATION, address_of
from api.ws.accept import accept
from api.ws.connection_log import ConnectionLog, debugging
from api.ws.message_rate import UserRates
from api.ws.registry.channel import REGISTRY_CHANNEL
from api.ws.registry.commands import COMMANDS
from api.ws.registry.connection import RegistryConnection
from api.ws.transport.base import HELD, Transport, TransportClosed
from reileta.errors import ClientBlocked, Detail, Overloaded, Redirected
from reileta.observability.log_events import CONNECTION_FAILED
from reileta.protocol.close_codes import CloseCode
from reileta.rules.client_rules import AGENT_LENGTH
from reileta.rules.identity import Principal

WATCH_S: Final = 1.0
WATCHED_AT_ONCE: Final = 200
"""So many sockets are looked at in a row: that takes about as long as a fan-out to a hundred."""
SOCKET_PATHS: Final = ("/api/ws", "/ws/user", "/ws/autopilot", "/api/nodes/link")
RETURN_SPREAD_S: Final = 10
"""The clients of a stopping server come back within so many seconds, spread out."""


_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Client:
    """Where a socket comes from, for the rules about clients."""

    address: str
    agent: str

    @classmethod
    def of(cls, carrier: BaseRequestWebsocket) -> Client:
        """The client of an upgrade."""
        agent = carrier.headers.get("User-Agent", "")
        return cls(address_of(carrier), agent[:AGENT_LENGTH])


NO_CLIENT: Final = Client("", "")


class ClientConnection(Protocol):
    """The server's side of one socket: a `RegistryConnection` or a `SessionConnection`."""

    @property
    def transport(self) -> Transport: ...
    @property
    def user(self) -> str | None:
        """The id of the user for whom it acts; None without one."""
        ...

    @property
    def lacks_credential(self) -> bool:
        """Whether the deadline for a credential applies to it."""
        ...

    @property
    def expires_at(self) -> int:
        """When its credential is no longer valid (ms)."""
        ...

    def opened(self) -> None: ...
    async def start(self, principal: Principal) -> None: ...
    def take(self, payload: bytes | None) -> bool: ...
    async def handle(self) -> None: ...
    def charge_overhead(self) -> None: ...
    def expire(self) -> None: ...
    def check_deadlines(self, now: float) -> None:
        """Closes the socket if the client missed a deadline; `now` in Trio's seconds."""
        ...

    def closed(self) -> None: ...


class Gateway:
    """The open sockets, of `/api/ws` and of the session API. `watch` is its task."""

    def __init__(self, node: Node, auth: Auth) -> None:
        self.node = node
        self.auth = auth
        self.sampler = Sampler(node.settings.trace_sample)
        node.traces.add(self.sampler)
        self.rates = UserRates(node.settings)
        self._connections: dict[ClientConnection, Client] = {}
        self._numbers = itertools.count(1)
        self._debug = debugging()

    def __len__(self) -> int:
        return len(self._connections)

    async def serve(
        self, transport: Transport, principal: Principal | None, client: Client = NO_CLIENT
    ) -> None:
        """Serves one socket of `/api/ws` until it ends. `principal` is None when no credential came
        with it."""
        connection = RegistryConnection(
            self.node,
            self.auth,
            self.sampler,
            transport,
            self.new_log(COMMANDS.names),
            self.rates,
            COMMANDS,
        )
        await self.serve_connection(connection, principal, client)

    def new_log(self, names: frozenset[str]) -> ConnectionLog:
        """The log of a new socket; `names` are the names of commands that it may hold."""
        return ConnectionLog(next(self._numbers), names, self.node.activity, debug=self._debug)

    async def serve_connection(
        self,
        connection: ClientConnection,
        principal: Principal | None,
        client: Client = NO_CLIENT,
    ) -> None:
        """Serves one socket until it ends."""
        transport, metrics = connection.transport, self.node.metrics
        self._connections[connection] = client
        metrics.connections += 1
        metrics.connections_total += 1
        connection.opened()
        try:
            with transport.scope:
                if self.node.turns_away:
                    transport.close(CloseCode.GOING_AWAY, come_back_reason())
                elif self._is_refused(connection, client):  # since it was accepted
                    self._refuse(connection)
                elif transport.over_limit:
                    transport.close(CloseCode.TRY_AGAIN_LATER, "too many connections")
                elif principal is not None:
                    await connection.start(principal)
                await self._read(connection, transport)
        finally:
            # A signal: when the socket goes the handler is cancelled, and could not await.
            connection.closed()
            self._connections.pop(connection, None)
            metrics.connections -= 1
            try:
                await transport.finish()
            finally:
                transport.listen(None)  # the listener refers to the transport, too

    def apply_client_rules(self) -> None:
        """Closes the sockets of clients that a rule refuses now."""
        if self.node.clients.active:
            for connection, client in tuple(self._connections.items()):
                if self._is_refused(connection, client):
                    self._refuse(connection)

    def _is_refused(self, connection: ClientConnection, client: Client) -> bool:
        clients = self.node.clients
        return (
            clients.active
            and clients.rule_for(client.address, client.agent, connection.user) is not None
        )

    def _refuse(self, connection: ClientConnection) -> None:
        """Closes a socket. Its seats are free at once, whether its client answers that or not."""
        transport = connection.transport
        transport.close(CloseCode.CLIENT_BLOCKED, ClientBlocked.message)
        for seat in tuple(transport.seats.values()):
            seat.lose(transport)

    async def _read(self, connection: ClientConnection, transport: Transport) -> None:
        transport.listen(connection)
        try:
            while True:
                for payload in await transport.receive():
                    if payload is not HELD:
                        if transport.refusing:
                            break
                        if connection.take(payload):
                            continue
                    transport.busy = True
                    await connection.handle()
                    transport.busy = False
                if transport.overhead:
                    connection.charge_overhead()
        except TransportClosed:
            pass

    async def watch(self) -> None:
        """Watches the deadlines of all sockets: pings, credentials, closing handshakes.

        When this process could not run for a while, what clients sent meanwhile is read before the
        next look: so a look that comes late is left out, unless the one before was.
        """
        left_out = False
        while True:
            began = trio.current_time()
            await trio.sleep(WATCH_S)
            left_out = not left_out and trio.current_time() - began > 2 * WATCH_S
            if not left_out:
                await self._check_all_deadlines()

    async def _check_all_deadlines(self) -> None:
        """Lets other tasks run in between: thousands of sockets would hold up all messages."""
        now = trio.current_time()
        now_ms = self.node.clock.now_ms()
        for number, connection in enumerate(tuple(self._connections)):
            if number % WATCHED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if connection not in self._connections:
                continue  # it has ended meanwhile
            with CapturedFailure() as contained:
                self._check_deadlines(connection, now, now_ms)
            if contained.error is not None:
                _log.error(CONNECTION_FAILED, exc_info=contained.error)
                connection.transport.cut()

    def _check_deadlines(self, connection: ClientConnection, now: float, now_ms: int) -> None:
        settings, transport = self.node.settings, connection.transport
        if transport.closing_at is not None:
            if now > transport.closing_at + transport.close_timeout_s:
                transport.cut()
        elif transport.progress_by is not None and now > transport.progress_by:
            transport.give_up()
        elif transport.pinged_at is not None:
            if now > transport.pinged_at + settings.keepalive_timeout_s:
                transport.cut()
        elif now > transport.heard_at + settings.keepalive_interval_s:
            transport.ping()
        if connection.lacks_credential:
            if now > transport.opened_at + settings.credential_deadline_s:
                transport.close(CloseCode.NO_CREDENTIAL, "no credential")
        elif connection.expires_at <= now_ms:
            connection.expire()
        connection.check_deadlines(now)

    def send_away(self) -> None:
        """Closes all sockets (1001): their clients come back at another node."""
        for connection in tuple(self._connections):
            connection.transport.close(CloseCode.GOING_AWAY, come_back_reason())

    async def drain(self, within_s: float) -> None:
        """Closes all sockets (1001), a few at a time, and waits for their clients to go."""
        with trio.move_on_after(within_s):
            for number, connection in enumerate(tuple(self._connections), 1):
                connection.transport.close(CloseCode.GOING_AWAY, come_back_reason())
                if number % 200 == 0:
                    await trio.lowlevel.checkpoint()
            while self._connections:  # noqa: ASYNC110  # once in a process' life
                await trio.sleep(0.02)
        for connection in tuple(self._connections):
            connection.transport.cut()


def come_back_reason() -> str:
    """The close reason of a draining gateway: when to come back, at random, so that not all clients
    come back at once."""
    return f"come back in {random.randint(1, RETURN_SPREAD_S)} s"  # noqa: S311


def gateway_blueprint(gateway: Gateway) -> Blueprint:
    """The route of `/api/ws`."""
    blueprint = Blueprint("gateway", __name__)

    @blueprint.websocket("/api/ws")
    async def connect() -> None:
        """Accepts the upgrade, unless its credential is not valid, or this node is being drained
        and another one takes clients."""
        redirect_if_drained(gateway.node)
        credential = gateway.auth.credential_from(websocket)
        principal = await gateway.auth.authenticate(credential)
        if principal is not None:
            gateway.rates.ensure_room(principal.user.id)
        deprecated = credential is not None and credential.deprecated
        client = Client.of(websocket._get_current_object())  # type: ignore[attr-defined]
        await accept(
            lambda transport: gateway.serve(transport, principal, client),
            Headers({"Deprecation": DEPRECATION} if deprecated else {}),
            REGISTRY_CHANNEL.subprotocol,
        )

    return blueprint


def redirect_if_drained(node: Node) -> None:
    """Raises Redirected if the clients of new WebSockets are to use another gateway."""
    _redirect(node.instead())


def redirect_link_if_drained(node: Node) -> None:
    """Raises Redirected if instance nodes are to use another gateway."""
    _redirect(node.instead_for_links())


def _redirect(instead: GatewaySeen | None) -> None:
    if instead is not None:
        raise Redirected(instead.address, secure=instead.secure)


def elsewhere_blueprint(node: Node) -> Blueprint:
    """The routes of WebSockets at a registry, which sends clients to a gateway."""
    blueprint = Blueprint("elsewhere", __name__)

    async def connect() -> None:
        redirect_if_drained(node)
        raise Overloaded(Detail("server", "knows no gateway at the moment"))

    for path in SOCKET_PATHS:
        blueprint.add_websocket(path, path.strip("/").replace("/", "_"), connect)
    return blueprint
