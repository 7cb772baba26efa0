"""Asking a client whether it is there, and how its connection ended."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from websockets.frames import Opcode

from api.ws.transport.base import ANSWER_S
from reileta.observability.metrics import Metrics
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import text_frame
from tests.api.ws.transport.test_base import (
    MakeTransportPair,
    TransportPair,
    both,
    on_stream,
    received,
)

Question = Callable[[], Awaitable[bool]]


async def asked(nursery: trio.Nursery, question: Question) -> list[bool]:
    """Asks, and returns the list that the answer goes into."""
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await question())

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    return answers


def open_pair(nursery: trio.Nursery, pair_of: MakeTransportPair) -> TransportPair:
    pair = pair_of(nursery, Metrics())
    pair.wire.listen(None)  # it is read from here on
    return pair


@both
async def test_a_pong_is_the_answer_for_all_who_ask(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    async with open_pair(nursery, pair_of) as pair:
        one = await asked(nursery, pair.wire.answers)
        two = await asked(nursery, pair.wire.responds)
        (ping,) = await pair.frames(1)
        assert (ping.opcode, len(ping.data)) == (Opcode.PING, 8)
        await pair.say(pair.masked(Opcode.PONG, bytes(ping.data)))
        assert await received(pair) == []
        await wait_all_tasks_blocked()
        assert (one, two) == ([True], [True])
        # The next question is another one.
        await asked(nursery, pair.wire.answers)
        assert (await pair.frames(1))[0].data != ping.data


async def test_one_that_says_nothing_does_not_answer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_pair(nursery, on_stream) as pair:
        began = trio.current_time()
        one = await asked(nursery, pair.wire.answers)
        two = await asked(nursery, pair.wire.responds)
        await trio.sleep(ANSWER_S * 1.1)
        assert (one, two) == ([False], [False])
        # An answer that comes late is no answer to the next question.
        (ping,) = await pair.frames(1)
        again = await asked(nursery, pair.wire.answers)
        await pair.say(pair.masked(Opcode.PONG, bytes(ping.data)))
        await received(pair)
        await trio.sleep(ANSWER_S * 1.1)
        assert again == [False]
        assert trio.current_time() - began < 3 * ANSWER_S


async def test_an_answer_that_came_while_the_process_could_not_run_counts(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_pair(nursery, on_stream) as pair:
        one = await asked(nursery, pair.wire.answers)
        (ping,) = await pair.frames(1)
        await pair.say(pair.masked(Opcode.PONG, bytes(ping.data)))
        autojump_clock.jump(3 * ANSWER_S)
        for _ in range(9):  # who waits for the answer runs before it is read
            await trio.lowlevel.checkpoint()
        await received(pair)
        await wait_all_tasks_blocked()
        assert one == [True]


async def test_one_that_sends_something_else_responds_and_does_not_answer(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_pair(nursery, on_stream) as pair:
        one = await asked(nursery, pair.wire.answers)
        two = await asked(nursery, pair.wire.responds)
        await trio.sleep(ANSWER_S / 2)
        await pair.say(pair.masked(Opcode.TEXT, b"x") + pair.masked(Opcode.PONG, b"another"))
        assert await received(pair) == [b"x"]
        await trio.sleep(ANSWER_S)
        assert (one, two) == ([False], [True])


async def test_one_that_the_server_does_not_read_has_the_benefit_of_the_doubt(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_pair(nursery, on_stream) as pair:
        pair.wire.busy = True
        one = await asked(nursery, pair.wire.answers)
        await trio.sleep(ANSWER_S * 1.1)
        assert one == [True]


@both
@pytest.mark.parametrize("how", ["the client closes", "the server closes", "cut", "gone"])
async def test_the_end_of_the_connection_is_the_end_of_the_question(
    nursery: trio.Nursery, pair_of: MakeTransportPair, how: str
) -> None:
    async with open_pair(nursery, pair_of) as pair:
        one = await asked(nursery, pair.wire.answers)
        if how == "the client closes":
            await pair.say(pair.masked(Opcode.CLOSE, struct.pack("!H", 1000)))
            await received(pair)
        elif how == "the server closes":
            pair.wire.close(CloseCode.GOING_AWAY)
        elif how == "cut":
            pair.wire.cut()
        else:
            await trio.aclose_forcefully(pair.far)
            await pair.wire.finish()
        await wait_all_tasks_blocked()
        assert one == [False]
        assert await pair.wire.answers() is False


@both
@pytest.mark.parametrize(
    ("code", "left"),
    [(1000, True), (1001, True), (None, True), (1002, False), (1011, False), (4000, False)],
)
async def test_a_client_that_goes_on_purpose_has_left(
    nursery: trio.Nursery, pair_of: MakeTransportPair, code: int | None, left: bool
) -> None:
    async with open_pair(nursery, pair_of) as pair:
        assert not pair.wire.left
        await pair.say(pair.masked(Opcode.CLOSE, b"" if code is None else struct.pack("!H", code)))
        await received(pair)
        assert pair.wire.left is left


@both
async def test_a_client_that_answers_the_servers_close_has_not_left(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    async with open_pair(nursery, pair_of) as pair:
        pair.wire.close(CloseCode.TOO_SLOW)
        await pair.say(pair.masked(Opcode.CLOSE, struct.pack("!H", 1000)))
        await received(pair)
        assert not pair.wire.left


@both
async def test_frames_after_the_end_are_lost(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    async with open_pair(nursery, pair_of) as pair:
        pair.wire.send(text_frame(b"1"))
        await pair.frames(1)
        assert not pair.wire.lost_frames
        await pair.say(pair.masked(Opcode.CLOSE, struct.pack("!H", 1000)))
        await received(pair)
        assert not pair.wire.lost_frames
        pair.wire.send(text_frame(b"2"))
        assert pair.wire.lost_frames


@both
async def test_frames_that_the_client_did_not_take_are_lost(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    async with open_pair(nursery, pair_of) as pair:
        for _ in range(40):
            pair.wire.send(text_frame(b"." * 1024))
        lost = [pair.wire.lost_frames]  # as long as they wait
        await pair.frames(40)
        await wait_all_tasks_blocked()
        lost.append(pair.wire.lost_frames)
        pair.wire.cut()
        lost.append(pair.wire.lost_frames)
        assert lost == [True, False, True]
