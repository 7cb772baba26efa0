"""The listening port: plain or TLS, HTTP/1.1, HTTP/2 and WebSocket.

Every connection is owned by one task, which takes a place (`Admission`) and gives it back when it
ends, however it ends. While it speaks HTTP, one cancel scope holds all that is done for it; that
scope is cancelled by its deadline, by the client's going, or when the server stops.

A WebSocket is served by our own wires alone, on whichever request of a connection it begins.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
import trio
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from actors.runtime.failures import capture_failure
from api.listen.admission import Admission, Verdict
from api.listen.byte_stream import (
    ByteStream,
    HangupWatch,
    PlainStream,
    TlsStream,
    TlsTransport,
)
from api.listen.exchange import App, HttpConnection, Listening, Peer
from api.listen.http1 import Http1Connection
from api.listen.http2 import Http2Connection
from api.listen.request_head import RequestHead
from api.listen.timeouts import Timeouts
from api.listen.turns import SHARE
from api.listen.upgrade import Serve, Upgrade
from api.ws.transport.base import Transport, Upgraded
from api.ws.transport.epoll import EpollReader, EpollTransport
from api.ws.transport.transports import StreamTransport
from reileta.observability.log_events import CONNECTION_FAILED, CONNECTIONS_LIMITED
from reileta.observability.metrics import Metrics
from reileta.settings import KIB, Settings
from reileta.startup import connections_that_fit

BACKLOG: Final = 1024
SEND_BUFFER: Final = 256 * KIB
"""What the system buffers for a WebSocket: enough for bursts, and little enough that what a slow
client is sent is not long out of date when it reads it."""
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_max_window_bits=12
)

_log = structlog.get_logger()
_quiet = logging.getLogger("reileta.websockets")
_quiet.setLevel(logging.ERROR)


async def open_listeners(settings: Settings) -> tuple[list[trio.SocketListener], int]:
    """The listening sockets, and their port. Raises OSError when the address can't be had."""
    listeners = await trio.open_tcp_listeners(settings.port, host=settings.host, backlog=BACKLOG)
    return listeners, listeners[0].socket.getsockname()[1]


class HttpServer:
    """The listening port and its connections.

    Args:
        app: answers requests, and accepts upgrades.
        timeouts: how long connections wait; by default as the settings say.
    """

    def __init__(
        self, app: App, settings: Settings, metrics: Metrics, timeouts: Timeouts | None = None
    ) -> None:
        chosen = Timeouts(idle_s=settings.http_idle_s) if timeouts is None else timeouts
        self._listening = Listening(app, settings, chosen)
        self._settings = settings
        self._metrics = metrics
        self._timeouts = chosen
        limited = settings.rate_limits == "on" and settings.connections_per_address > 0
        total = connections_that_fit(settings.connections)
        if total < settings.connections:
            _log.warning(CONNECTIONS_LIMITED, connections=total, wanted=settings.connections)
        self.admission = Admission(total, settings.connections_per_address if limited else None)
        self._tls = _tls_context(settings)
        self._nursery: trio.Nursery | None = None
        self._accepting = trio.CancelScope()
        self._pump = EpollReader()
        self._hangups = HangupWatch()
        self._connections: set[HttpConnection] = set()

    @property
    def http_connections(self) -> int:
        """Connections that speak HTTP now; WebSockets are not among them."""
        return len(self._connections)

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serves what comes in until cancelled. `stop_accepting` leaves open connections open."""
        async with trio.open_nursery() as connections:
            self._nursery = connections
            connections.start_soon(self._pump.run)
            connections.start_soon(self._hangups.run)
            connections.start_soon(self._watch_deadlines)
            connections.start_soon(self._listening.turns.run)
            with self._accepting:
                await trio.serve_listeners(
                    self._contained, list(listeners), handler_nursery=connections
                )
            await trio.sleep_forever()

    def stop_accepting(self) -> None:
        """Takes no more connections; those that are open go on."""
        self._accepting.cancel()

    async def finish_requests(self) -> None:
        """Has idle HTTP connections closed, and waits for requests under way."""
        self._listening.stopping = True
        for connection in tuple(self._connections):
            connection.drain()
        while self._connections:  # noqa: ASYNC110  # once in a process' life
            await trio.sleep(0.02)

    async def _watch_deadlines(self) -> None:
        """Gives up connections whose clients keep them waiting."""
        connection: HttpConnection | None
        while True:
            await trio.sleep(self._timeouts.tick_s)
            now = trio.current_time()
            for connection in tuple(self._connections):
                if connection.expires_at <= now:
                    connection.scope.cancel()
            connection = None  # it may end while this sleeps

    # One connection ----------------------------------------------------------------------------

    async def _contained(self, stream: trio.SocketStream) -> None:
        """One connection, whose failure is its own."""
        failure = await capture_failure(partial(self._connection, stream))
        if failure is not None:
            _log.error(CONNECTION_FAILED, exc_info=failure)

    async def _connection(self, stream: trio.SocketStream) -> None:
        """One connection, from its first byte to its last."""
        try:
            host, port = stream.socket.getpeername()[:2]
            own = stream.socket.getsockname()[:2]
        except OSError:  # it has gone already
            stream.socket.close()
            return
        slot = self.admission.enter(host)
        try:
            if slot.verdict is Verdict.DROPPED:
                stream.socket.close()
                return
            peer = Peer(host, port, (own[0], own[1]), slot.verdict, slot.network)
            await self._serve(stream, peer)
        finally:
            self.admission.leave(slot)

    async def _serve(self, stream: trio.SocketStream, peer: Peer) -> None:
        transport: ByteStream
        if self._tls is None:
            transport = PlainStream(_raw(stream), self._timeouts)
        else:
            transport = TlsStream(
                self._secured(stream, self._tls, peer),
                self._timeouts,
            )
        early = b""
        serve: Serve | None = None
        protocol: ServerProtocol | None = None
        try:
            found = await self._http(transport, peer)
            if found is None:
                return
            head, early = found
            deflate = [_DEFLATE] if self._settings.deflate else []
            protocol = ServerProtocol(
                extensions=deflate, max_size=self._settings.message_limit_bytes, logger=_quiet
            )
            upgrade = Upgrade(self._listening, transport, peer, protocol)
            with self._watched(upgrade, transport):
                await upgrade.run(head)
            serve = upgrade.claimed
            del head, found, upgrade
        finally:
            if serve is None:
                transport.close()
        if serve is None:
            return
        assert protocol is not None
        wire = self._wire(transport, protocol, peer, early)
        del transport, protocol, peer, early
        # Connections last: what only the upgrade needed is not kept meanwhile.
        await serve(wire)

    async def _http(self, transport: ByteStream, peer: Peer) -> tuple[RequestHead, bytes] | None:
        """Serves a connection while it speaks HTTP. Returns the head of a request for an upgrade
        to WebSocket, and what came behind it; None at the connection's end."""
        if isinstance(transport, TlsStream) and not await self._handshake(transport, peer):
            return None
        if isinstance(transport, TlsStream) and transport.speaks_http2:
            await self._http2(transport, peer, b"")
            return None
        connection = Http1Connection(self._listening, transport, peer)
        head = await self._run(connection, transport)
        if head is not None and head.websocket:
            return head, bytes(connection.buffer)
        if head is not None:
            await self._http2(transport, peer, bytes(connection.buffer))
        else:
            await transport.finish()
        return None

    async def _http2(self, transport: ByteStream, peer: Peer, early: bytes) -> None:
        """Serves a connection that speaks HTTP/2 to its end. Making one costs a few steps."""
        await self._listening.turns.take(peer.network, SHARE)
        await self._run(Http2Connection(self._listening, transport, peer, early), transport)
        await transport.finish()

    def _secured(
        self, stream: trio.SocketStream, context: ssl.SSLContext, peer: Peer
    ) -> trio.SSLStream[TlsTransport]:
        """TLS over a connection, which takes a turn for each piece that it reads."""
        transport = TlsTransport(stream, partial(self._listening.turns.take, peer.network))
        return trio.SSLStream(transport, context, server_side=True, https_compatible=True)

    async def _handshake(self, transport: TlsStream, peer: Peer) -> bool:
        """Whether the client can speak TLS, in time."""
        try:
            with trio.fail_after(self._timeouts.handshake_s):
                # The costly step comes with the client's first bytes.
                await trio.lowlevel.wait_readable(transport.stream.transport_stream.socket)
                await self._listening.turns.take(peer.network, SHARE)
                await transport.stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        return True

    async def _run(
        self, connection: Http1Connection | Http2Connection, transport: ByteStream
    ) -> RequestHead | None:
        """Runs a connection under its deadlines, until it ends or asks for something else."""
        head: RequestHead | None = None
        with self._watched(connection, transport):
            head = await connection.run()
        return head  # noqa: RET504 - None where its scope was cancelled

    @contextmanager
    def _watched(self, connection: HttpConnection, transport: ByteStream) -> Iterator[None]:
        """Ends what is done for a connection at its deadline, or when its client has gone."""
        descriptor = transport.fileno()
        self._connections.add(connection)
        self._hangups.add(descriptor, connection.hung_up)
        try:
            with connection.scope:
                yield
        finally:
            self._hangups.remove(descriptor)
            self._connections.discard(connection)

    def _wire(
        self, transport: ByteStream, protocol: ServerProtocol, peer: Peer, early: bytes
    ) -> Transport:
        """The fastest wire for that connection; `early` was read of it already."""
        assert self._nursery is not None
        upgraded = Upgraded(
            protocol,
            self._nursery,
            self._metrics,
            backlog_limit_bytes=self._settings.backlog_limit_bytes,
            remote=peer.network,
            early=early,
            over_limit=peer.verdict is Verdict.FULL,
            take_turn=partial(self._listening.turns.take, peer.network),
        )
        if isinstance(transport, TlsStream):
            transport.stream.transport_stream.socket.setsockopt(
                trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER
            )
            return StreamTransport(transport.data, upgraded)
        assert isinstance(transport, PlainStream)
        sock = transport.release()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        return EpollTransport(self._pump, sock, upgraded)


def _raw(stream: trio.SocketStream) -> socket.socket:
    """The socket itself, of which the stream knows nothing any more."""
    return socket.socket(fileno=stream.socket.detach())


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context
