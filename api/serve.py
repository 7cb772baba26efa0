"""The front door: one port for HTTP and WebSocket, plain or TLS (DESIGN §3).

A connection's first request decides. An HTTP/1.1 upgrade to WebSocket is spoken by our own wire:
Quart sees an ASGI `websocket` scope with an extension through which the route takes the wire over,
and once it did, nothing of Quart's stays behind in memory. Everything else goes to Hypercorn.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from actors.containment import contain
from api.envelope import failure
from api.upgrade import HEAD_LIMIT, App, Stream, Upgrade, address_of, is_upgrade, read_head
from api.ws.pump import Pump, PumpedWire
from api.ws.transports import StreamWire
from api.ws.wire import Upgraded, Wire
from reileta.clock import Clock
from reileta.errors import Overloaded
from reileta.logevents import CONNECTION_FAILED
from reileta.metrics import Metrics
from reileta.settings import Settings

HEAD_TIMEOUT_S: Final = 10
HANDSHAKE_TIMEOUT_S: Final = 10
SEND_TIMEOUT_S: Final = 60
"""How long a client of HTTP may take to read what is sent at once, 256 KiB of a file at most."""
BACKLOG: Final = 1024
SEND_BUFFER: Final = 256 * 1024
"""What the system buffers for a socket: enough for bursts, and little enough that what a slow
client is sent is not long out of date when it reads it."""


_log = structlog.get_logger()
_quiet = logging.getLogger("reileta.websockets")
_quiet.setLevel(logging.ERROR)


class HttpConnection(TCPServer):
    """Hypercorn's connection, which is told what was read of it already, and gives up on a client
    that does not read what it asked for."""

    def __init__(self, *args: Any, head: bytes, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head = head

    async def protocol_send(self, event: Event) -> None:
        # An answer given before the request's end closes the connection; but at that moment
        # Quart-Trio cancels the handler that closes it, and the connection would stay open, dead.
        with trio.CancelScope(shield=isinstance(event, Closed)):
            if isinstance(event, RawData):
                await self._send_in_time(event.data)
            else:
                await super().protocol_send(event)

    async def _send_in_time(self, data: bytes) -> None:
        """As Hypercorn does it, which would wait for ever, and can't be cancelled meanwhile."""
        gone = False
        async with self.send_lock:
            with trio.move_on_after(SEND_TIMEOUT_S, shield=True) as patience:
                try:
                    await self.stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    gone = True
        if patience.cancelled_caught:
            await trio.aclose_forcefully(self.stream)
            gone = True
        if gone:
            await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        if self._head:
            await self.protocol.handle(RawData(self._head))
        await super()._read_data()


async def open_listeners(settings: Settings) -> tuple[list[trio.SocketListener], int]:
    """The listening sockets, and their port. Raises OSError when the address can't be had."""
    listeners = await trio.open_tcp_listeners(settings.port, host=settings.host, backlog=BACKLOG)
    return listeners, listeners[0].socket.getsockname()[1]


class FrontDoor:
    """The listener and its connections. `stop` ends it in order."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self.app = app
        self.clock = clock
        self.secure = settings.secure
        self._settings = settings
        self._metrics = metrics
        self._nursery: trio.Nursery | None = None
        self._accepting = trio.CancelScope()
        self._pump = Pump()
        self._open = 0
        self._config = Config()
        self._config.accesslog = None
        self._config.errorlog = logging.getLogger("hypercorn.error")
        self._config.include_server_header = False
        self._config.h11_max_incomplete_size = HEAD_LIMIT
        self._config.keep_alive_timeout = 30
        self._config.websocket_max_message_size = settings.message_limit_bytes
        self._config.websocket_ping_interval = settings.keepalive_interval_s
        self._context = WorkerContext(None)
        self._wrapped = ASGIWrapper(cast(ASGIFramework, app))

    @property
    def nursery(self) -> trio.Nursery:
        """Where the wires run their writers."""
        assert self._nursery is not None
        return self._nursery

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serves what comes in until cancelled. `stop_accepting` leaves open connections open."""
        context = self._tls()
        served: list[trio.abc.Listener[Any]] = [
            listener
            if context is None
            else trio.SSLListener(listener, context, https_compatible=True)
            for listener in listeners
        ]
        async with trio.open_nursery() as connections:
            self._nursery = connections
            connections.start_soon(self._pump.run)
            lifespan = Lifespan(self._wrapped, self._config, {})
            await connections.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            with self._accepting:
                await trio.serve_listeners(self._contained, served, handler_nursery=connections)
            await trio.sleep_forever()

    def stop_accepting(self) -> None:
        """Takes no more connections; those that are open go on."""
        self._accepting.cancel()

    async def finish_requests(self) -> None:
        """Has idle HTTP connections closed, and waits for requests under way."""
        await self._context.terminated.set()
        while self._open:  # noqa: ASYNC110  # once in a process' life
            await trio.sleep(0.02)

    def wire(self, stream: Stream, protocol: ServerProtocol, early: bytes) -> Wire:
        """The fastest wire for that stream; `early` was read of it already."""
        upgraded = Upgraded(
            protocol,
            self.nursery,
            self._metrics,
            backlog_limit_bytes=self._settings.backlog_limit_bytes,
            remote=address_of(stream, "getpeername")[0],
            early=early,
        )
        if isinstance(stream, trio.SSLStream):
            return StreamWire(stream, upgraded)
        return PumpedWire(self._pump, stream, upgraded)

    async def _contained(self, stream: Stream) -> None:
        """One connection, whose failure is its own."""
        failure = await contain(partial(self._connection, stream))
        if failure is not None:
            _log.error(CONNECTION_FAILED, exc_info=failure)
            await trio.aclose_forcefully(stream)

    async def _connection(self, stream: Stream) -> None:
        """One connection, from its first byte."""
        try:
            if isinstance(stream, trio.SSLStream):
                with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                    await stream.do_handshake()
                if stream.selected_alpn_protocol() == "h2":
                    await self._http(stream, b"")
                    return
            with trio.fail_after(HEAD_TIMEOUT_S):
                head = await read_head(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            await trio.aclose_forcefully(stream)
            return
        if not head:
            await trio.aclose_forcefully(stream)
        elif is_upgrade(head):
            await self._upgrade(stream, head)
        else:
            await self._http(stream, head)

    async def _http(self, stream: Stream, head: bytes) -> None:
        if self._open >= self._settings.connections:
            await self._overloaded(stream)
            return
        connection = HttpConnection(
            self._wrapped, self._config, self._context, ConnectionState({}), stream, head=head
        )
        self._open += 1
        try:
            await connection.run()
        finally:
            self._open -= 1

    async def _overloaded(self, stream: Stream) -> None:
        """Tells one connection too many to come back later."""
        error = Overloaded()
        body = failure("", self.clock.now_ms(), error)
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {math.ceil(error.retry_after_s or 1)}\r\n"
            "Connection: close\r\n\r\n"
        )
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S), suppress(trio.BrokenResourceError):
            await stream.send_all(head.encode() + body)
        await trio.aclose_forcefully(stream)

    async def _upgrade(self, stream: Stream, head: bytes) -> None:
        transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        transport.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER)
        extensions = [_DEFLATE] if self._settings.deflate else []
        protocol = ServerProtocol(
            extensions=extensions, max_size=self._settings.message_limit_bytes, logger=_quiet
        )
        await Upgrade(self, stream, protocol).run(head)

    def _tls(self) -> ssl.SSLContext | None:
        if self._settings.tls_cert is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.load_cert_chain(self._settings.tls_cert, self._settings.tls_key)
        return context


_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_max_window_bits=12
)
