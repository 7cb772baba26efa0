"""An upgrade whose client has gone; whole upgrades are in tests/e2e."""

from __future__ import annotations

from typing import Any

from websockets.server import ServerProtocol

from api.http.answer import Answer
from api.listen.byte_stream import ByteStream, ClientGone
from api.listen.exchange import Listening, Peer
from api.listen.request_head import RequestHead
from api.listen.timeouts import Timeouts
from api.listen.upgrade import Upgrade
from api.ws.accept import TRANSPORT_EXTENSION
from api.ws.transport.base import Transport
from reileta.errors import ReiletaError
from reileta.settings import Settings


class Lost(ByteStream):
    """The stream of a client that has gone before it could be answered."""

    def fileno(self) -> int:
        return -1

    async def receive(self) -> bytes:
        return b""

    async def send(self, data: bytes) -> None:
        raise ClientGone

    async def end(self) -> None: ...

    async def finish(self) -> None: ...

    def close(self) -> None: ...


class Claiming:
    """An application that takes the wire over as the gateway does."""

    def __init__(self) -> None:
        self.config: Any = {}

    async def answer(self, request: Any) -> Answer:
        raise AssertionError("an upgrade is not a request like others")

    def refuse(self, error: ReiletaError, line: str, address: str, **how: Any) -> Answer:
        raise AssertionError(error)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        scope["extensions"][TRANSPORT_EXTENSION].claim(self.serve)

    async def serve(self, wire: Transport) -> None: ...


async def test_what_the_route_claims_is_served_though_the_client_has_gone() -> None:
    """Whoever claims a wire may keep something for it, which serving it gives back."""
    app, timeouts = Claiming(), Timeouts()
    upgrade = Upgrade(
        Listening(app, Settings(), timeouts),
        Lost(timeouts),
        Peer("192.0.2.1", 1, ("192.0.2.2", 2)),
        ServerProtocol(),
    )
    headers = [
        (b"host", b"x"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
        (b"sec-websocket-version", b"13"),
    ]
    await upgrade.run(RequestHead("GET", b"/api/ws", b"", "1.1", headers, websocket=True))
    upgrade.hung_up(broken=True)
    assert upgrade.claimed == app.serve
    assert not upgrade.scope.cancel_called
