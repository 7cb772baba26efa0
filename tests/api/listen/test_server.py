"""The listening port: its places, its failures, its end."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from api.http.answer import Answer
from api.http.bodies import ReceivedRequest
from api.listen.server import open_listeners, plain_address
from reileta.settings import Settings
from tests.api.listen.fakes import FakeApp, listening
from tests.conftest import PATIENCE_S

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


async def answer_on(port: int, request: bytes = GET) -> bytes:
    """All that a connection of its own is answered until it ends."""
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(request)
        await client.send_eof()
        with trio.fail_after(PATIENCE_S):
            while more := await client.receive_some(65_536):
                answer += more
    return answer


async def test_listeners_say_their_port() -> None:
    listeners, number = await open_listeners(Settings(port=0))
    assert number > 0
    for listener in listeners:
        await listener.aclose()


async def test_without_ipv6_all_addresses_are_those_of_ipv4(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = trio.socket.socket

    def without_ipv6(family: int = socket.AF_INET, *more: int) -> trio.socket.SocketType:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return make(family, *more)

    monkeypatch.setattr(trio.socket, "socket", without_ipv6)
    (listener,), _ = await open_listeners(Settings(host="::", port=0))
    assert listener.socket.getsockname()[0] == "0.0.0.0"
    await listener.aclose()


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::1", "::1"),
    ],
)
def test_ipv4_is_the_same_address_on_a_socket_of_both(host: str, plain: str) -> None:
    """Limits by address count IPv6 by network, and all of IPv4 would be one."""
    assert plain_address(host) == plain


@pytest.mark.parametrize("raises", [RuntimeError("ours"), KeyError("x")])
async def test_a_connection_that_fails_is_alone_in_that(
    raises: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(request: ReceivedRequest) -> Answer:
        raise raises

    async with listening(FakeApp(fail)) as (server, port):
        for _ in range(3):
            assert await answer_on(port) == b""
        assert len(server.admission) == 0
    assert capsys.readouterr().out.count("connection.failed") == 3


async def wait_for_ever(request: ReceivedRequest) -> Answer:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def test_more_connections_than_may_be_open_are_told_to_come_back() -> None:
    app = FakeApp(wait_for_ever)
    async with listening(app, connections=1) as (server, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as first:
            await first.send_all(GET)
            while not app.under_way:
                await trio.sleep(0.001)
            answer = await answer_on(port)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        while len(server.admission):
            await trio.sleep(0.001)
        app.handler = FakeApp().handler
        assert (await answer_on(port)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("limits", "refused"), [("on", True), ("off", False)])
async def test_one_address_has_no_more_than_its_share(limits: str, refused: bool) -> None:
    app = FakeApp(wait_for_ever)
    async with (
        listening(app, connections_per_address=2, rate_limits=limits) as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as one,
        await trio.open_tcp_stream("127.0.0.1", port) as two,
        await trio.open_tcp_stream("127.0.0.1", port) as three,
    ):
        for client in (one, two, three):
            await client.send_all(GET)
        with trio.move_on_after(PATIENCE_S):
            while app.under_way < (2 if refused else 3):
                await trio.sleep(0.001)
        if refused:
            with trio.fail_after(PATIENCE_S):
                assert (await three.receive_some()).startswith(b"HTTP/1.1 429 ")
        assert app.under_way == (2 if refused else 3)


async def test_stopping_closes_idle_connections_and_waits_for_answers() -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        await go_on.wait()
        return Answer(200, [], b"done")

    app = FakeApp(slow)
    async with (
        listening(app) as (server, port),
        await trio.open_tcp_stream("127.0.0.1", port) as idle,
        await trio.open_tcp_stream("127.0.0.1", port) as busy,
        trio.open_nursery() as nursery,
    ):
        await busy.send_all(GET)
        while not app.under_way or server.http_connections < 2:
            await trio.sleep(0.001)
        server.stop_accepting()
        nursery.start_soon(server.finish_requests)
        with trio.fail_after(PATIENCE_S):
            assert await idle.receive_some() == b""
        await wait_all_tasks_blocked()
        assert server.http_connections == 1
        go_on.set()
        with trio.fail_after(PATIENCE_S):
            answer = await busy.receive_some()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in answer


async def test_connections_that_wait_when_the_server_stops_accepting_are_served() -> None:
    async with listening(FakeApp()) as (server, port):
        await answer_on(port)
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        for client in waiting:
            client.sendall(GET)
        server.stop_accepting()
        for client in waiting:
            client.setblocking(False)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
                with trio.fail_after(PATIENCE_S):
                    answer = await stream.receive_some()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))
