"""Connections that speak HTTP/1: what is answered, in which order, and how long anything waits."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from api.http.answer import Answer
from api.http.bodies import ReceivedRequest
from api.listen.byte_stream import HangupWatch
from api.listen.http1 import LEFT_OVER_BYTES, LINGER_BYTES, PREFACE
from api.listen.timeouts import Timeouts
from reileta.errors import Overloaded
from reileta.settings import KIB, MIB
from tests.api.listen.fakes import FakeApp, Handler, Parts, abandon, echo, listening, settled
from tests.conftest import PATIENCE_S
from tests.e2e.clients import RawClient

GET = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def post(body: bytes, *lines: bytes, path: bytes = b"/p", length: int | None = None) -> bytes:
    """A request with a body, of which `length` is announced."""
    size = len(body) if length is None else length
    head = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"Content-Length: %d" % size, *lines]
    return b"\r\n".join([*head, b"", b""]) + body


async def ignore(request: ReceivedRequest) -> Answer:
    """Answers without a look at the body."""
    return Answer(200, [], request.path.encode())


async def wait_for_ever(request: ReceivedRequest) -> Answer:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def joined(data: bytes, app: FakeApp | None = None) -> bytes:
    """All that a connection is answered that sends the data and then closes its side."""
    async with listening(app or FakeApp()) as (server, port):
        async with RawClient.to(port) as client:
            await client.send(data)
            await client.stream.send_eof()  # type: ignore[attr-defined]
            answer = await client.ended()
        await settled(lambda: not len(server.admission))
        return answer


# Keep-alive ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "lines", "stays"),
    [
        (b"1.1", (), True),
        (b"1.1", (b"Connection: close",), False),
        (b"1.1", (b"Connection: Keep-Alive",), True),
        (b"1.1", (b"Connection: foo, CLOSE",), False),
        (b"1.1", (b"Connection: close", b"Connection: keep-alive"), False),
        (b"1.1", (b"Connection: keep-alive, close",), False),
        (b"1.0", (), False),
        (b"1.0", (b"Connection: keep-alive",), True),
        (b"1.0", (b"Connection: Foo , Keep-Alive",), True),
        (b"1.0", (b"Connection: keep-alive", b"Connection: close"), False),
        (b"1.0", (b"Connection: close",), False),
    ],
)
async def test_who_is_kept_alive(version: bytes, lines: tuple[bytes, ...], stays: bool) -> None:
    head = b"\r\n".join([b"GET /x HTTP/" + version, b"Host: x", *lines, b"", b""])
    async with listening(FakeApp()) as (_, port), RawClient.to(port) as client:
        for _ in range(2 if stays else 1):
            await client.send(head)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"GET /x ")
            said = answer.headers.get("connection")
            assert said == (
                "keep-alive" if stays and version == b"1.0" else None if stays else "close"
            )
        if not stays:
            assert await client.ended() == b""


async def test_pipelined_requests_are_answered_in_order() -> None:
    sent = b"".join(
        post(b"%d" % number, path=b"/%d" % number) if number % 2 else GET for number in range(40)
    )
    answer = await joined(sent)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 40
    at = 0
    for number in range(1, 40, 2):
        at = answer.index(b"POST /%d %d" % (number, number), at)


async def test_one_request_of_a_pipeline_at_a_time() -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        await go_on.wait()
        return await echo(request)

    app = FakeApp(slow)
    async with listening(app) as (_, port), RawClient.to(port) as client:
        await client.send(GET * 3)
        await settled(lambda: app.under_way == 1)
        assert len(app.requests) == 1
        go_on.set()
        for _ in range(3):
            assert (await client.answer()).status == 200


async def test_blank_lines_before_a_request_are_passed_over() -> None:
    assert (await joined(b"\r\n" + GET + b"\r\n" + GET)).count(b"HTTP/1.1 200 ") == 2


async def test_blank_lines_are_not_passed_over_for_ever() -> None:
    answer = await joined(b"\r\n" * 50_000 + GET)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_head_byte_by_byte() -> None:
    async with listening(FakeApp()) as (_, port), RawClient.to(port) as client:
        client.stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
        for byte in post(b"abc") + b"\r\n" + GET:
            await client.send(bytes([byte]))
        assert (await client.answer()).body == b"POST /p abc"
        assert (await client.answer()).body == b"GET /x "


# Bodies that come in ---------------------------------------------------------------------------

PIECES = (
    b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    *(b"3", b"\r", b"\nab", b"c\r", b"\n2;e", b"xt=1\r\n", b"de", b"\r\n0", b"\r\nX-T: 1", b"\r\n"),
    b"\r\n",
)


async def test_a_chunked_body_in_pieces() -> None:
    """Half a line of a chunk is waited for, and nobody else waits meanwhile."""
    app = FakeApp()
    async with (
        listening(app) as (_, port),
        RawClient.to(port) as client,
        RawClient.to(port) as other,
    ):
        for piece in PIECES:
            await client.send(piece)
            await other.send(GET)
            assert (await other.answer()).status == 200
        assert (await client.answer()).body == b"POST /c abcde"


@pytest.mark.parametrize("handler", [echo, ignore])
async def test_a_body_that_is_not_chunked_right(handler: Handler) -> None:
    async def answer(request: ReceivedRequest) -> Answer:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001  # as the application's mapper of errors does
            return Answer(400, [], str(error).encode())

    app = FakeApp(answer)
    said = await joined(CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n" + GET, app)
    assert said.startswith(b"HTTP/1.1 400 " if handler is echo else b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in said
    assert app.requests == ["POST /c"]


async def test_a_large_body_is_read_as_fast_as_its_handler() -> None:
    go_on, taken = trio.Event(), 0

    async def slow(request: ReceivedRequest) -> Answer:
        nonlocal taken
        await go_on.wait()
        async for chunk in request.body.chunks(64 * MIB):
            taken += len(chunk)
        return Answer(200, [], b"%d" % taken)

    size = 32 * MIB
    async with listening(FakeApp(slow)) as (server, port), RawClient.to(port) as client:
        sent = 0

        async def pour() -> None:
            nonlocal sent
            await client.send(post(b"", length=size))
            for _ in range(size // MIB):
                await client.send(bytes(MIB))
                sent += MIB

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            await settled(lambda: len(server.admission) == 1)
            await wait_all_tasks_blocked(0.05)
            assert sent < size, "the server reads what nobody asked for"
            go_on.set()
            assert (await client.answer()).body == b"%d" % size


async def test_100_continue_is_said_to_those_whose_body_is_read() -> None:
    async with listening(FakeApp()) as (_, port), RawClient.to(port) as client:
        for _ in range(2):
            await client.send(post(b"", b"Expect: 100-continue", length=3))
            assert (await client.answer()).status == 100
            await client.send(b"abc")
            assert (await client.answer()).body == b"POST /p abc"


async def test_100_continue_is_not_said_when_the_body_is_there() -> None:
    async with listening(FakeApp()) as (_, port), RawClient.to(port) as client:
        await client.send(post(b"abc", b"Expect: 100-continue"))
        assert (await client.answer()).body == b"POST /p abc"


async def test_100_continue_is_not_said_when_nobody_reads_the_body() -> None:
    """Whether the client sends it in spite of that is not known: the connection ends."""
    async with listening(FakeApp(ignore)) as (_, port), RawClient.to(port) as client:
        await client.send(post(b"", b"Expect: 100-continue", length=3))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended() == b""


async def test_who_waits_for_100_continue_and_goes_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HangupWatch, "add", lambda *_: None)  # the hangup comes later
    failures: list[BaseException] = []
    go_on = trio.Event()

    async def late(request: ReceivedRequest) -> Answer:
        try:
            await go_on.wait()
            return await echo(request)
        except BaseException as error:
            failures.append(error)
            raise

    app = FakeApp(late)
    async with listening(app, timeouts=Timeouts(half_closed_s=60)) as (server, port):
        async with RawClient.to(port) as client:
            await client.send(post(b"", b"Expect: 100-continue", length=3))
            await settled(lambda: app.under_way == 1)
            abandon(client)
        go_on.set()
        await settled(lambda: not len(server.admission))
    assert [type(one) for one in failures] == [trio.Cancelled]


# Bodies that nobody reads ----------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, LEFT_OVER_BYTES])
async def test_a_short_body_that_nobody_reads_is_passed_over(size: int, chunked: bool) -> None:
    body = b"x" * size
    if chunked:
        sent = CHUNKED + (b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n"
    else:
        sent = post(body)
    async with listening(FakeApp(ignore)) as (_, port), RawClient.to(port) as client:
        for _ in range(2):
            await client.send(sent + GET)
            assert (await client.answer()).status == 200
            assert (await client.answer()).body == b"/x"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_long_body_that_nobody_reads_ends_the_connection(chunked: bool) -> None:
    size = MIB
    body = b"x" * size
    sent = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if chunked else post(body)
    app = FakeApp(ignore)
    async with (
        listening(app) as (_, port),
        RawClient.to(port) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send, sent + GET)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended() == b""
    assert app.requests in (["POST /p"], ["POST /c"])


async def test_a_body_without_an_end_does_not_hold_a_connection_that_ends() -> None:
    async with listening(FakeApp(ignore)) as (server, port), RawClient.to(port) as client:
        await client.send(post(b"", length=10**15))
        sent = 0
        with suppress(trio.BrokenResourceError):
            while True:
                await client.send(bytes(MIB))
                sent += MIB
                assert sent < 8 * LINGER_BYTES
        await settled(lambda: not len(server.admission))


# Answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_that_have_no_body(status: int) -> None:
    async def bare(request: ReceivedRequest) -> Answer:
        return Answer(status, [(b"content-length", b"3")], b"")

    app = FakeApp(bare)
    async with listening(app) as (_, port), RawClient.to(port) as client:
        for _ in range(2):
            await client.send(GET)
            answer = await client.answer()
            assert answer.status == status
            assert "content-length" not in answer.headers
            assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize("streamed", [False, True])
async def test_head_is_answered_without_a_body(streamed: bool) -> None:
    parts = Parts(b"abc", b"def")

    async def answer(request: ReceivedRequest) -> Answer:
        if request.method == "HEAD":
            return Answer(200, [(b"content-length", b"6")], parts if streamed else b"abcdef")
        return await echo(request)

    async with listening(FakeApp(answer)) as (_, port), RawClient.to(port) as client:
        await client.send(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        said = bytearray()
        while b"GET /x " not in said:
            said += await client.stream.receive_some()
        assert said.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert b"abc" not in said
        assert said.split(b"\r\n\r\n")[0].lower().count(b"content-length: 6") == 1
    assert parts.opened == parts.closed


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("known", [False, True])
async def test_streamed_answers(version: bytes, known: bool) -> None:
    async def streamed(request: ReceivedRequest) -> Answer:
        headers = [(b"content-length", b"6")] if known else []
        return Answer(200, headers, Parts(b"abc", b"", b"def"))

    head = b"GET /x HTTP/%b\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" % version
    async with listening(FakeApp(streamed)) as (_, port), RawClient.to(port) as client:
        await client.send(head)
        answer = await client.answer()
        if known:
            assert answer.body == b"abcdef"
            await client.send(head)
            assert (await client.answer()).body == b"abcdef"
        elif version == b"1.1":
            assert answer.headers["transfer-encoding"] == "chunked"
            assert await client.take(len(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")) == (
                b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
            )
        else:  # its end is the connection's
            assert answer.headers["connection"] == "close"
            assert await client.ended() == b"abcdef"


async def test_a_download_is_read_as_fast_as_its_client() -> None:
    parts = Parts(*[bytes(64 * KIB)] * 1024)

    async def download(request: ReceivedRequest) -> Answer:
        return Answer(200, [(b"content-length", b"%d" % (15 * MIB))], parts)

    async with listening(FakeApp(download)) as (server, port):
        async with RawClient.to(port) as client:
            await client.send(GET)
            await settled(lambda: parts.given > 0)
            await wait_all_tasks_blocked(0.05)
            assert parts.given < 1024
            assert (await client.answer()).status == 200
        await settled(lambda: not len(server.admission))
    assert parts.opened == parts.closed == 1


async def test_an_answer_that_is_shorter_than_it_says_is_cut() -> None:
    async def short(request: ReceivedRequest) -> Answer:
        return Answer(200, [(b"content-length", b"10")], Parts(b"abc"))

    said = await joined(GET + GET, FakeApp(short))
    assert said.endswith(b"\r\n\r\nabc")


async def test_an_answer_may_end_the_connection() -> None:
    async def last(request: ReceivedRequest) -> Answer:
        return Answer(200, [], b"bye", close=True)

    assert (await joined(GET + GET, FakeApp(last))).count(b"HTTP/1.1 ") == 1


async def test_an_answer_is_as_large_as_may_wait_for_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its head does not count: if it did, the connection would end without a word."""
    monkeypatch.setattr("api.listen.unsent.ADDRESS_BYTES", 64 * KIB)
    for size, status in ((64 * KIB, b"200"), (64 * KIB + 1, b"503")):

        async def large(request: ReceivedRequest, size: int = size) -> Answer:
            return Answer(200, [], bytes(size))

        assert (await joined(GET, FakeApp(large))).startswith(b"HTTP/1.1 " + status)


# Deadlines -------------------------------------------------------------------------------------

TIMEOUTS = Timeouts(head_s=10, idle_s=75, progress_s=60, half_closed_s=1, linger_s=2, tick_s=0.5)


async def gone_at(clock: MockClock, gone: Callable[[], bool], seconds: float) -> None:
    """The connection stays for nearly so many seconds, and goes then."""
    began = trio.current_time()
    while trio.current_time() - began < seconds - 0.5:
        clock.jump(0.25)
        await wait_all_tasks_blocked(0.001)
        assert not gone(), trio.current_time() - began
    clock.jump(1.5)
    await settled(gone)


@pytest.mark.parametrize(
    "beginning", [b"", b"G", b"GET /x HTTP/1.1\r\nHost: x\r\n", b"\r\n", b"PRI"]
)
@pytest.mark.parametrize("later", [False, True])
async def test_a_head_has_its_time(mock_clock: MockClock, beginning: bytes, later: bool) -> None:
    async with (
        listening(FakeApp(), timeouts=TIMEOUTS) as (server, port),
        RawClient.to(port) as client,
    ):
        if later:
            await client.send(GET)
            assert (await client.answer()).status == 200
            mock_clock.jump(70)  # waiting does not count
        await client.send(beginning)
        await settled(lambda: len(server.admission) == 1)
        await wait_all_tasks_blocked(0.005)
        idle = later and not beginning
        await gone_at(mock_clock, lambda: not len(server.admission), 5 if idle else 10)


@pytest.mark.parametrize("drop", [b"\r\n", b"x"])
@pytest.mark.parametrize("later", [False, True])
async def test_bytes_now_and_then_make_no_more_time(
    mock_clock: MockClock, drop: bytes, later: bool
) -> None:
    """A head has its time from its first byte on, and blank lines are a part of it."""
    async with (
        listening(FakeApp(), timeouts=TIMEOUTS) as (server, port),
        RawClient.to(port) as client,
    ):
        if later:
            await client.send(GET)
            await client.answer()
        await settled(lambda: len(server.admission) == 1)
        for second in range(13):
            if not len(server.admission):
                break
            with suppress(trio.BrokenResourceError):
                await client.send(drop if second or drop != b"x" else b"GET /")
            await wait_all_tasks_blocked(0.001)
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.001)
        await settled(lambda: not len(server.admission))


@pytest.mark.parametrize("later", [False, True])
async def test_a_body_must_make_progress(mock_clock: MockClock, later: bool) -> None:
    app = FakeApp()
    async with listening(app, timeouts=TIMEOUTS) as (server, port), RawClient.to(port) as client:
        if later:
            await client.send(GET)
            await client.answer()
        await client.send(post(b"abc", length=MIB - 1))
        await settled(lambda: app.under_way == 1)
        for _ in range(63):
            with suppress(trio.BrokenResourceError):
                await client.send(b"x")
            await wait_all_tasks_blocked(0.001)
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.001)
        await settled(lambda: not len(server.admission))
        assert not app.under_way


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("later", [False, True])
async def test_an_answer_must_be_read(mock_clock: MockClock, streamed: bool, later: bool) -> None:
    parts = Parts(*[bytes(MIB)] * 15)

    async def download(request: ReceivedRequest) -> Answer:
        if request.path == "/x":
            return await echo(request)
        if streamed:
            return Answer(200, [(b"content-length", b"%d" % (15 * MIB))], parts)
        return Answer(200, [], bytes(15 * MIB))

    app = FakeApp(download)
    async with listening(app, timeouts=TIMEOUTS) as (server, port), RawClient.to(port) as client:
        if later:
            await client.send(GET)
            await client.answer()
        await client.send(GET.replace(b"/x", b"/large"))
        await settled(lambda: len(app.requests) == 1 + later)
        await wait_all_tasks_blocked(0.05)
        await gone_at(mock_clock, lambda: not len(server.admission), 60)
        assert parts.opened == parts.closed


async def test_the_server_may_take_its_time(mock_clock: MockClock) -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        await go_on.wait()
        return await echo(request)

    app = FakeApp(slow)
    async with listening(app, timeouts=TIMEOUTS) as (_, port), RawClient.to(port) as client:
        await client.send(GET)
        await settled(lambda: app.under_way == 1)
        for _ in range(20):
            mock_clock.jump(60)
            await wait_all_tasks_blocked(0.001)
        go_on.set()
        assert (await client.answer()).status == 200


ATTEMPTS = 6
"""Of a test whose outcome would depend on which of two tasks runs first."""


async def echo_later(request: ReceivedRequest) -> Answer:
    """A handler that notices if its connection is cancelled."""
    body: bytes = await request.body
    await trio.lowlevel.checkpoint()
    return Answer(200, [], body)


def connected(port: int) -> socket.socket:
    """A client that sends without giving the server a turn."""
    return socket.create_connection(("127.0.0.1", port))


async def said_to(client: socket.socket) -> bytes:
    """All that the client is answered until the connection ends, or is silent for a moment."""
    client.setblocking(False)
    said = b""
    async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
        with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            while not said and (more := await stream.receive_some()):
                said += more
    return said


@pytest.mark.parametrize("later", [False, True])
async def test_a_request_that_came_while_the_server_was_paused_is_answered(
    mock_clock: MockClock, later: bool
) -> None:
    """The deadline is over when the server goes on, and the request has been there for long."""
    async with listening(FakeApp(echo_later), timeouts=TIMEOUTS) as (server, port):
        for _ in range(ATTEMPTS):
            client = connected(port)
            await settled(lambda: server.http_connections == 1)
            if later:
                client.sendall(GET)
                await trio.lowlevel.wait_readable(client)
                assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
            await wait_all_tasks_blocked(0.005)
            client.sendall(GET)
            mock_clock.jump(80 if later else 11)
            assert (await said_to(client)).startswith(b"HTTP/1.1 200 ")
            await settled(lambda: server.http_connections == 0)


async def test_a_body_that_came_while_the_server_was_paused_is_read(mock_clock: MockClock) -> None:
    app = FakeApp(echo_later)
    async with listening(app, timeouts=TIMEOUTS) as (_, port):
        for _ in range(ATTEMPTS):
            client = connected(port)
            client.sendall(post(b"", length=3))
            await settled(lambda: app.under_way == 1)
            await wait_all_tasks_blocked(0.005)
            client.sendall(b"abc")
            mock_clock.jump(61)
            assert (await said_to(client)).endswith(b"abc")


async def test_a_client_that_does_not_close_is_left(mock_clock: MockClock) -> None:
    async with (
        listening(FakeApp(), timeouts=TIMEOUTS) as (server, port),
        RawClient.to(port) as client,
    ):
        await client.send(b"GET /x HTTP/1.1\r\n\r\n")
        assert (await client.answer()).status == 400
        await gone_at(mock_clock, lambda: not len(server.admission), 2)


# Clients that go -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "closed", "half"])
@pytest.mark.parametrize("later", [False, True])
async def test_a_handler_is_cancelled_when_its_client_goes(
    mock_clock: MockClock, how: str, later: bool
) -> None:
    app = FakeApp()
    async with listening(app, timeouts=TIMEOUTS) as (server, port), RawClient.to(port) as client:
        if later:
            await client.send(GET)
            await client.answer()
        app.handler = wait_for_ever
        await client.send(GET * 3)
        await settled(lambda: app.under_way == 1)
        if how == "half":
            await client.stream.send_eof()  # type: ignore[attr-defined]
        elif how == "closed":
            await client.stream.aclose()
        else:
            abandon(client)
        if how != "reset":  # it may still read: until that is known it has a second
            await wait_all_tasks_blocked(0.01)
            assert app.under_way == 1
            mock_clock.jump(2)
        await settled(lambda: not len(server.admission))
        assert not app.under_way
        assert len(app.requests) == 1 + later


async def test_a_client_that_closed_its_side_is_answered() -> None:
    assert (await joined(GET * 2)).count(b"HTTP/1.1 200 ") == 2


async def test_a_client_that_closed_its_side_reads_at_its_pace(mock_clock: MockClock) -> None:
    """It has a second for the handler, and then as long as all others."""
    size = 15 * MIB

    async def download(request: ReceivedRequest) -> Answer:
        return Answer(200, [], bytes(size))

    app = FakeApp(download)
    async with listening(app, timeouts=TIMEOUTS) as (_, port), RawClient.to(port) as client:
        await client.send(GET)
        await client.stream.send_eof()  # type: ignore[attr-defined]
        await settled(lambda: len(app.requests) == 1)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(30)
        await wait_all_tasks_blocked(0.01)
        assert len((await client.answer()).body) == size


# The end ---------------------------------------------------------------------------------------


async def test_stopping_ends_what_is_idle_and_waits_for_what_is_not() -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        body = await request.body
        await go_on.wait()
        return Answer(200, [], body)

    app = FakeApp(slow)
    async with (
        listening(app) as (server, port),
        RawClient.to(port) as silent,
        RawClient.to(port) as half,
        RawClient.to(port) as busy,
        trio.open_nursery() as nursery,
    ):
        await half.send(GET[:-3])
        await busy.send(post(b"abc") + GET)
        await settled(lambda: app.under_way == 1 and server.http_connections == 3)
        nursery.start_soon(server.finish_requests)
        assert await silent.ended() == b""
        assert await half.ended() == b""
        go_on.set()
        answer = await busy.answer()
        assert (answer.body, answer.headers["connection"]) == (b"abc", "close")
        assert await busy.ended() == b""
    assert app.requests == ["POST /p"]


async def test_stopping_answers_a_request_that_was_not_read_yet() -> None:
    async with listening(FakeApp()) as (server, port):
        client = connected(port)
        await settled(lambda: server.http_connections == 1)
        await wait_all_tasks_blocked(0.005)
        client.sendall(GET)
        with trio.fail_after(PATIENCE_S):
            await server.finish_requests()
        said = await said_to(client)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in said


async def wait_in_a_nursery(request: ReceivedRequest) -> Answer:
    """A cancelled handler of this kind raises a group."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)
    raise AssertionError("unreachable")


@pytest.mark.parametrize("handler", [wait_for_ever, wait_in_a_nursery])
@pytest.mark.parametrize("body", [b"abc", bytes(MIB)])
async def test_a_request_that_is_not_done_when_the_server_stops_is_told_so(
    handler: Handler, body: bytes
) -> None:
    app = FakeApp(handler)
    async with listening(app) as (server, port), RawClient.to(port) as client:
        await client.send(post(b"abc", length=len(body)))
        await settled(lambda: app.under_way == 1)
        with trio.fail_after(PATIENCE_S):
            await server.refuse_requests()
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert isinstance(app.refused[0], Overloaded)
        assert await client.ended() == b""
        assert not app.under_way


async def test_cancelling_the_server_ends_everything() -> None:
    app = FakeApp(wait_for_ever)
    parts = Parts(*[bytes(MIB)] * 15)

    async def download(request: ReceivedRequest) -> Answer:
        if request.path == "/x":
            return await wait_for_ever(request)
        return Answer(200, [], parts)

    app.handler = download
    async with (
        listening(app) as (server, port),
        RawClient.to(port) as one,
        RawClient.to(port) as two,
    ):
        await one.send(GET)
        await two.send(GET.replace(b"/x", b"/large"))
        await settled(lambda: app.under_way == 1 and parts.given > 0)
    assert not app.under_way
    assert len(server.admission) == server.http_connections == 0
    assert parts.opened == parts.closed == 1


@pytest.mark.parametrize("http2", [False, True])
async def test_the_preface_of_http_2_is_known_where_http_2_is(http2: bool) -> None:
    async with listening(FakeApp(), http2=http2) as (_, port), RawClient.to(port) as client:
        await client.send(PREFACE)
        said = await client.take(9)
        assert said[:4] == (said[:3] + b"\x04" if http2 else b"HTTP")
