"""The front door: one port for HTTP and WebSocket, plain or TLS (DESIGN §3).

A connection's first request decides. An HTTP/1.1 upgrade to WebSocket is spoken by our own wire:
Quart sees an ASGI `websocket` scope with an extension through which the route takes the wire over,
and once it did, nothing of Quart's stays behind in memory. Everything else goes to Hypercorn.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, cast
from urllib.parse import unquote

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from websockets.exceptions import InvalidHeader
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.http11 import Response as UpgradeResponse
from websockets.server import ServerProtocol

from actors.containment import contain
from api.envelope import failure, request_line
from api.ws.gateway import WIRE_EXTENSION
from api.ws.pump import Pump, PumpedWire
from api.ws.wire import StreamWire, Wire
from reileta.clock import Clock
from reileta.errors import MessageInvalid
from reileta.logevents import CONNECTION_FAILED
from reileta.metrics import Metrics
from reileta.settings import Settings

HEAD_LIMIT: Final = 16 * 1024
"""Bytes of a request's head; Hypercorn has the same limit."""
HEAD_TIMEOUT_S: Final = 10
HANDSHAKE_TIMEOUT_S: Final = 10
SEND_TIMEOUT_S: Final = 60
"""How long a client of HTTP may take to read what is sent at once, 256 KiB of a file at most."""
BACKLOG: Final = 1024
SEND_BUFFER: Final = 256 * 1024
"""What the system buffers for a socket: enough for bursts, and little enough that what a slow
client is sent is not long out of date when it reads it."""

_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_log = structlog.get_logger()
_quiet = logging.getLogger("reileta.websockets")
_quiet.setLevel(logging.ERROR)

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
App = Callable[[Any, Any, Any], Awaitable[None]]


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


class Upgrade:
    """One upgrade: the ASGI conversation with the route, and the wire that comes out of it."""

    def __init__(self, door: FrontDoor, stream: Stream, protocol: ServerProtocol) -> None:
        self._door = door
        self._stream = stream
        self._protocol = protocol
        self._request: Request | None = None
        self._connected = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._serve: Callable[[Wire], Awaitable[None]] | None = None

    def claim(self, serve: Callable[[Wire], Awaitable[None]]) -> None:
        """The route's side of the extension: who serves the wire after the upgrade."""
        self._serve = serve

    async def run(self, head: bytes) -> None:
        """Answers the upgrade; if the route accepts it, serves the wire to its end."""
        protocol = self._protocol
        # What came behind the head waits: the protocol would answer it before the upgrade.
        end = head.index(b"\r\n\r\n") + 4
        early = head[end:]
        protocol.receive_data(head[:end])
        requests = [one for one in protocol.events_received() if isinstance(one, Request)]
        if not requests:
            # Too long a line, too many headers, or no HTTP at all.
            await self._send([b"".join(protocol.data_to_send()) or _BAD_REQUEST])
            await self._stream.aclose()
            return
        self._request = requests[0]
        response = protocol.accept(self._request)
        if response.status_code != 101:
            await self._reject(response)
            await self._stream.aclose()
            return
        self._response = response
        await self._door.app(self._scope(self._request), self._receive, self._answer)
        if self._serve is None:
            await self._stream.aclose()
            return
        # Connections last: what only the upgrade needed is not kept meanwhile.
        serve, self._request, self._headers = self._serve, None, []
        del self._response
        await serve(self._door.wire(self._stream, protocol, early))

    async def _reject(self, response: UpgradeResponse) -> None:
        """Refuses an upgrade that is not made as RFC 6455 §4.2.1 says, in the envelope."""
        assert self._request is not None
        wrong = self._protocol.handshake_exc
        field = wrong.name if isinstance(wrong, InvalidHeader) else "Upgrade"
        error = MessageInvalid.field(field, "is missing or not valid for an upgrade to WebSocket")
        path, _, query = self._request.path.partition("?")
        self._status = response.status_code
        self._headers = [
            (b"Content-Type", b"application/json"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Upgrade", b"websocket"),
        ]
        self._body = failure(request_line(path, query), self._door.clock.now_ms(), error)
        await self._refuse()

    def _scope(self, request: Request) -> dict[str, Any]:
        path, _, query = request.path.partition("?")
        return {
            "type": "websocket",
            "asgi": {"spec_version": "2.3", "version": "3.0"},
            "http_version": "1.1",
            "scheme": "wss" if self._door.secure else "ws",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode("latin-1", "replace"))
                for name, value in request.headers.raw_items()
            ],
            "client": _address(self._stream, "getpeername"),
            "server": _address(self._stream, "getsockname"),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}, WIRE_EXTENSION: self},
        }

    async def _receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def _answer(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "websocket.accept":
                for name, value in event.get("headers", ()):
                    self._response.headers[name.decode()] = value.decode()
                self._protocol.send_response(self._response)
                await self._send(self._protocol.data_to_send())
            case "websocket.http.response.start":
                self._status = event["status"]
                self._headers = list(event["headers"])
            case "websocket.http.response.body":
                self._body += event.get("body", b"")
                if not event.get("more_body", False):
                    await self._refuse()
            case "websocket.close" if self._serve is None:
                self._status, self._body = 403, b""
                await self._refuse()
            case _:
                pass  # the route returned; the wire is the gateway's now

    async def _refuse(self) -> None:
        skipped = (b"content-length", b"connection")
        lines = [f"HTTP/1.1 {self._status} Refused".encode()]
        lines += [b"%b: %b" % pair for pair in self._headers if pair[0].lower() not in skipped]
        lines += [f"content-length: {len(self._body)}".encode(), b"connection: close", b"", b""]
        await self._send([b"\r\n".join(lines) + self._body])

    async def _send(self, parts: Sequence[bytes]) -> None:
        try:
            await self._stream.send_all(b"".join(parts))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._serve = None


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
        limits: dict[str, Any] = {
            "backlog_limit_bytes": self._settings.backlog_limit_bytes,
            "remote": _address(stream, "getpeername")[0],
            "early": early,
        }
        if isinstance(stream, trio.SSLStream):
            return StreamWire(stream, protocol, self.nursery, self._metrics, **limits)
        return PumpedWire(self._pump, stream, protocol, self.nursery, self._metrics, **limits)

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
                head = await _read_head(stream)
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
        connection = HttpConnection(
            self._wrapped, self._config, self._context, ConnectionState({}), stream, head=head
        )
        self._open += 1
        try:
            await connection.run()
        finally:
            self._open -= 1

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


def is_upgrade(head: bytes) -> bool:
    """Whether a request's head asks for an upgrade to WebSocket, over HTTP/1.1."""
    whole, end, _ = head.partition(b"\r\n\r\n")
    line, *headers = whole.split(b"\r\n")
    if not (end and line.isascii() and line.startswith(b"GET ") and line.endswith(b" HTTP/1.1")):
        return False  # Hypercorn refuses what is no HTTP at all
    for header in headers:
        name, _, value = header.partition(b":")
        if name.strip().lower() == b"upgrade":
            return value.strip().lower() == b"websocket"
    return False


async def _read_head(stream: Stream) -> bytes:
    """The bytes up to the end of the first request's head, and maybe some more.

    What can't be the head of an upgrade is returned at once, however much of it has come.
    """
    data = bytearray()
    while True:
        chunk = await stream.receive_some(65_536)
        data += chunk
        beginning = b"GET "[: len(data)]
        if (
            not chunk
            or not data.startswith(beginning)
            or b"\r\n\r\n" in data
            or len(data) > HEAD_LIMIT
        ):
            return bytes(data)


def _address(stream: Stream, which: str) -> tuple[str, int]:
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    try:
        name = getattr(transport.socket, which)()
    except OSError:
        return ("", 0)
    return (name[0], name[1])
