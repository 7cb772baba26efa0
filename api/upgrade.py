"""An upgrade to WebSocket: its head, the ASGI conversation with the route, and the wire from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.parse import unquote

import trio
from websockets.exceptions import InvalidHeader
from websockets.http11 import Request
from websockets.http11 import Response as UpgradeResponse
from websockets.server import ServerProtocol

from api.envelope import failure, request_line
from api.ws.gateway import WIRE_EXTENSION
from api.ws.wire import Wire
from reileta.clock import Clock
from reileta.errors import MessageInvalid

HEAD_LIMIT: Final = 16 * 1024
"""Bytes of a request's head; Hypercorn has the same limit."""
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Door(Protocol):
    """What an upgrade needs of the front door."""

    @property
    def app(self) -> App: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def secure(self) -> bool: ...

    def wire(self, stream: Stream, protocol: ServerProtocol, early: bytes) -> Wire:
        """The fastest wire for that stream; `early` was read of it already."""


class Upgrade:
    """One upgrade: the ASGI conversation with the route, and the wire that comes out of it."""

    def __init__(self, door: Door, stream: Stream, protocol: ServerProtocol) -> None:
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
            "client": address_of(self._stream, "getpeername"),
            "server": address_of(self._stream, "getsockname"),
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
        # A client that has gone meanwhile is found out by whoever reads its wire: what the route
        # claimed is served in any case.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(b"".join(parts))


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


async def read_head(stream: Stream) -> bytes:
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


def address_of(stream: Stream, which: str) -> tuple[str, int]:
    transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    try:
        name = getattr(transport.socket, which)()
    except OSError:
        return ("", 0)
    return (name[0], name[1])
