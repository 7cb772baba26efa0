"""The listening port: plain or TLS, HTTP/1.1, HTTP/2 and WebSocket.

One task owns each connection. It takes a slot (`Admission`), and always gives it back at the end.
While the connection speaks HTTP, all of its work runs in one cancel scope, which is cancelled at a
deadline, when the client hangs up, and when the server stops.

Any request of a connection can upgrade it to WebSocket. Then a `Transport` serves it.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
import trio
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from actors.delivery.pacing import CoreLoad
from actors.runtime.background import BackgroundTasks
from actors.runtime.failures import capture_failure
from actors.runtime.rounds import Rounds
from api.listen.admission import Admission, Verdict
from api.listen.byte_stream import (
    ByteStream,
    HangupWatch,
    PlainStream,
    TlsStream,
    TlsTransport,
)
from api.listen.exchange import App, HttpConnection, Listening, Peer
from api.listen.gateways import TrustedGateways
from api.listen.http1 import Http1Connection
from api.listen.http2 import Http2Connection
from api.listen.request_head import RequestHead
from api.listen.timeouts import Timeouts
from api.listen.turns import SHARE
from api.listen.upgrade import Serve, Upgrade
from api.ws.transport.base import Transport, Upgraded, free
from api.ws.transport.tcp import EpollReader, EpollTransport
from api.ws.transport.tls import StreamTransport
from reileta.observability.log_events import CONNECTION_FAILED, CONNECTIONS_LIMITED
from reileta.observability.metrics import Metrics
from reileta.settings import KIB, Settings
from reileta.startup import connections_that_fit

BACKLOG: Final = 1024
SEND_BUFFER: Final = 256 * KIB
"""The system's send buffer of a WebSocket: large enough for bursts, and small enough that a slow
client does not read data that is long out of date."""
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True, client_max_window_bits=12
)

_log = structlog.get_logger()
_quiet = logging.getLogger("reileta.websockets")
_quiet.setLevel(logging.ERROR)


async def open_listeners(settings: Settings) -> tuple[list[trio.SocketListener], int]:
    """The listening sockets and their port. Raises OSError if the address is not available."""
    if _all_addresses(settings.host):
        listeners = await _open_dual_stack(settings.port)
    else:
        listeners = await trio.open_tcp_listeners(
            settings.port, host=settings.host, backlog=BACKLOG
        )
    return listeners, listeners[0].socket.getsockname()[1]


def _all_addresses(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 6 and address.is_unspecified


async def _open_dual_stack(port: int) -> list[trio.SocketListener]:
    """Listens on all addresses of both IPv6 and IPv4. Trio's own listeners take only IPv6.

    On a machine without IPv6 it listens on those of IPv4.
    """
    try:
        sock = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return await trio.open_tcp_listeners(port, host="0.0.0.0", backlog=BACKLOG)  # noqa: S104
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        await sock.bind(("::", port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRNOTAVAIL:  # IPv6 is there, but turned off
            raise
        return await trio.open_tcp_listeners(port, host="0.0.0.0", backlog=BACKLOG)  # noqa: S104
    return [trio.SocketListener(sock)]


def plain_address(host: str) -> str:
    """An IPv4 address that a socket of both families reports as `::ffff:192.0.2.1`, as IPv4."""
    return host.removeprefix("::ffff:") if "." in host else host


class HttpServer:
    """The listening port and its connections.

    Args:
        app: answers requests, and accepts upgrades.
        timeouts: time limits of connections; by default from the settings.
        background: supervises the loops of the port.
        gateways: for a registry behind gateways, which of their headers it believes.
        rounds: what the actors handle at once while sockets are read.
        load: how busy the core is.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        metrics: Metrics,
        timeouts: Timeouts | None = None,
        background: BackgroundTasks | None = None,
        gateways: TrustedGateways | None = None,
        rounds: Rounds | None = None,
        load: CoreLoad | None = None,
    ) -> None:
        if timeouts is None:
            timeouts = Timeouts(idle_s=settings.http_idle_s)
        self._settings = settings
        self._metrics = metrics
        self._timeouts = timeouts
        limited = settings.rate_limits == "on" and settings.connections_per_address > 0
        total = connections_that_fit(settings.connections)
        if total < settings.connections:
            _log.warning(CONNECTIONS_LIMITED, connections=total, wanted=settings.connections)
        self.admission = Admission(total, settings.connections_per_address if limited else None)
        self._listening = Listening(
            app, settings, timeouts, admission=self.admission, gateways=gateways
        )
        self._tls = _tls_context(settings)
        self._background = background or BackgroundTasks()
        self._nursery: trio.Nursery | None = None
        self._accepting = trio.CancelScope()
        self._epoll_reader = EpollReader(rounds, load)
        self._hangups = HangupWatch()
        self._connections: set[HttpConnection] = set()

    @property
    def http_connections(self) -> int:
        """Number of connections that speak HTTP, without WebSockets."""
        return len(self._connections)

    async def serve(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Accepts and serves connections until cancelled."""
        try:
            async with trio.open_nursery() as connections:
                self._nursery = connections
                for name, loop in (
                    ("reader", self._epoll_reader.run),
                    ("hangups", self._hangups.run),
                    ("deadlines", self._watch_deadlines),
                    ("turns", self._listening.turns.run),
                ):
                    self._background.run(connections, name, loop)
                with _kept(listeners) as kept:
                    with self._accepting:
                        await trio.serve_listeners(
                            self._contained, list(listeners), handler_nursery=connections
                        )
                    for stream in _waiting(kept):
                        connections.start_soon(self._contained, stream)
                await trio.sleep_forever()
        finally:
            self._epoll_reader.close()
            self._hangups.close()

    def reload_tls(self) -> None:
        """Reads the TLS files again, for new connections. Raises OSError, and then changes
        nothing."""
        self._tls = _tls_context(self._settings)

    def stop_accepting(self) -> None:
        """Accepts no more connections. Open connections stay open, and so do those that wait to be
        accepted."""
        self._accepting.cancel()

    async def finish_requests(self) -> None:
        """Closes idle HTTP connections, and waits for requests in progress."""
        self._listening.stopping = True
        for connection in tuple(self._connections):
            connection.drain()
        await self._until_ended()

    async def refuse_requests(self) -> None:
        """Cancels the requests in progress, and answers each with an error."""
        for connection in tuple(self._connections):
            connection.give_up()
        await self._until_ended()

    async def _until_ended(self) -> None:
        while self._connections:  # noqa: ASYNC110  # once in a process' life
            await trio.sleep(0.02)

    async def _watch_deadlines(self) -> None:
        """Closes connections at their deadlines."""
        connection: HttpConnection | None
        while True:
            await trio.sleep(self._timeouts.tick_s)
            now = trio.current_time()
            for connection in tuple(self._connections):
                if connection.expires_at <= now:
                    connection.expire()
            connection = None  # don't keep it alive while this sleeps

    # One connection ----------------------------------------------------------------------------

    async def _contained(self, stream: trio.SocketStream) -> None:
        """Serves one connection. An exception ends only this connection."""
        failure = await capture_failure(partial(self._connection, stream))
        if failure is not None:
            _log.error(CONNECTION_FAILED, exc_info=failure)

    async def _connection(self, stream: trio.SocketStream) -> None:
        """Serves one connection from its first byte to its last."""
        try:
            host, port = stream.socket.getpeername()[:2]
            host = plain_address(host)
            own = stream.socket.getsockname()[:2]
        except OSError:  # the client has gone already
            stream.socket.close()
            return
        proxy = self._listening.proxies.trusted.trusts(host)
        admission = self.admission
        slot = admission.enter_proxy(host, port) if proxy else admission.enter(host)
        try:
            if slot.verdict is Verdict.DROPPED:
                stream.socket.close()
                return
            peer = Peer(
                host,
                port,
                (plain_address(own[0]), own[1]),
                slot.verdict,
                slot.network,
                "https" if self._settings.secure else "http",
                proxy=proxy,
            )
            await self._serve(stream, peer)
        finally:
            self.admission.leave(slot)

    async def _serve(self, socket_stream: trio.SocketStream, peer: Peer) -> None:
        stream: ByteStream
        if self._tls is None:
            stream = PlainStream(_raw(socket_stream), self._timeouts)
        else:
            stream = TlsStream(self._tls_stream(socket_stream, self._tls, peer), self._timeouts)
        early = b""
        serve: Serve | None = None
        protocol: ServerProtocol | None = None
        client: Peer | None = None
        try:
            upgrading = await self._http(stream, peer)
            if upgrading is None:
                return
            head, early = upgrading
            deflate = [_DEFLATE] if self._settings.deflate else []
            protocol = ServerProtocol(
                extensions=deflate, max_size=self._settings.message_limit_bytes, logger=_quiet
            )
            # Without a checkpoint since the connection has checked the client's share.
            client = self._listening.enter(peer, head)
            upgrade = Upgrade(self._listening, stream, client, protocol)
            with self._watched(upgrade, stream):
                await upgrade.run(head)
            serve = upgrade.claimed
            del head, upgrading, upgrade
        finally:
            if serve is None:
                stream.close()
                if protocol is not None:
                    free(protocol)
                if client is not None:
                    self._listening.leave(client)
        if serve is None:
            return
        assert protocol is not None
        assert client is not None
        share = client.share
        transport = self._transport(stream, protocol, client, early)
        # Connections live long: free the objects that only the upgrade needed.
        del stream, protocol, peer, client, early
        try:
            await serve(transport)
        finally:
            if share is not None:
                self.admission.leave(share)

    async def _http(self, stream: ByteStream, peer: Peer) -> tuple[RequestHead, bytes] | None:
        """Serves a connection while it speaks HTTP. Returns the head of a request for an upgrade
        to WebSocket and the data behind it; None at the end of the connection."""
        if isinstance(stream, TlsStream) and not await self._handshake(stream, peer):
            return None
        if isinstance(stream, TlsStream) and stream.speaks_http2:
            await self._http2(stream, peer, b"")
            return None
        connection = Http1Connection(self._listening, stream, peer)
        head = await self._run(connection, stream)
        if head is not None and head.websocket:
            return head, bytes(connection.buffer)
        if head is not None:
            await self._http2(stream, peer, bytes(connection.buffer))
        else:
            await stream.finish()
        return None

    async def _http2(self, stream: ByteStream, peer: Peer, early: bytes) -> None:
        """Serves an HTTP/2 connection to its end. Setting it up costs several turns."""
        await self._listening.turns.take(peer.network, SHARE)
        await self._run(Http2Connection(self._listening, stream, peer, early), stream)
        await stream.finish()

    def _tls_stream(
        self, stream: trio.SocketStream, context: ssl.SSLContext, peer: Peer
    ) -> trio.SSLStream[TlsTransport]:
        """TLS over a connection. It takes a turn for each record that it reads."""
        transport = TlsTransport(stream, partial(self._listening.turns.take, peer.network))
        return trio.SSLStream(transport, context, server_side=True, https_compatible=True)

    async def _handshake(self, stream: TlsStream, peer: Peer) -> bool:
        """Does the TLS handshake. Returns whether it succeeded in time."""
        try:
            with trio.fail_after(self._timeouts.handshake_s):
                # The expensive step begins with the client's first bytes.
                await trio.lowlevel.wait_readable(stream.stream.transport_stream.socket)
                await self._listening.turns.take(peer.network, SHARE)
                await stream.stream.do_handshake()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return False
        finally:
            stream.forget_handshake()
        return True

    async def _run(
        self, connection: Http1Connection | Http2Connection, stream: ByteStream
    ) -> RequestHead | None:
        """Runs a connection under its deadlines, until it ends or changes its protocol."""
        head: RequestHead | None = None
        with self._watched(connection, stream):
            head = await connection.run()
        return head  # noqa: RET504 - None where its scope was cancelled

    @contextmanager
    def _watched(self, connection: HttpConnection, stream: ByteStream) -> Iterator[None]:
        """Cancels a connection's work at its deadline, or when the client hangs up."""
        descriptor = stream.fileno()
        self._hangups.add(descriptor, connection.hung_up)
        self._connections.add(connection)
        try:
            with connection.scope:
                yield
        finally:
            self._hangups.remove(descriptor)
            self._connections.discard(connection)

    def _transport(
        self, stream: ByteStream, protocol: ServerProtocol, peer: Peer, early: bytes
    ) -> Transport:
        """The fastest transport for that connection. `early` is data that was already read."""
        assert self._nursery is not None
        # The first parser keeps the request of the handshake for as long as it runs.
        protocol.parser.close()
        protocol.parser = Protocol.parse(protocol)
        next(protocol.parser)
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
        if isinstance(stream, TlsStream):
            stream.stream.transport_stream.socket.setsockopt(
                trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, SEND_BUFFER
            )
            return StreamTransport(stream.data, upgraded)
        assert isinstance(stream, PlainStream)
        sock = stream.release()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        return EpollTransport(self._epoll_reader, sock, upgraded)


@contextmanager
def _kept(listeners: Sequence[trio.SocketListener]) -> Iterator[list[socket.socket]]:
    """The listening sockets, open until the end of the body though `trio.serve_listeners` closes
    its own: the system would reset the connections that wait to be accepted."""
    kept = [socket.socket(fileno=os.dup(listener.socket.fileno())) for listener in listeners]
    try:
        yield kept
    finally:
        for sock in kept:
            sock.close()


def _waiting(listening: Sequence[socket.socket]) -> Iterator[trio.SocketStream]:
    """Accepts the connections that wait to be accepted, and no later ones."""
    for sock in listening:
        sock.setblocking(False)
        for _ in range(BACKLOG):
            try:
                accepted, _address = sock.accept()
            except OSError:  # none waits any more, or the process has no descriptor left
                break
            yield trio.SocketStream(trio.socket.from_stdlib_socket(accepted))


def _raw(stream: trio.SocketStream) -> socket.socket:
    """Detaches the socket from its stream."""
    return socket.socket(fileno=stream.socket.detach())


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    # Without a password, OpenSSL would ask for one on the terminal, and stop the server meanwhile.
    context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    return context
