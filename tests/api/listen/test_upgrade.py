"""An upgrade whose client has gone; whole upgrades are in tests/e2e."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked
from websockets.server import ServerProtocol

from api.errors import status_of
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

    async def receive(self, limit_bytes: int = 0) -> bytes:
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


class Written(Lost):
    """The stream of a client that waits."""

    def __init__(self, timeouts: Timeouts) -> None:
        super().__init__(timeouts)
        self.sent = b""

    async def send(self, data: bytes) -> None:
        self.sent += data


class Waiting(Claiming):
    """An application whose route does not come to a decision."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    def refuse(self, error: ReiletaError, line: str, address: str, **how: Any) -> Answer:
        return Answer(status_of(type(error)), [], str(error).encode())


HEADERS = [
    (b"host", b"x"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
    (b"sec-websocket-version", b"13"),
]
HEAD = RequestHead("GET", b"/api/ws", b"", "1.1", HEADERS, websocket=True)
PEER = Peer("192.0.2.1", 1, ("192.0.2.2", 2))


async def test_an_upgrade_that_is_not_done_when_the_server_stops_is_told_so() -> None:
    timeouts = Timeouts()
    stream = Written(timeouts)
    listening = Listening(Waiting(), Settings(), timeouts)
    upgrade = Upgrade(listening, stream, PEER, ServerProtocol())

    async def run() -> None:
        with upgrade.scope:
            await upgrade.run(HEAD)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        upgrade.give_up()
    assert stream.sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert upgrade.claimed is None


async def test_what_the_route_claims_is_served_though_the_client_has_gone() -> None:
    """Whoever claims a wire may keep something for it, which serving it gives back."""
    app, timeouts = Claiming(), Timeouts()
    listening = Listening(app, Settings(), timeouts)
    upgrade = Upgrade(listening, Lost(timeouts), PEER, ServerProtocol())
    await upgrade.run(HEAD)
    upgrade.hung_up(broken=True)
    assert upgrade.claimed == app.serve
    assert not upgrade.scope.cancel_called
