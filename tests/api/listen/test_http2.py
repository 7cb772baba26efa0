"""Connections that speak HTTP/2: what is answered, and what of a client's is bounded."""

from __future__ import annotations

import gc
import os
import random
import ssl
import tracemalloc
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import h2.exceptions
import h2.settings
import httpx
import pytest
import trio
from h2.errors import ErrorCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from api.http.answer import Answer
from api.http.bodies import ReceivedRequest
from api.listen.frames import BURST
from api.listen.http1 import PREFACE
from api.listen.http2 import (
    CONNECTION_WINDOW_BYTES,
    STREAM_WINDOW_BYTES,
    STREAMS,
    STREAMS_LIMIT,
    STREAMS_TAKEN,
)
from api.listen.request_head import HEAD_LIMIT_BYTES
from api.listen.timeouts import Timeouts
from reileta.settings import KIB, MIB
from tests.api.listen.fakes import FakeApp, Handler, Parts, echo, listening, settled
from tests.api.listen.h2client import H2Client, frame, get, goodbye
from tests.e2e.clients import RawClient

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
TIMEOUTS = Timeouts(head_s=10, idle_s=75, progress_s=60, linger_s=2, tick_s=0.5)


async def wait_for_ever(request: ReceivedRequest) -> Answer:
    await trio.sleep_forever()
    raise AssertionError("unreachable")


async def ignore(request: ReceivedRequest) -> Answer:
    return Answer(200, [], request.path.encode())


def large(size: int, *, streamed: bool = True) -> Handler:
    async def answer(request: ReceivedRequest) -> Answer:
        if request.path == "/x":
            return await echo(request)
        length = [(b"content-length", b"%d" % size)]
        if streamed:
            return Answer(200, length, Parts(*[bytes(64 * KIB)] * (size // (64 * KIB))))
        return Answer(200, length, bytes(size))

    return answer


# What is answered ------------------------------------------------------------------------------


async def test_requests_one_after_the_other() -> None:
    async with listening(FakeApp()) as (_, port), H2Client.to(port) as client:
        for _ in range(300):  # more than a burst of frames
            reply = await client.ask(get(b"/x?y"))
            assert (reply.status, bytes(reply.body)) == (200, b"GET /x ")
            assert reply.headers[b"content-length"] == b"7"
            assert b"date" in reply.headers


async def test_requests_at_once_are_answered_as_they_are_done() -> None:
    events = {f"/{number}": trio.Event() for number in range(STREAMS)}

    async def slow(request: ReceivedRequest) -> Answer:
        await events[request.path].wait()
        return await echo(request)

    app = FakeApp(slow)
    async with listening(app) as (_, port), H2Client.to(port) as client:
        numbers = {path: await client.request(get(path.encode())) for path in events}
        await settled(lambda: app.under_way == STREAMS)
        for path in reversed(events):
            events[path].set()
            reply = await client.reply(numbers[path])
            assert bytes(reply.body) == f"GET {path} ".encode()


async def test_one_request_too_many_is_refused_alone() -> None:
    """And nothing else comes of it: who has not read our settings yet may not know better."""
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        await go_on.wait()
        return await echo(request)

    app = FakeApp(slow)
    async with listening(app) as (_, port), H2Client.to(port) as client:
        client.h2.remote_settings = h2.settings.Settings(client=False)
        numbers = [await client.request(get()) for _ in range(STREAMS_TAKEN + 20)]
        for number in numbers[STREAMS_TAKEN:]:
            assert (await client.reply(number)).reset == ErrorCodes.REFUSED_STREAM
        go_on.set()
        for number in numbers[:STREAMS_TAKEN]:
            assert (await client.reply(number)).status == 200
        assert (await client.ask(get())).status == 200
        assert client.h2.remote_settings.max_concurrent_streams == STREAMS < STREAMS_LIMIT


async def test_head_and_answers_without_a_body() -> None:
    async def bare(request: ReceivedRequest) -> Answer:
        if request.method == "HEAD":
            return Answer(200, [(b"content-length", b"3")], Parts(b"abc"))
        return Answer(int(request.path[1:]), [(b"content-length", b"3")], b"")

    async with listening(FakeApp(bare)) as (_, port), H2Client.to(port) as client:
        reply = await client.ask(get(b"/x", b"HEAD"))
        assert (reply.headers[b"content-length"], bytes(reply.body)) == (b"3", b"")
        for status in (204, 304):
            reply = await client.ask(get(b"/%d" % status))
            assert (reply.status, bytes(reply.body)) == (status, b"")
            assert b"content-length" not in reply.headers


async def test_bodies_of_any_size() -> None:
    async with listening(FakeApp()) as (_, port), H2Client.to(port) as client:
        for size in (0, 1, 16 * KIB, 700 * KIB):
            body = random.Random(size).randbytes(size)
            number = await client.request(get(b"/x", b"POST"), end=not size)
            await client.upload(number, body)
            assert bytes((await client.reply(number)).body) == b"POST /x " + body


async def test_a_large_upload_is_read_as_fast_as_its_handler() -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        if request.path == "/x":
            return await echo(request)
        await go_on.wait()
        taken = 0
        async for chunk in request.body.chunks(64 * MIB):
            taken += len(chunk)
        return Answer(200, [], b"%d" % taken)

    size = 8 * MIB
    async with listening(FakeApp(slow)) as (_, port), H2Client.to(port) as client:
        number = await client.request(get(b"/large", b"POST"), end=False)
        await client.ask(get())  # settings are known by now
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.upload, number, bytes(size))
            await settled(lambda: not client.h2.local_flow_control_window(number))
            await wait_all_tasks_blocked(0.02)
            assert not client.h2.local_flow_control_window(number)
            go_on.set()
        assert bytes((await client.reply(number)).body) == b"%d" % size


async def test_uploads_that_nobody_reads_leave_room_for_others() -> None:
    app = FakeApp(ignore)
    async with listening(app) as (_, port), H2Client.to(port) as client:
        for _ in range(3 * CONNECTION_WINDOW_BYTES // STREAM_WINDOW_BYTES):
            number = await client.request(get(b"/x", b"POST"), end=False)
            room = client.h2.local_flow_control_window(number)
            for _ in range(room // (16 * KIB)):
                client.h2.send_data(number, bytes(16 * KIB))
            await client.flush()
            reply = await client.reply(number)
            assert reply.status == 200
            assert reply.reset in (None, ErrorCodes.NO_ERROR)
        app.handler = echo
        number = await client.request(get(b"/x", b"POST"), end=False)
        await client.upload(number, bytes(MIB - 1))
        assert len((await client.reply(number)).body) > MIB - 1


async def test_downloads_at_once() -> None:
    size = 2 * MIB
    app = FakeApp(large(size))
    async with listening(app) as (_, port), H2Client.to(port) as client:
        numbers = [await client.request(get(b"/large")) for _ in range(8)]
        for number in numbers:
            assert len((await client.reply(number)).body) == size


async def test_an_answer_that_is_shorter_than_it_says_is_reset() -> None:
    async def short(request: ReceivedRequest) -> Answer:
        return Answer(200, [(b"content-length", b"10")], Parts(b"abc"))

    async with listening(FakeApp(short)) as (_, port), H2Client.to(port) as client:
        assert (await client.ask(get())).reset == ErrorCodes.INTERNAL_ERROR


async def test_a_handler_that_fails_is_alone_in_that(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(request: ReceivedRequest) -> Answer:
        if request.path == "/x":
            return await echo(request)
        raise KeyError("ours")

    async with listening(FakeApp(fail)) as (_, port), H2Client.to(port) as client:
        assert (await client.ask(get(b"/fail"))).reset == ErrorCodes.INTERNAL_ERROR
        assert (await client.ask(get())).status == 200
    assert capsys.readouterr().out.count("connection.failed") == 1


# Clients that go -------------------------------------------------------------------------------


async def test_a_reset_cancels_its_handler_alone() -> None:
    async def some(request: ReceivedRequest) -> Answer:
        return await (wait_for_ever if request.path == "/wait" else echo)(request)

    app = FakeApp(some)
    async with listening(app) as (_, port), H2Client.to(port) as client:
        for when in ("reading", "working"):
            number = await client.request(get(b"/wait", b"POST"), end=when == "working")
            await settled(lambda: app.under_way == 1)
            client.h2.reset_stream(number)
            await client.flush()
            await settled(lambda: app.under_way == 0)
            assert (await client.ask(get())).status == 200


@pytest.mark.parametrize("how", ["closed", "goodbye", "half"])
async def test_everything_ends_with_the_connection(how: str) -> None:
    app = FakeApp(wait_for_ever)
    async with listening(app) as (server, port), H2Client.to(port) as client:
        for number in range(10):
            await client.request(get(b"/x", b"POST"), end=number % 2 == 0)
        await settled(lambda: app.under_way == 10)
        if how == "half":
            await client.stream.send_eof()  # type: ignore[attr-defined]
        else:
            if how == "goodbye":
                await client.send(frame(GOAWAY, bytes(8)))
            await client.stream.aclose()
        await settled(lambda: app.under_way == 0 and not len(server.admission))


async def test_a_client_that_says_goodbye_is_still_answered() -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        await go_on.wait()
        return await echo(request)

    app = FakeApp(slow)
    async with listening(app) as (server, port), H2Client.to(port) as client:
        numbers = [await client.request(get()) for _ in range(3)]
        await settled(lambda: app.under_way == 3)
        await client.send(frame(GOAWAY, bytes(8)))
        late = await client.request(get())
        assert (await client.reply(late)).reset == ErrorCodes.REFUSED_STREAM
        go_on.set()
        for number in numbers:
            assert (await client.reply(number)).status == 200
        assert await client.end() == ErrorCodes.NO_ERROR
        await client.stream.aclose()
        await settled(lambda: not len(server.admission))


# Bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("window", [65_535, 2**31 - 1])
async def test_unread_downloads_are_not_read_into_memory(streamed: bool, window: int) -> None:
    """The client makes no room, or it makes room for all and then reads nothing."""
    size, count = 512 * KIB, 30
    body = bytes(size)
    opened: list[Parts] = []

    async def download(request: ReceivedRequest) -> Answer:
        if not streamed:
            return Answer(200, [], body)
        opened.append(Parts(*[body[: 64 * KIB]] * (size // (64 * KIB))))
        return Answer(200, [(b"content-length", b"%d" % size)], opened[-1])

    app = FakeApp(download)
    async with listening(app) as (server, port), H2Client.to(port) as client:
        client.reads = False
        if window > 65_535:
            client.h2.increment_flow_control_window(window - 65_535)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        await client.flush()
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(count):
                await client.request(get(b"/large"))
            if window == 65_535:
                while sum(len(one.body) for one in client.replies.values()) < window:
                    await client.receive()
                await settled(lambda: app.under_way == 0 and len(app.requests) == count)
                client.replies.clear()
            await wait_all_tasks_blocked(0.05)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 4 * MIB
        assert all(one.given < size // (64 * KIB) for one in opened)
        await client.stream.aclose()
        await settled(lambda: not len(server.admission))
    assert opened or not streamed
    assert all(one.opened == one.closed for one in opened)


FLOODS = {
    "settings": frame(SETTINGS),
    "settings that change": frame(SETTINGS, b"\x00\x04\x00\x00\xff\xff"),
    "pings": frame(PING, bytes(8)),
    "pongs": frame(PING, bytes(8), flags=1),
    "priorities": frame(PRIORITY, b"\x00\x00\x00\x00\x10", stream=1),
    "empty data": frame(DATA, stream=1),
    "padded data": frame(DATA, b"\xff" + bytes(255), flags=8, stream=1),
    "little data": frame(DATA, b"x", stream=1),
    "room": frame(WINDOW, b"\x00\x00\x00\x01"),
    "room for a stream": frame(WINDOW, b"\x00\x00\x00\x01", stream=1),
    "unknown frames": frame(200, b"x"),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_floods_of_frames_that_carry_nothing(flood: bytes) -> None:
    app = FakeApp(wait_for_ever)
    async with listening(app) as (server, port), H2Client.to(port) as client:
        await client.request(get(b"/x", b"POST"), end=False)
        await client.send(flood * 2 * BURST)
        assert await client.end() == ErrorCodes.ENHANCE_YOUR_CALM
        await client.stream.aclose()
        await settled(lambda: not len(server.admission))
        assert not app.under_way


@pytest.mark.parametrize("wait", [False, True])
async def test_a_storm_of_resets(wait: bool) -> None:
    app = FakeApp(wait_for_ever if wait else echo)
    async with listening(app) as (server, port), H2Client.to(port) as client:
        sent = bytearray()
        for _ in range(2_000):
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(number, get(), end_stream=True)
            client.h2.reset_stream(number)
            sent += client.h2.data_to_send()
        with suppress(trio.BrokenResourceError):
            await client.send(bytes(sent))
        assert await client.end() == ErrorCodes.ENHANCE_YOUR_CALM
        await client.stream.aclose()
        await settled(lambda: not len(server.admission))
        assert len(app.requests) <= BURST
        assert not app.under_way


async def test_a_head_that_goes_on_and_on() -> None:
    for last in (CONTINUATION, HEADERS):
        async with listening(FakeApp()) as (server, port), H2Client.to(port) as client:
            head = frame(HEADERS, b"\x82", stream=1)
            with suppress(trio.BrokenResourceError):
                await client.send(head + frame(last, b"\x40\x01a\x01b", stream=1) * 50_000)
            assert await client.end() in (ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.PROTOCOL_ERROR)
            await client.stream.aclose()
            await settled(lambda: not len(server.admission))


async def test_a_head_may_be_so_large() -> None:
    fits = (b"x-large", b"y" * 4_000)
    async with listening(FakeApp()) as (_, port), H2Client.to(port) as client:
        assert (await client.ask(get(b"/x", b"GET", *[fits] * 3))).status == 200
        assert (await client.ask(get(b"/x", b"GET", (b"x", b"y" * 9_000)))).status == 431
        assert (await client.ask(get(b"/x", b"GET", *[(b"x", b"y")] * 110))).status == 431
        assert (await client.ask(get(b"/" + b"x" * 9_000))).status == 431
        assert (await client.ask(get())).status == 200
        assert client.h2.remote_settings.max_header_list_size == HEAD_LIMIT_BYTES
        assert (await client.ask(get(b"/x", b"GET", *[fits] * 5))).status == 431
        await client.request(get(b"/x", b"GET", *[fits] * 20))
        assert await client.end() == ErrorCodes.ENHANCE_YOUR_CALM


async def test_a_header_table_is_no_bomb() -> None:
    """One large entry, named again and again: a few KiB that stand for MiB."""
    async with listening(FakeApp()) as (_, port), H2Client.to(port) as client:
        block = b"\x82\x84\x86\x40\x01a\x7f\x81\x1e" + b"y" * 3_998 + b"\xbe" * 10_000
        client.h2.get_next_available_stream_id()
        await client.send(frame(HEADERS, block, flags=5, stream=1))
        assert await client.end() in (ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.PROTOCOL_ERROR)


async def test_room_for_single_bytes_is_no_way_around() -> None:
    """A client that makes room for a byte at a time makes us send a frame for each."""
    app = FakeApp(large(MIB))
    async with listening(app) as (_, port), H2Client.to(port) as client:
        client.reads = False
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        number = await client.request(get(b"/large"))
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await client.send(frame(WINDOW, b"\x00\x00\x00\x01", stream=number))

            nursery.start_soon(dribble)
            assert await goodbye(client.stream) == ErrorCodes.ENHANCE_YOUR_CALM
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("window", [65_535, MIB, 32 * MIB])
async def test_a_client_that_makes_room_for_each_frame_is_not_cut(window: int) -> None:
    """With two frames each, as late as may be."""
    size = 48 * MIB
    app = FakeApp(large(size))
    async with listening(app) as (_, port), H2Client.to(port) as client:
        client.reads = False
        if window > 65_535:
            client.h2.increment_flow_control_window(window - 65_535)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        number = await client.request(get(b"/large"))
        reply, taken = client.replies[number], 0
        while not reply.ended:
            while not reply.ended and len(reply.body) - taken < window // 2:
                assert await client.receive()
            while len(reply.body) - taken >= 16 * KIB:
                taken += 16 * KIB
                client.h2.increment_flow_control_window(16 * KIB)
                if not reply.ended:
                    client.h2.increment_flow_control_window(16 * KIB, number)
            await client.flush()
        assert len(reply.body) == size
        assert (await client.ask(get())).status == 200


# Deadlines -------------------------------------------------------------------------------------


async def gone_at(clock: MockClock, gone: Callable[[], bool], seconds: float) -> None:
    began = trio.current_time()
    while trio.current_time() - began < seconds - 0.5:
        clock.jump(0.25)
        await wait_all_tasks_blocked(0.001)
        assert not gone(), trio.current_time() - began
    clock.jump(1.5)
    await settled(gone)


@pytest.mark.parametrize(
    "beginning",
    [
        PREFACE[:10],
        PREFACE,
        PREFACE + frame(SETTINGS),
        PREFACE + frame(SETTINGS) + frame(PING, bytes(8)),
    ],
)
async def test_a_first_request_has_its_time(mock_clock: MockClock, beginning: bytes) -> None:
    async with (
        listening(FakeApp(), timeouts=TIMEOUTS) as (server, port),
        RawClient.to(port) as client,
    ):
        await client.send(beginning)
        await settled(lambda: server.http_connections == 1)
        await wait_all_tasks_blocked(0.01)
        await gone_at(mock_clock, lambda: not len(server.admission), 10)


async def test_idle_between_requests(mock_clock: MockClock) -> None:
    async with (
        listening(FakeApp(), timeouts=TIMEOUTS) as (server, port),
        H2Client.to(port) as client,
    ):
        for _ in range(3):
            assert (await client.ask(get())).status == 200
            await wait_all_tasks_blocked(0.001)
            for _ in range(7):
                mock_clock.jump(10)
                await wait_all_tasks_blocked(0.001)
        client.h2.ping(bytes(8))  # a sign of life is not a request
        await client.flush()
        await wait_all_tasks_blocked(0.001)
        mock_clock.jump(6)
        await settled(lambda: not len(server.admission))


async def test_an_upload_must_make_progress(mock_clock: MockClock) -> None:
    app = FakeApp()
    async with listening(app, timeouts=TIMEOUTS) as (_, port), H2Client.to(port) as client:
        number = await client.request(get(b"/x", b"POST"), end=False)
        await settled(lambda: app.under_way == 1)
        for _ in range(62):
            if app.under_way:
                client.h2.send_data(number, b"x")
                await client.flush()
            await wait_all_tasks_blocked(0.001)
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.001)
        await settled(lambda: not app.under_way)
        assert (await client.reply(number)).reset == ErrorCodes.CANCEL
        assert (await client.ask(get())).status == 200


async def test_a_download_must_make_progress(mock_clock: MockClock) -> None:
    app = FakeApp(large(16 * MIB))
    async with listening(app, timeouts=TIMEOUTS) as (_, port), H2Client.to(port) as client:
        client.reads = False
        numbers = [await client.request(get(b"/large")) for _ in range(4)]
        await settled(lambda: len(app.requests) == 4)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(58)
        await wait_all_tasks_blocked(0.01)
        while client.replies[numbers[0]].reset is None:
            mock_clock.jump(1)
            await wait_all_tasks_blocked(0.001)
            client.h2.ping(bytes(8))
            await client.flush()
            await client.receive()
        client.h2.increment_flow_control_window(16 * MIB)
        assert (await client.ask(get())).status == 200
        assert all(client.replies[number].reset for number in numbers)


async def test_a_client_that_reads_nothing_at_all(mock_clock: MockClock) -> None:
    app = FakeApp(large(64 * MIB))
    async with listening(app, timeouts=TIMEOUTS) as (server, port), H2Client.to(port) as client:
        client.h2.increment_flow_control_window(2**31 - 1 - 65_535)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        await client.request(get(b"/large"))
        await settled(lambda: len(app.requests) == 1)
        await wait_all_tasks_blocked(0.05)
        await gone_at(mock_clock, lambda: not len(server.admission), 60)


# The end ---------------------------------------------------------------------------------------


async def test_stopping_waits_for_what_is_under_way() -> None:
    go_on = trio.Event()

    async def slow(request: ReceivedRequest) -> Answer:
        if request.path == "/slow":
            await go_on.wait()
        return await echo(request)

    app = FakeApp(slow)
    async with (
        listening(app) as (server, port),
        H2Client.to(port) as idle,
        H2Client.to(port) as busy,
        trio.open_nursery() as nursery,
    ):
        await idle.ask(get())
        number = await busy.request(get(b"/slow"))
        await settled(lambda: app.under_way == 1)
        nursery.start_soon(server.finish_requests)
        assert await idle.end() == ErrorCodes.NO_ERROR
        late = await busy.request(get())
        assert (await busy.reply(late)).reset == ErrorCodes.REFUSED_STREAM
        go_on.set()
        assert (await busy.reply(number)).status == 200
        assert await busy.end() == ErrorCodes.NO_ERROR
        await idle.stream.aclose()
        await busy.stream.aclose()


async def test_a_request_that_is_not_done_when_the_server_stops_is_told_so() -> None:
    app = FakeApp(wait_for_ever)
    async with listening(app) as (server, port), H2Client.to(port) as client:
        number = await client.request(get())
        await settled(lambda: app.under_way == 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.finish_requests)
            nursery.start_soon(server.refuse_requests)
            assert (await client.reply(number)).status == 503
            assert await client.end() == ErrorCodes.NO_ERROR
            await client.stream.aclose()
        assert not app.under_way


async def test_a_request_that_came_while_the_server_was_paused_is_answered(
    mock_clock: MockClock,
) -> None:
    """The deadline is over when the server goes on, and the request has been there for long."""
    async with listening(FakeApp(), timeouts=TIMEOUTS) as (_, port), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(H2Client.to(port)) for _ in range(8)]
        for client in clients:
            assert (await client.ask(get())).status == 200
        await wait_all_tasks_blocked(0.005)
        for client in clients:  # without a turn of the server
            client.h2.send_headers(3, get(), end_stream=True)
            stream = client.stream
            assert isinstance(stream, trio.SocketStream)
            os.write(stream.socket.fileno(), client.h2.data_to_send())
        mock_clock.jump(80)
        for client in clients:
            assert (await client.reply(3)).status == 200


# Whatever else comes ---------------------------------------------------------------------------

kinds = st.integers(0, 12)
random_frames = st.lists(
    st.builds(
        frame,
        kinds,
        st.binary(max_size=60),
        flags=st.integers(0, 255),
        stream=st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1, 2**32 - 1]),
    )
    | st.sampled_from(
        [
            frame(HEADERS, b"\x82\x84\x86\x41\x01x", flags=5, stream=1),
            frame(HEADERS, b"\x83\x84\x86\x41\x01x", flags=4, stream=3),
            frame(DATA, b"abc", stream=3),
            frame(DATA, b"", flags=1, stream=3),
            frame(RST, bytes(4), stream=3),
            frame(SETTINGS),
        ]
    ),
    max_size=12,
)


async def test_random_frames_are_never_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    examples: list[list[bytes]] = []

    @settings(max_examples=250, deadline=None, database=None, derandomize=True)
    @given(random_frames)
    def collect(frames: list[bytes]) -> None:
        examples.append(frames)

    collect()
    timeouts = Timeouts(linger_s=0.05, tick_s=0.05)
    async with listening(FakeApp(), timeouts=timeouts) as (server, port):
        for frames in examples:
            async with RawClient.to(port) as client:
                await client.send(PREFACE + frame(SETTINGS) + b"".join(frames))
                await client.stream.send_eof()  # type: ignore[attr-defined]
                await client.ended()
        await settled(lambda: not len(server.admission))
    assert "connection.failed" not in capsys.readouterr().out


# A client that others wrote --------------------------------------------------------------------


async def test_httpx_over_tls_is_not_cut(
    certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    size = 12 * MIB

    async def both(request: ReceivedRequest) -> Answer:
        taken = 0
        if request.method == "POST":
            async for chunk in request.body.chunks(2 * size):
                taken += len(chunk)
            return Answer(200, [], b"%d" % taken)
        return Answer(200, [], Parts(*[bytes(64 * KIB)] * (size // (64 * KIB))))

    cert, key = certificate
    async with (
        listening(FakeApp(both), tls_cert=cert, tls_key=key) as (_, port),
        httpx.AsyncClient(verify=trusting, http2=True, timeout=60) as client,
    ):
        url = f"https://127.0.0.1:{port}/x"
        for _ in range(2):
            answer = await client.get(url)
            assert (answer.http_version, len(answer.content)) == ("HTTP/2", size)
            answer = await client.post(url, content=bytes(size))
            assert answer.content == b"%d" % size
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.get, url)
