"""Bodies come at the pace of whoever reads them, and no faster."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.datastructures import Headers
from werkzeug.exceptions import RequestEntityTooLarge

from api.http.bodies import HELD_BYTES, PACE_BYTES, PACE_S, ReceivedBody, ReceivedRequest
from reileta.errors import PayloadTooLarge, RequestTimedOut


def body(expected: int | None = None, limit: int | None = 100) -> ReceivedBody:
    return ReceivedBody(expected, limit)


async def has_room(received: ReceivedBody) -> bool:
    with trio.move_on_after(1) as waiting:
        await received.room()
    return not waiting.cancelled_caught


async def test_a_whole_body(autojump_clock: trio.testing.MockClock) -> None:
    received = body(6)
    received.append(b"abc")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come() -> None:
            await trio.sleep(1)
            received.append(b"def")
            received.set_complete()

        assert await received == b"abcdef"
    assert received.whole
    assert await received == b"abcdef"


async def test_a_whole_body_over_the_limit(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(RequestEntityTooLarge):
        await body(101)
    received = body()
    received.append(b"x" * 101)
    with pytest.raises(RequestEntityTooLarge):
        await received
    unlimited = body(limit=None)
    unlimited.append(b"x" * 101)
    unlimited.set_complete()
    assert len(await unlimited) == 101


async def test_nobody_sends_ahead_of_who_decides(autojump_clock: trio.testing.MockClock) -> None:
    received = body(10**9)
    received.append(b"x" * (HELD_BYTES - 1))
    assert await has_room(received)
    received.append(b"x")
    assert not await has_room(received)
    received.take()
    assert await has_room(received)


async def test_chunks_are_taken_before_more_may_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    received = body(10**6)
    chunks = received.chunks(10**6)
    received.append(b"x" * HELD_BYTES)
    assert not await has_room(received)
    assert len(await anext(chunks)) == HELD_BYTES
    assert await has_room(received)
    received.append(b"end")
    received.set_complete()
    assert [bytes(chunk) async for chunk in chunks] == [b"end"]


async def test_more_than_was_agreed_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        body(11).chunks(10)
    received = body()
    received.append(b"x" * 11)
    with pytest.raises(PayloadTooLarge):
        await anext(received.chunks(10))
    exact = body(10)
    exact.append(b"x" * 10)
    exact.set_complete()
    assert [len(chunk) async for chunk in exact.chunks(10)] == [10]


async def test_a_byte_now_and_then_is_no_pace(autojump_clock: trio.testing.MockClock) -> None:
    received = body()

    async def drip() -> None:
        while True:
            received.append(b"x")
            await trio.sleep(PACE_S / 4)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        began = trio.current_time()
        with pytest.raises(RequestTimedOut):
            async for _ in received.chunks(10**9):
                pass
        assert trio.current_time() - began == pytest.approx(PACE_S)
        nursery.cancel_scope.cancel()


async def test_a_steady_client_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    received = body()

    async def flow() -> None:
        for _ in range(20):
            received.append(b"x" * PACE_BYTES)
            await trio.sleep(PACE_S * 0.9)
        received.set_complete()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow)
        assert sum([len(chunk) async for chunk in received.chunks(10**9)]) == 20 * PACE_BYTES


async def test_time_that_the_reader_takes_is_not_the_clients(
    autojump_clock: trio.testing.MockClock,
) -> None:
    received = body()
    chunks = received.chunks(100)
    for _ in range(5):
        received.append(b"x")
        assert await anext(chunks) == b"x"
        await trio.sleep(PACE_S)


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-length": "12"}, {"Content-Length": "x"}, {"Content-Length": "-1"},
     {"Content-Length": "12", "Transfer-Encoding": "chunked"}, {"Cookie": "a=b", "X-Length": "1"}],
)  # fmt: skip
async def test_a_request_is_made_as_quart_makes_it(headers: dict[str, str]) -> None:
    sent = Headers({"Remote-Addr": "192.0.2.1", **headers})
    scope: Any = {"type": "http", "client": ("192.0.2.1", 40000), "server": ("127.0.0.1", 80)}

    def made(kind: type[TrioRequest]) -> TrioRequest:
        return kind(
            "post", "http", "//a/b", b"c=d", sent, "/r/",
            "1.1", scope, max_content_length=100, body_timeout=5, send_push_promise=no_push,
        )  # fmt: skip

    class Quarts(TrioRequest):
        body_class: type[TrioBody] = ReceivedBody

    async def no_push(path: str, headers: Headers) -> None:
        return None

    ours, theirs = made(ReceivedRequest), made(Quarts)
    apart = {
        "body",
        "_parsing_lock",
        "content_length",
    }  # the last is worked out when it is asked for
    kept = [
        {name: one.__dict__[name] for name in one.__dict__.keys() - apart} for one in (ours, theirs)
    ]
    assert kept[0] == kept[1]
    locks = [getattr(one, "_parsing_lock") for one in (ours, theirs)]  # noqa: B009
    assert type(locks[0]) is type(locks[1])
    assert ours.content_length == theirs.content_length
    assert ours.body.__dict__ == theirs.body.__dict__
    assert isinstance(ours.body, ReceivedBody)
