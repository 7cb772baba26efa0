"""Connections of a gateway to one registry, and one exchange over such a connection.

The request's body and the answer's are streamed, each with backpressure, and at most one read of
each is in memory. While the body is sent, the connection also waits for the answer: a registry may
refuse a body before it has read all of it.

httpcore and httpx send the whole body before they read, and so lose such an answer. h11, which they
use too, parses and checks the protocol here.
"""

from __future__ import annotations

import select
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import h11
import trio
from quart.wrappers.response import ResponseBody

from api.http.answer import Answer
from api.http.bodies import Chunks
from api.listen.byte_stream import ClientGone
from reileta.concurrency import plain_nursery, undone_on_failure
from reileta.errors import ReiletaError
from reileta.roles import EtaUrl
from reileta.rules.gateway import is_hop_by_hop, named_by_connection
from reileta.settings import KIB
from reileta.startup import StartupError

CONNECT_S: Final = 2.0
ANSWER_S: Final = 60.0
"""Seconds in which an answer must begin, once the request was sent."""
PROGRESS_S: Final = 60.0
"""Seconds for each read of an answer, and for each write of a body."""
CONTINUE_S: Final = 1.0
"""Seconds for `100 Continue`; then the body is sent without it."""
LATE_ANSWER_S: Final = 2.0
"""Seconds for the answer of a registry that takes no more of the body."""
IDLE_S: Final = 30.0
IDLE_LIMIT: Final = 64
"""Idle connections to one registry. More are closed after their exchange."""
READ_BYTES: Final = 64 * KIB
"""Limit of one read of a head, and of a body of unknown length."""
BODY_READ_BYTES: Final = 256 * KIB
"""Limit of one read of a body of known length."""
SMALL_BYTES: Final = 64 * KIB
"""Answers up to this size are read whole, so that their connection is free at once."""
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_DROPPED: Final = frozenset({"date", "content-length"})

Headers = list[tuple[bytes, bytes]]


class UpstreamFailed(Exception):
    """The registry gave no answer.

    Attributes:
        sent: a part of the request may have reached it.
        unanswered: the connection ended before any byte of the answer had come.
        stale: and it was one that had been used before: the registry had closed it, as a rule.
    """

    def __init__(
        self, reason: str, *, sent: bool, unanswered: bool = False, stale: bool = False
    ) -> None:
        super().__init__(reason)
        self.sent = sent
        self.unanswered = unanswered
        self.stale = unanswered and stale


@dataclass(slots=True)
class UpstreamRequest:
    """A request to a registry.

    Attributes:
        headers: without those of the connection and of the body's length.
        body: None if it has none.
        length: bytes of the body; None: not known, so it is sent in chunks.
        expects_continue: the client sends the body only when it is asked to.
    """

    method: str
    target: bytes
    headers: Headers
    body: Callable[[], Chunks] | None = None
    length: int | None = None
    expects_continue: bool = False


class Registry:
    """A registry, with its connections.

    Attributes:
        outstanding: exchanges that are in progress.
    """

    def __init__(self, url: EtaUrl, tls: ssl.SSLContext | None) -> None:
        self.url = url
        self.outstanding = 0
        self._tls = tls if url.secure else None
        self._idle: deque[Connection] = deque()
        self._closed = False

    def __str__(self) -> str:
        return str(self.url)

    @property
    def authority(self) -> bytes:
        """Its host and port, as in a URL."""
        return str(self.url).partition("//")[2].encode()

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    async def exchange(self, request: UpstreamRequest) -> Answer:
        """Sends a request, and returns the answer, whose body may be still to come.

        Raises UpstreamFailed, and what reading the client's body raises.
        """
        connection = self._free_connection() or await self._connect()
        self.outstanding += 1
        with undone_on_failure(partial(connection.finished, reusable=False)):
            return await connection.exchange(request)

    def _free_connection(self) -> Connection | None:
        oldest = trio.current_time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and connection.is_alive():
                return connection
            connection.shut()
        return None

    async def _connect(self) -> Connection:
        try:
            with trio.fail_after(CONNECT_S):
                tcp = await trio.open_tcp_stream(self.url.host, self.url.port)
                stream = tcp if self._tls is None else await self._secured(tcp, self._tls)
        except (*_BROKEN, trio.TooSlowError, ssl.SSLError) as error:
            raise UpstreamFailed(f"can't be reached: {error!r}", sent=False) from error
        return Connection(self, stream, tcp.socket)

    async def _secured(self, tcp: trio.SocketStream, tls: ssl.SSLContext) -> trio.abc.Stream:
        """The connection with TLS; it is closed if that fails."""
        stream = trio.SSLStream(tcp, tls, server_hostname=self.url.host, https_compatible=True)
        with undone_on_failure(tcp.socket.close):
            await stream.do_handshake()
        return stream

    def finished(self, connection: Connection, *, reusable: bool) -> None:
        """An exchange has ended."""
        self.outstanding -= 1
        if not reusable or self._closed or len(self._idle) >= IDLE_LIMIT:
            connection.shut()
            return
        connection.idle_since = trio.current_time()
        self._idle.append(connection)

    def close(self) -> None:
        """Closes the idle connections, and from now on each one after its exchange."""
        self._closed = True
        while self._idle:
            self._idle.pop().shut()


class Connection:
    """One connection to a registry, which serves one exchange at a time."""

    def __init__(
        self, registry: Registry, stream: trio.abc.Stream, sock: trio.socket.SocketType
    ) -> None:
        self.idle_since = 0.0
        self._registry = registry
        self._stream = stream
        self._sock = sock
        self._used = False
        self._busy = False

    def is_alive(self) -> bool:
        """Whether the registry has neither closed the idle connection nor sent anything."""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    def shut(self) -> None:
        """Closes the socket at once."""
        with suppress(RuntimeError):  # the event loop has ended, and the process ends
            self._sock.close()

    def finished(self, *, reusable: bool) -> None:
        """The exchange has ended."""
        if self._busy:
            self._busy = False
            self._registry.finished(self, reusable=reusable)

    # One exchange ------------------------------------------------------------------------------

    async def exchange(self, request: UpstreamRequest) -> Answer:
        """As `Registry.exchange`."""
        self._busy = True
        stale, self._used = self._used, True
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * KIB)
        answer = _Answering(self._stream, protocol)
        try:
            await self._send_head(protocol, request)
            if request.body is None:
                await self._send(protocol.send(h11.EndOfMessage()))
                with trio.fail_after(ANSWER_S):
                    response = await answer.head()
                whole = True
            else:
                response, whole = await self._send_body(protocol, request, answer)
        except (*_BROKEN, ssl.SSLError, trio.TooSlowError, h11.ProtocolError) as error:
            ended = not isinstance(error, trio.TooSlowError)
            raise UpstreamFailed(
                f"gave no answer: {error!r}",
                sent=True,
                unanswered=ended and not answer.begun,
                stale=stale,
            ) from error
        return await self._answer(request, response, answer, reusable=whole)

    async def _send_head(self, protocol: h11.Connection, request: UpstreamRequest) -> None:
        headers = list(request.headers)
        if request.body is not None:
            if request.length is None:
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                headers.append((b"content-length", b"%d" % request.length))
            if request.expects_continue:
                headers.append((b"expect", b"100-continue"))
        await self._send(
            protocol.send(
                h11.Request(method=request.method, target=request.target, headers=headers)
            )
        )

    async def _send(self, data: bytes | None) -> None:
        if data:
            with trio.fail_after(PROGRESS_S):
                await self._stream.send_all(data)

    async def _send_body(
        self, protocol: h11.Connection, request: UpstreamRequest, answer: _Answering
    ) -> tuple[h11.Response, bool]:
        """Sends the body, and waits for the answer meanwhile. Returns its head, and whether the
        whole body was sent."""
        failure: Exception | None = None
        whole = False
        limit_s = trio.CancelScope()

        async def send(scope: trio.CancelScope) -> None:
            nonlocal failure, whole
            try:
                if request.expects_continue:
                    with trio.move_on_after(CONTINUE_S):
                        await answer.may_continue.wait()
                assert request.body is not None
                async for chunk in request.body():
                    await self._send(protocol.send(h11.Data(data=bytes(chunk))))
                await self._send(protocol.send(h11.EndOfMessage()))
            except (*_BROKEN, ssl.SSLError, trio.TooSlowError):
                # It takes no more: its answer, if there is one, says why.
                limit_s.deadline = trio.current_time() + LATE_ANSWER_S
                return
            except ReiletaError as error:
                failure = error
                scope.cancel()
                return
            whole = True
            limit_s.deadline = trio.current_time() + ANSWER_S

        response: h11.Response | None = None
        async with plain_nursery() as nursery:
            nursery.start_soon(send, nursery.cancel_scope)
            with limit_s:
                response = await answer.head()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if response is None:
            raise trio.TooSlowError
        return response, whole

    async def _answer(
        self,
        request: UpstreamRequest,
        response: h11.Response,
        answer: _Answering,
        *,
        reusable: bool,
    ) -> Answer:
        headers, length = _headers_of(response)
        status = response.status_code
        bodiless = request.method == "HEAD" or status in (204, 304)
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        body = UpstreamBody(
            answer,
            0 if bodiless else length,
            self,
            reusable=reusable and answer.keeps_open(response),
        )
        if bodiless or (length is not None and length <= SMALL_BYTES):
            try:
                content = b"".join([part async for part in body])
            except ClientGone as gone:
                raise UpstreamFailed("broke its answer off", sent=True) from gone
            return Answer(status, headers, content)
        return Answer(status, headers, body)


class _Answering:
    """The answer's side of an exchange."""

    def __init__(self, stream: trio.abc.Stream, protocol: h11.Connection) -> None:
        self.begun = False
        """A byte of the answer has come."""
        self.may_continue = trio.Event()
        self._stream = stream
        self._protocol = protocol
        self._early: bytes | None = None
        """Data that came with the head, or behind the last chunk."""

    async def _event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            data = await self._stream.receive_some(READ_BYTES)
            self.begun = self.begun or bool(data)
            self._protocol.receive_data(bytes(data))
        return event

    async def head(self) -> h11.Response:
        """The head of the answer."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                self.may_continue.set()
                return event
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 100:
                    self.may_continue.set()
                continue
            raise h11.RemoteProtocolError("closed without an answer")

    def keeps_open(self, response: h11.Response) -> bool:
        """Whether the registry keeps the connection open after the answer."""
        tokens = named_by_connection(
            value.decode("latin-1") for name, value in response.headers if name == b"connection"
        )
        return response.http_version == b"1.1" and "close" not in tokens

    async def part(self, left: int | None) -> bytes:
        """The next part of the body; empty at its end. `left`: bytes that are still to come; None
        if only the protocol knows."""
        if left is None:
            event = await self._event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                raise h11.RemoteProtocolError("broke its answer off")
            left = 0
        # Without the parser, which would copy each part twice.
        if self._early is None:
            self._early, _ = self._protocol.trailing_data
        data, self._early = self._early, b""
        if len(data) > left:
            raise h11.RemoteProtocolError("sent more than its answer")
        if left and not data:
            data = bytes(await self._stream.receive_some(min(BODY_READ_BYTES, left)))
            if not data:
                raise h11.RemoteProtocolError("broke its answer off")
        return data


class UpstreamBody(ResponseBody):
    """The body of an answer, read from its connection while it is sent to the client.

    If the registry breaks it off, so does the connection to the client (`ClientGone`): nothing else
    tells a client that an answer is not complete.
    """

    def __init__(
        self, answer: _Answering, left: int | None, connection: Connection, *, reusable: bool
    ) -> None:
        self._answer = answer
        self._left = left
        self._connection = connection
        self._reusable = reusable
        self._open = True

    def __aiter__(self) -> UpstreamBody:
        return self

    async def __anext__(self) -> bytes:
        try:
            with trio.fail_after(PROGRESS_S):
                part = await self._answer.part(self._left)
        except (*_BROKEN, ssl.SSLError, trio.TooSlowError, h11.ProtocolError) as error:
            self._end(reusable=False)
            raise ClientGone from error
        if not part:
            self._end(reusable=self._reusable)
            raise StopAsyncIteration
        if self._left is not None:
            self._left -= len(part)
        return part

    def _end(self, *, reusable: bool) -> None:
        if self._open:
            self._open = False
            self._connection.finished(reusable=reusable)

    async def __aenter__(self) -> UpstreamBody:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._end(reusable=False)  # does nothing after the last part

    def __del__(self) -> None:
        # A connection that ends before it sends the answer never enters the body.
        self._end(reusable=False)


def _headers_of(response: h11.Response) -> tuple[Headers, int | None]:
    """The answer's headers for the client, and the length of the body."""
    pairs = [(name.decode("latin-1"), value) for name, value in response.headers]
    named = named_by_connection(
        value.decode("latin-1") for name, value in pairs if name == "connection"
    )
    lengths = [value for name, value in pairs if name == "content-length"]
    headers = [
        (name.encode("latin-1"), bytes(value))
        for name, value in pairs
        if not is_hop_by_hop(name) and name not in named and name not in _DROPPED
    ]
    return headers, int(lengths[0]) if lengths else None


def tls_context(authorities: Path | None = None) -> ssl.SSLContext:
    """The context for registries with `https://`: their certificates must be valid, and signed by
    one of these; None: by one that the system trusts. Raises StartupError."""
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:  # also if it holds no certificate
        raise StartupError(f"{authorities} must hold certificates (PEM): {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
