"""What is an upgrade, and how much is read to know; whole upgrades are in tests/e2e."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import memory_stream_pair
from websockets.server import ServerProtocol

from api.upgrade import HEAD_LIMIT, Upgrade, is_upgrade, read_head
from api.ws.gateway import WIRE_EXTENSION
from api.ws.wire import Wire
from reileta.clock import MonotonicClock
from tests.api.heads import HEAD


@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        HEAD.replace(b"Upgrade: websocket", b"upgrade:WebSocket "),
        HEAD + b"\x81\x80....",
        HEAD.replace(b"/api/ws", b"/elsewhere?x=y"),
        HEAD.replace(b"Host: x", b"X-Name: \xff"),
    ],
)
def test_what_is_an_upgrade(head: bytes) -> None:
    assert is_upgrade(head)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD.replace(b"GET", b"POST"),
        HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HEAD.replace(b"websocket", b"h2c"),
        HEAD.replace(b"websocket", b"websocket, h2c"),
        HEAD.replace(b"/api/ws", b"/\xff"),
        HEAD[:-2],
        b"GET / HTTP/1.1\r\n\r\nUpgrade: websocket\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_none(head: bytes) -> None:
    assert not is_upgrade(head)


async def read(*packets: bytes) -> bytes:
    """What is read of a connection on which these packets come, and then nothing."""
    near, far = memory_stream_pair()
    for packet in packets:
        await far.send_all(packet)
    stream: Any = near
    with trio.move_on_after(0.2):
        return await read_head(stream)
    return b"waits"


async def test_a_get_is_read_to_the_end_of_its_head(autojump_clock: trio.abc.Clock) -> None:
    assert await read(HEAD) == HEAD
    assert await read(HEAD + b"more") == HEAD + b"more"
    assert await read(HEAD[:-2]) == b"waits"
    assert await read(b"G") == b"waits"


async def test_anything_else_is_handed_on_at_once(autojump_clock: trio.abc.Clock) -> None:
    for begins in (b"P", b"POST / HT", b"GOT", b"\x16\x03", b"PRI * HTTP/2.0"):
        assert await read(begins) == begins


async def test_a_head_is_bounded(autojump_clock: trio.abc.Clock) -> None:
    begins = b"GET / HTTP/1.1\r\n" + b"x" * HEAD_LIMIT
    assert await read(begins) == begins


async def test_the_end_of_a_connection_is_the_end_of_a_head() -> None:
    near, far = memory_stream_pair()
    await far.send_all(b"GET /")
    await far.send_eof()
    stream: Any = near
    assert await read_head(stream) == b"GET /"


class Lost(trio.abc.Stream):
    """The stream of a client that has gone before it could be answered."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None: ...
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return b""

    async def aclose(self) -> None: ...


class Door:
    """A front door whose application takes the wire over as the gateway does."""

    clock = MonotonicClock()
    secure = False

    def __init__(self) -> None:
        self.served: list[object] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        scope["extensions"][WIRE_EXTENSION].claim(self.serve)

    async def serve(self, wire: Wire) -> None:
        self.served.append(wire)

    def wire(self, *_: object) -> Any:
        return "the wire"


async def test_what_the_route_claims_is_served_though_the_client_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever claims a wire may keep something for it, which serving it gives back."""
    monkeypatch.setattr("api.upgrade.address_of", lambda *_: ("", 0))
    door, stream = Door(), cast(Any, Lost())
    key = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    await Upgrade(door, stream, ServerProtocol()).run(HEAD[:-2] + key)
    assert door.served == ["the wire"]
