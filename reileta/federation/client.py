"""The HTTP client for requests to other servers, which never reach an internal address.

Peers and users choose the names of servers, so nothing that they choose is trusted:

- URLs are built from a canonical address and a path, never taken from anyone.
- A name is resolved once. Each of its addresses must pass (`rules/federation/networks.py`); then
  the client connects to one of those addresses, and never resolves again. So a name that has
  another address the next time (DNS rebinding) gains nothing.
- TLS proves the name, with the certificate authorities of the system. Only servers that a setting
  names are reached without TLS.
- A redirect is an error. Proxies of the environment, cookies and compression are not used.
- A connection is used again only if it brought exactly one answer. A second one would be taken as
  the answer of the next request.
- The time of a request is bounded, and the size of the answer (`answer_bounds.py`), whatever the
  other server sends.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, ip_address
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import httpcore
import trio

from reileta.concurrency import undone_on_failure
from reileta.errors import BadData, BadRedirect, NoResponse
from reileta.federation.answer_bounds import BODY_BYTES, AnswerBounds
from reileta.federation.resolver import Resolve, Resolver
from reileta.rules.federation.addresses import canonical, ip_of, split
from reileta.rules.federation.networks import IPAddress, Networks, refusal, unmapped

TIMEOUT_S: Final = 5.0
"""Seconds for a whole request, with name, connection, TLS and body."""
CONNECT_S: Final = 1.5
"""Seconds for a connection to one address."""
TRIED_ADDRESSES: Final = 4
"""Addresses of one name that are tried."""
CONNECTIONS: Final = 96
"""Open connections. Requests beyond wait, within their time."""
IDLE_CONNECTIONS: Final = 32
IDLE_S: Final = 30.0
"""Seconds for which an idle connection is kept; shorter than those of a server, so that it does
not close a connection that is about to be used."""

USER_AGENT: Final = "AVR(Server)"
_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+/?|/")
_REDIRECTS: Final = range(300, 400)
_FIRST_FINAL: Final = 200
_VERSIONS: Final = frozenset({b"HTTP/1.0", b"HTTP/1.1"})

Own = Callable[[IPAddress, int], bool]
"""Whether a connection to that address and port would reach this server itself."""
Connect = Callable[[IPAddress, int], Awaitable[trio.abc.Stream]]
"""A connection to that address and port. Raises OSError."""


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """The answer of another server. Names of headers are in lower case, without `set-cookie`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class GuardedClient:
    """Sends requests to other servers. Connections are kept for further requests.

    Use it as an async context manager, or call `aclose`.

    Args:
        address: this server's own canonical address.
        own: recognises this server's own sockets.
        allowed: networks in which servers may be although they are not public.
        insecure: canonical addresses of servers that are reached without TLS.
        resolve: finds the addresses of a name. None: the system's resolver.
        connect: opens a connection. None: over TCP.
        tls: verifies certificates. None: with the certificate authorities of the system.
    """

    def __init__(
        self,
        *,
        address: str,
        own: Own,
        allowed: Networks,
        insecure: frozenset[str],
        resolve: Resolve | None = None,
        connect: Connect | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._insecure = insecure
        guard = _Guard(own, allowed, resolve or Resolver(), connect or open_tcp)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_system_tls() if tls is None else tls,
            max_connections=CONNECTIONS,
            max_keepalive_connections=IDLE_CONNECTIONS,
            keepalive_expiry=IDLE_S,
            http2=False,
            network_backend=guard,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes all connections. No request may be under way."""
        await self._pool.aclose()

    def secure(self, server: str) -> bool:
        """Whether the server at that canonical address is reached over TLS."""
        return server not in self._insecure

    async def request(
        self,
        method: str,
        server: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> RemoteAnswer:
        """Sends one request, and returns the answer, of whatever status.

        Args:
            server: a canonical address.
            path: of quoted segments (`path_of`).
            headers: besides those that the client sets (`Host`, `User-Agent`, `Accept`).
            body: JSON; None for no body.

        Raises:
            NoResponse: refused by the guard, no address, no connection, wrong certificate, no
                answer in time. `cause` says which.
            BadRedirect: the answer is a redirect.
            BadData: the answer is too large, or not HTTP.
            ValueError: a path or a header is not valid, which is a defect of the caller.
        """
        url = self._url(server, path, query)
        sent = [("Host", server), ("User-Agent", USER_AGENT), ("Accept", "application/json")]
        sent += [("Accept-Encoding", "identity"), *(headers or {}).items()]
        if body is not None:
            sent += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        for name, value in sent:
            if not (f"{name}{value}".isascii() and f"{name}{value}".isprintable()):
                raise ValueError(f"the header {name} must be printable ASCII")
        request = httpcore.Request(method, url, headers=sent, content=_Body(body))
        try:
            with trio.fail_after(TIMEOUT_S):
                response = await self._pool.handle_async_request(request)
                try:
                    return await _read(response)
                finally:
                    await response.aclose()
        except trio.TooSlowError:
            raise NoResponse(cause=f"no answer within {TIMEOUT_S:g} s") from None
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            raise NoResponse(cause=str(error) or "connection lost") from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise BadData(cause=f"HTTP: {error}") from None

    def _url(self, server: str, path: str, query: Sequence[tuple[str, str]]) -> httpcore.URL:
        try:
            if canonical(server) != server:
                raise NoResponse(cause="the address is not canonical")
        except ValueError:
            raise NoResponse(cause="not the address of a server") from None
        if server == self._address:
            raise NoResponse(cause="the address is this server's own")
        if _PATH.fullmatch(path) is None:
            raise ValueError("path must be / and quoted segments")
        target = f"{path}?{urlencode(query)}" if query else path
        secure = self.secure(server)
        host, port = split(server)
        return httpcore.URL(
            scheme="https" if secure else "http",
            host=host.strip("[]"),
            port=port or (443 if secure else 80),
            target=target,
        )


class _Body:
    """The body of a request. Not a generator: if the request fails, one would be left half way, to
    be closed by the garbage collector."""

    def __init__(self, body: bytes | None) -> None:
        self._parts = [body] if body else []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._parts:
            raise StopAsyncIteration
        return self._parts.pop()


@cache
def _system_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def path_of(*segments: str) -> str:
    """The path of unquoted segments: `/api/users/u_…` for `"api", "users", "u_…"`.

    Raises ValueError if a segment is empty, `.` or `..`.
    """
    if not segments or not {"", ".", ".."}.isdisjoint(segments):
        raise ValueError("segments of a path must not be empty, . or ..")
    return "".join(f"/{quote(segment, safe='@:')}" for segment in segments)


async def _read(response: httpcore.Response) -> RemoteAnswer:
    if response.status in _REDIRECTS:
        raise BadRedirect(cause=f"status {response.status}")
    if response.status < _FIRST_FINAL:
        raise BadData(cause=f"status {response.status}")
    if response.extensions["http_version"] not in _VERSIONS:
        raise BadData(cause="not HTTP/1.1")
    headers = _headers(response.headers)
    if "content-length" in headers and "transfer-encoding" in headers:
        raise BadData(cause="both Content-Length and Transfer-Encoding")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadData(cause="the body is compressed")
    stream = response.extensions["network_stream"]
    assert isinstance(stream, _GuardedStream)
    stream.bounds.begin_body(chunked="transfer-encoding" in headers)
    body = await response.aread()
    if len(body) > BODY_BYTES:
        raise BadData(cause=f"the body is over {BODY_BYTES} bytes")
    # Only with a length is it known where the answer ends.
    exact = "content-length" in headers and stream.bounds.ends_with(len(body))
    stream.spent = not exact or await stream.has_more()
    return RemoteAnswer(response.status, headers, body)


def _headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name != "set-cookie":
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class _Guard(httpcore.AsyncNetworkBackend):
    """Opens connections, only to addresses that pass. Its NoResponse reaches the caller as is."""

    def __init__(self, own: Own, allowed: Networks, resolve: Resolve, connect: Connect) -> None:
        self._own = own
        self._allowed = allowed
        self._resolve = resolve
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        ip = ip_of(f"[{host}]" if ":" in host else host)
        if ip is None:
            addresses = [unmapped(address) for address in await self._resolve(host)]
        elif ip in self._allowed:
            addresses = [ip]
        else:
            raise NoResponse(cause="refused: the address of a server must be a name")
        # All of them, before the first connection: an address that must not be reached makes the
        # whole name suspicious.
        for address in addresses:
            reason = refusal(address, port, self._allowed)
            if reason is None and self._own(address, port):
                reason = "the address is this server's own"
            if reason is not None:
                raise NoResponse(cause=f"refused: {reason}")
        failure = "no address"
        for address in addresses[:TRIED_ADDRESSES]:
            try:
                with trio.fail_after(CONNECT_S):
                    return _GuardedStream(await self._connect(address, port))
            except trio.TooSlowError:
                failure = f"no connection within {CONNECT_S:g} s"
            except OSError as error:
                failure = error.strerror or "no connection"
        raise NoResponse(cause=failure)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise NoResponse(cause="refused: a Unix socket")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


async def open_tcp(ip: IPAddress, port: int) -> trio.SocketStream:
    """A connection to exactly that address. Raises OSError."""
    family = socket.AF_INET if isinstance(ip, IPv4Address) else socket.AF_INET6
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    with undone_on_failure(sock.close):
        await sock.connect((str(ip), port))
        peer = sock.getpeername()
        if (ip_address(peer[0]), peer[1]) != (ip, port) or peer == sock.getsockname():
            raise NoResponse(cause="refused: connected to another address")
        return trio.SocketStream(sock)


class _GuardedStream(httpcore.AsyncNetworkStream):
    """A connection that lets through a bounded answer to each request."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.bounds = AnswerBounds()
        """Those of the answer to the last request."""
        self.spent = False
        """Whether it may bring something that is not the answer to the next request."""

    async def has_more(self) -> bool:
        """Whether TLS has received something that was not read. Does not wait for more; what the
        socket has is seen before it is used again (`get_extra_info`)."""
        if not isinstance(self._stream, trio.SSLStream):
            return False
        transport = self._stream.transport_stream
        assert isinstance(transport, _Transport)
        transport.waits = False
        try:
            await self._stream.receive_some(1)
        except _NothingMore:
            return False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return True
        else:
            return True
        finally:
            transport.waits = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(min(max_bytes, self.bounds.read_bytes)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NoResponse(cause=_reason(error)) from None
        if not data and not self.bounds.received:
            raise NoResponse(cause="closed without an answer")
        self.bounds.admit(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.bounds = AnswerBounds()
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # httpcore then reads, since a server may answer before it has the whole request.
            raise httpcore.WriteError(_reason(error)) from None

    async def aclose(self) -> None:
        # Waits for nothing: a peer could otherwise hold up the closing.
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = trio.SSLStream(
            _Transport(self._stream),
            ssl_context,
            server_hostname=server_hostname,
            https_compatible=True,
        )
        secured = False
        try:
            await stream.do_handshake()
            secured = True
        except trio.BrokenResourceError as error:
            raise NoResponse(cause=f"TLS: {_reason(error)}") from None
        finally:
            if not secured:
                await trio.aclose_forcefully(stream)
        return _GuardedStream(stream)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection on which something comes was closed
            stream = self._stream
            plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            plain = plain.below if isinstance(plain, _Transport) else plain
            if self.spent:
                return True
            return isinstance(plain, trio.SocketStream) and plain.socket.is_readable()
        return None


class _NothingMore(Exception):
    """TLS would have to wait for more."""


class _Transport(trio.abc.Stream):
    """What is below TLS. Unless it `waits`, it receives nothing."""

    def __init__(self, below: trio.abc.Stream) -> None:
        self.below = below
        self.waits = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self.waits:
            raise _NothingMore
        return await self.below.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.below.aclose()


def _reason(error: trio.BrokenResourceError | trio.ClosedResourceError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate: {cause.verify_message}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return "connection lost"


class ListeningSockets:
    """Recognises connections that would reach this server itself.

    Args:
        names: address and port of each socket that the server listens on.
    """

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self._sockets = frozenset(
            (ip_address(host.partition("%")[0]), port) for host, port in names
        )

    def __call__(self, ip: IPAddress, port: int) -> bool:
        if (ip, port) in self._sockets:
            return True
        everywhere = any(
            own.is_unspecified and port == own_port and own.version in (6, ip.version)
            for own, own_port in self._sockets
        )
        return everywhere and _is_of_this_machine(ip)


def _is_of_this_machine(ip: IPAddress) -> bool:
    """Whether the system lets a socket have that address."""
    family = socket.AF_INET if isinstance(ip, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((str(ip), 0))
    except OSError:
        return False
    return True
