"""Upgrades to WebSocket: the handshake, and the ASGI exchange with the route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import trio
from websockets.exceptions import InvalidHeader
from websockets.headers import parse_subprotocol
from websockets.http11 import Request
from websockets.http11 import Response as UpgradeResponse
from websockets.server import ServerProtocol

from api.envelope import request_line
from api.listen.byte_stream import ByteStream, ClientGone
from api.listen.exchange import Listening, Peer, decoded_path, state_of, unfinished
from api.listen.http1 import date_header
from api.listen.request_head import RequestHead
from api.listen.timeouts import ConnectionDeadline
from api.ws.accept import TRANSPORT_EXTENSION
from api.ws.transport.base import Transport
from reileta.errors import MessageInvalid, ReiletaError

Serve = Callable[[Transport], Awaitable[None]]

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus
}
_SUBPROTOCOL: Final = b"sec-websocket-protocol"
_OWN: Final = frozenset(
    {
        b"connection",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        _SUBPROTOCOL,
        b"sec-websocket-version",
        b"upgrade",
    }
)
"""The headers that the handshake reads."""


def requested_subprotocols(head: RequestHead) -> list[str]:
    """The subprotocols that the client offers, in its order. Raises InvalidHeaderFormat."""
    values = [value.decode("latin-1") for name, value in head.headers if name == _SUBPROTOCOL]
    return [one for value in values for one in parse_subprotocol(value)]


class Upgrade:
    """One upgrade. Quart sees an ASGI `websocket` scope with an extension by which the route claims
    the connection. Afterwards, no object of Quart stays in memory.

    The upgrade ends when the client hangs up. If the route has claimed the connection, the
    connection's transport notices that instead.
    """

    def __init__(
        self, listening: Listening, stream: ByteStream, peer: Peer, protocol: ServerProtocol
    ) -> None:
        self.scope = trio.CancelScope()
        self._deadline = ConnectionDeadline()
        self._listening = listening
        self._stream = stream
        self._peer = peer
        self._protocol = protocol
        self._connected = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._response: UpgradeResponse | None = None
        self._serve: Serve | None = None
        self._answered = False
        self._given_up = False

    def claim(self, serve: Serve) -> None:
        """Called by the route: `serve` serves the transport after the upgrade."""
        self._serve = serve
        self._deadline.clear()

    @property
    def claimed(self) -> Serve | None:
        """The function that serves the transport; None if the upgrade was refused, or the client
        has gone."""
        return self._serve

    # Called by the server ----------------------------------------------------------------------

    @property
    def expires_at(self) -> float:
        """When it is cancelled (Trio's clock, in seconds)."""
        return self._deadline.at

    def hung_up(self, broken: bool) -> None:
        """The client has closed its side, or the connection is broken."""
        if self._serve is not None:
            return
        if broken:
            self.scope.cancel()
        else:
            self._deadline.set(self._listening.timeouts.half_closed_s)

    def expire(self) -> None:
        """Ends it: the client has closed its side, and the route took too long to answer."""
        self.scope.cancel()

    def drain(self) -> None:
        """Does nothing: an upgrade in progress is completed."""

    def give_up(self) -> None:
        """Cancels the route, and answers that the server stops."""
        self._given_up = True
        self.scope.cancel()

    # Handshake ---------------------------------------------------------------------------------

    async def run(self, head: RequestHead) -> None:
        """Answers the upgrade, in `scope`."""
        protocol = self._protocol
        # The library parses the request again, so give it only the headers that it needs. It has
        # limits of its own for the others.
        lines = [b"%b %b HTTP/1.1" % (head.method.encode(), head.path)]
        lines += [b"%b: %b" % pair for pair in head.headers if pair[0] in _OWN]
        protocol.receive_data(b"\r\n".join([*lines, b"", b""]))
        requests = [event for event in protocol.events_received() if isinstance(event, Request)]
        if not requests:
            await self._reject(head, 400)
            return
        response = protocol.accept(requests[0])
        if response.status_code != 101:
            await self._reject(head, response.status_code)
            return
        self._response = response
        try:
            await self._listening.app(self._scope(head), self._receive, self._answer)
        finally:
            if self._given_up and not self._answered:
                with trio.CancelScope(shield=True):
                    await self._refuse_with(head, unfinished())

    async def _reject(self, head: RequestHead, status: int) -> None:
        """Refuses an invalid upgrade (RFC 6455, 4.2.1), with an answer in the envelope."""
        exception = self._protocol.handshake_exc
        field = exception.name if isinstance(exception, InvalidHeader) else "Upgrade"
        error = MessageInvalid.field(field, "is missing or not valid for an upgrade to WebSocket")
        expected = ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"))
        await self._refuse_with(head, error, *expected, status=status)

    async def _refuse_with(
        self,
        head: RequestHead,
        error: ReiletaError,
        *headers: tuple[bytes, bytes],
        status: int | None = None,
    ) -> None:
        """Refuses the upgrade with an error, without the route."""
        line = request_line(head.path.decode(), head.query.decode())
        answer = self._listening.app.refuse(
            error, line, self._peer.address, upgrade=True, status=status
        )
        self._status, self._headers = answer.status, [*answer.headers, *headers]
        assert isinstance(answer.body, bytes)
        self._body = answer.body
        await self._refuse()

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        peer = self._peer
        return {
            "type": "websocket",
            "asgi": {"spec_version": "2.3", "version": "3.0"},
            "http_version": "1.1",
            "scheme": "wss" if peer.scheme == "https" else "ws",
            "path": self._listening.local_path(decoded_path(head.path.decode())),
            "raw_path": head.path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": (peer.address, peer.port),
            "server": peer.server,
            "subprotocols": requested_subprotocols(head),
            "state": state_of(self._peer),
            "extensions": {"websocket.http.response": {}, TRANSPORT_EXTENSION: self},
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
                assert self._response is not None
                for name, value in event.get("headers", ()):
                    self._response.headers[name.decode()] = value.decode()
                if event.get("subprotocol") is not None:
                    self._response.headers["Sec-WebSocket-Protocol"] = event["subprotocol"]
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
                pass  # the route returned after it claimed the connection

    async def _refuse(self) -> None:
        skipped = (b"content-length", b"connection")
        lines = [_STATUS_LINES.get(self._status) or b"HTTP/1.1 %d Refused" % self._status]
        lines += [b"%b: %b" % pair for pair in self._headers if pair[0].lower() not in skipped]
        lines += [
            b"date: %b" % date_header(),
            b"content-length: %d" % len(self._body),
            b"connection: close",
            b"",
            b"",
        ]
        await self._send([b"\r\n".join(lines) + self._body])

    async def _send(self, parts: Sequence[bytes]) -> None:
        self._answered = True
        # If the client has gone, the transport notices it: a claimed connection is served anyway.
        with suppress(ClientGone), trio.move_on_after(self._listening.timeouts.progress_s):
            await self._stream.send(b"".join(parts))
