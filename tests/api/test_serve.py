from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

from api import serve
from api.serve import HEAD_LIMIT, FrontDoor, is_upgrade, open_listeners
from reileta.metrics import Metrics
from reileta.settings import Settings
from tests.conftest import ManualClock

HEAD = b"GET /api/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


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
        return await serve._read_head(stream)
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
    assert await serve._read_head(stream) == b"GET /"


async def test_listeners_say_their_port() -> None:
    listeners, number = await open_listeners(Settings(port=0))
    assert number > 0
    for listener in listeners:
        await listener.aclose()


async def _lifespan(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})


@pytest.mark.parametrize("raises", [RuntimeError("ours"), KeyError("x")])
async def test_a_connection_that_fails_is_alone_in_that(
    monkeypatch: pytest.MonkeyPatch, raises: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(scope, receive, send)
        raise raises

    door = FrontDoor(app, Settings(), Metrics(), ManualClock())
    listeners, number = await open_listeners(Settings(port=0))
    head = HEAD.replace(
        b"\r\n\r\n",
        b"\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, listeners)
        for _ in range(3):
            async with await trio.open_tcp_stream("127.0.0.1", number) as client:
                await client.send_all(head)
                with trio.fail_after(5):
                    assert await client.receive_some(100) == b""
        door.stop_accepting()
        with trio.fail_after(5):
            await door.finish_requests()
        nursery.cancel_scope.cancel()
    assert capsys.readouterr().out.count("connection.failed") == 3
