"""Request bodies with backpressure: read whole, or streamed in chunks.

Quart's own body buffers everything that the client sends. Here the client has to wait: until a
handler reads the body, at most `HELD_BYTES` are buffered. A handler reads the whole body up to the
limit of JSON bodies (`await body`), or one chunk at a time (`chunks`).

This server's connections fetch data when the handler asks for it (`receive_with`). An ASGI server,
such as the client of the tests, pushes data from a task beside the handler, and waits for `room`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import cached_property
from typing import Any, Final, Literal

import trio
from hypercorn.typing import ASGIReceiveCallable, HTTPScope
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest, TrioWebsocket
from quart_trio.wrappers.request import TrioBody
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge

from api.http.headers import BoundedHeaders
from reileta.errors import PayloadTooLarge, RequestTimedOut
from reileta.settings import KIB

HELD_BYTES: Final = 128 * KIB
"""Bytes of a body that wait for their handler. One read of the socket can come on top."""
PACE_BYTES: Final = 64 * KIB
PACE_S: Final = 20.0
"""A client must send `PACE_BYTES` of a streamed body per `PACE_S` seconds of waiting; otherwise the
request fails with 408. Else a client that sends a byte now and then could hold its slot forever."""


class ReceivedBody(TrioBody):
    """The body of one request. `whole` is set when all of it has been received."""

    def __init__(self, expected_length: int | None, max_length: int | None) -> None:
        # Quart's constructor makes events that are not used here. The events of this class are made
        # when something waits for them: most requests have no body.
        self._data = bytearray()
        self.expected_bytes = expected_length
        """`Content-Length`; None if the request has none."""
        self.whole = False
        """The client has sent the whole body."""
        self._limit_bytes = max_length
        self._wanted: Literal["unknown", "whole", "chunks"] = "unknown"
        self._arrived: trio.Event | None = None
        self._taken: trio.Event | None = None
        self._receive: Callable[[], Awaitable[None]] | None = None

    def receive_with(self, receive: Callable[[], Awaitable[None]]) -> None:
        """Makes the reader fetch data itself. `receive` waits for the client, and calls `append`
        and `set_complete`. Without it, another task calls these, and waits in `room`."""
        self._receive = receive

    # Writer's side -----------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        if data:
            self._data += data
            _set(self._arrived)

    def set_complete(self) -> None:
        self.whole = True
        _set(self._arrived)

    @property
    def held_bytes(self) -> int:
        """Number of buffered bytes; the whole body, once it was awaited."""
        return len(self._data)

    async def room(self) -> None:
        """Returns when more data may be appended."""
        while self._wanted in ("unknown", "chunks") and len(self._data) >= HELD_BYTES:
            self._taken = trio.Event()
            await self._taken.wait()

    # Reader's side -----------------------------------------------------------------------------

    def allow(self, limit_bytes: int) -> None:
        """Sets the limit of the whole body, in place of the setting's."""
        self._limit_bytes = limit_bytes

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._read().__await__()

    async def _read(self) -> bytes:
        self._want("whole")
        limit = self._limit_bytes
        while True:
            if limit is not None and max(len(self._data), self.expected_bytes or 0) > limit:
                raise RequestEntityTooLarge
            if self.whole:
                return bytes(self._data)
            await self.more()

    def chunks(self, limit_bytes: int) -> Chunks:
        """The body as it arrives.

        Raises PayloadTooLarge: at once if `Content-Length` is too large, else while iterating.
        """
        self._want("chunks")
        if (self.expected_bytes or 0) > limit_bytes:
            raise _too_large(limit_bytes)
        return Chunks(self, limit_bytes)

    def take(self) -> bytearray:
        """Takes everything that is buffered, which may be nothing."""
        chunk, self._data = self._data, bytearray()
        _set(self._taken)
        return chunk

    async def more(self) -> None:
        """Returns when more data or the end has arrived."""
        if self._receive is not None:
            await self._receive()
            return
        self._arrived = trio.Event()
        await self._arrived.wait()

    def _want(self, wanted: Literal["whole", "chunks"]) -> None:
        self._wanted = wanted
        _set(self._taken)


def _set(event: trio.Event | None) -> None:
    if event is not None:
        event.set()


class Chunks:
    """The chunks of one body, at most `limit_bytes` in all.

    Iterating raises PayloadTooLarge, and RequestTimedOut if the client is too slow.
    """

    def __init__(self, body: ReceivedBody, limit_bytes: int) -> None:
        self._body = body
        self._limit_bytes = limit_bytes
        self._taken = 0
        self._paced = 0
        self._waited_s = 0.0

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytearray:
        while not (chunk := self._body.take()):
            if self._body.whole:
                raise StopAsyncIteration
            await self._wait()
        self._taken += len(chunk)
        if self._taken > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        self._paced += len(chunk)
        if self._paced >= PACE_BYTES:
            self._paced, self._waited_s = 0, 0.0
        return chunk

    async def _wait(self) -> None:
        began_s = trio.current_time()
        with trio.move_on_after(PACE_S - self._waited_s) as timeout:
            await self._body.more()
        self._waited_s += trio.current_time() - began_s
        if timeout.cancelled_caught:
            raise RequestTimedOut


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge.field("body", f"must be at most {limit_bytes} bytes")


class ReceivedUpgrade(BoundedHeaders, TrioWebsocket):
    """An upgrade to WebSocket, with bounded parsing of its headers."""


class ReceivedRequest(BoundedHeaders, TrioRequest):
    """A request with a `ReceivedBody` and bounded parsing of its headers."""

    body: ReceivedBody
    body_class: type[TrioBody] = ReceivedBody

    def __init__(
        self,
        method: str,
        scheme: str,
        path: str,
        query_string: bytes,
        headers: Headers,
        root_path: str,
        http_version: str,
        scope: HTTPScope,
        *,
        max_content_length: int | None = None,
        body_timeout: int | None = None,
        send_push_promise: Callable[[str, Headers], Awaitable[None]],
    ) -> None:
        # The constructors of Werkzeug, Quart and Quart-Trio do the same, but search all headers for
        # three that hardly any request has.
        self.method = method.upper()
        self.scheme = scheme
        self.server = scope.get("server")
        self.root_path = root_path.rstrip("/")
        self.path = "/" + path.lstrip("/")
        self.query_string = query_string
        self.headers = headers
        client = scope.get("client")
        self.remote_addr = client[0] if client else None
        self.http_version = http_version
        self.scope = scope
        self.body_timeout = body_timeout
        sized = any(len(name) == 14 and name.lower() == "content-length" for name, _ in headers)
        self.body = ReceivedBody(self.content_length if sized else None, max_content_length)
        self._cached_json = {False: Ellipsis, True: Ellipsis}
        self._form = None
        self._files = None
        self._send_push_promise = send_push_promise

    @cached_property
    def _parsing_lock(self) -> trio.Lock:  # type: ignore[override]
        """Quart's lock, made when a form is parsed, which hardly any request has."""
        return trio.Lock()


class HttpExchange(TrioASGIHTTPConnection):
    """One request through ASGI. Waits for the body's `room` before it receives more."""

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: ReceivedRequest, receive: ASGIReceiveCallable
    ) -> None:
        body = request.body
        while True:
            message = await receive()
            if message["type"] == "http.request":
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    body.set_complete()
                await body.room()
            elif message["type"] == "http.disconnect":
                break
        nursery.cancel_scope.cancel()
