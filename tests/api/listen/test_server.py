"""The front door; how it serves is in tests/e2e."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from api.serve import FrontDoor, open_listeners
from reileta.metrics import Metrics
from reileta.settings import Settings
from tests.api.heads import HEAD
from tests.conftest import ManualClock


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


async def test_more_http_connections_than_may_be_open_are_told_to_come_back() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(scope, receive, send)
        await trio.sleep_forever()

    door = FrontDoor(app, Settings(connections=1), Metrics(), ManualClock())
    listeners, number = await open_listeners(Settings(port=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(door.serve, listeners)
        async with await trio.open_tcp_stream("127.0.0.1", number) as first:
            await first.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with await trio.open_tcp_stream("127.0.0.1", number) as second:
                await second.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                with trio.fail_after(5):
                    while more := await second.receive_some(4096):
                        answer += more
        nursery.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in answer
    assert b'"code":122' in answer
