"""Many loud users at once, users that come and go, and a receiver with little bandwidth."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from actors.delivery.batch import Piece
from tests.actors.node_harness import Client, NodeHarness, open_harness, settle
from tests.actors.sinks import FakeSink
from tests.api.ws.test_fair_share import KIB, SlowClientSink, narrow

SHORT = 600
"""Bytes of the longest error."""


class ShortFramesSink(FakeSink):
    """A client that keeps what is short, such as errors."""

    def write(self, pieces: Sequence[Piece]) -> None:
        short = [one for one in pieces if one[2] - one[1] < SHORT]
        if short:
            super().write(short)

    def refusals(self) -> int:
        return sum("error" in one and one["error"]["code"] == 102 for one in self.take())


def text(size: int) -> bytes:
    return b'"%b"' % (b"x" * (size - 2))


async def crowd(harness: NodeHarness, count: int) -> list[tuple[Client, ShortFramesSink]]:
    harness.room(capacity=count + 2)
    sinks = [ShortFramesSink() for _ in range(count)]
    return [(await harness.joined(10 + at, sink=sink), sink) for at, sink in enumerate(sinks)]


@pytest.mark.parametrize("turns", ["in turn", "one after the other"])
@pytest.mark.parametrize(
    ("users", "size", "times"),
    [(16, 59 * KIB, 4), (40, 59 * KIB, 4), (16, 30 * KIB, 8), (24, 8 * KIB, 30), (16, 100, 240)],
)
async def test_bursts_of_many_do_not_have_a_receiver_closed(
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    users: int,
    size: int,
    times: int,
    turns: str,
) -> None:
    async with open_harness(monkeypatch) as harness, trio.open_nursery() as nursery:
        loud = await crowd(harness, users)
        sink = await narrow(harness, 1_000_000)
        nursery.start_soon(sink.read)
        order = [(one, number) for one in range(users) for number in range(times)]
        if turns == "in turn":
            order.sort(key=lambda turn: turn[1])
        for _ in range(3):  # each burst is all that a socket may send at once
            for one, _number in order:
                loud[one][0].say(text(size))
            await settle()
            assert not sink.overflown
            await trio.sleep(2)
        if size > KIB:
            assert sum(sink.refusals() for _, sink in loud)
        nursery.cancel_scope.cancel()


async def test_who_says_little_is_heard_while_all_are_held_back(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch) as harness, trio.open_nursery() as nursery:
        *loud, (quiet, quiet_sink) = await crowd(harness, 17)
        sink = await narrow(harness, 1_000_000)
        nursery.start_soon(sink.read)
        for _ in range(10):
            for one, _sink in loud:
                for _number in range(4):
                    one.say(text(59 * KIB))
            for _number in range(30):
                quiet.say(text(200))
                await settle()
                await trio.sleep(1 / 30)
        assert not sink.overflown
        assert not quiet_sink.refusals()
        nursery.cancel_scope.cancel()


async def test_leaving_and_coming_back_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch) as harness:
        harness.room(capacity=8)
        sink = await narrow(harness, 0)
        heard = refused = 0
        for session in range(40):
            own = ShortFramesSink()
            client = await harness.joined(1, session, sink=own)
            for _ in range(3):
                client.say(text(59 * KIB))
            await client.leave()
            await settle()
            refused += own.refusals()
            heard = sink.backlog.size
            await trio.sleep(0.1)
        assert not sink.overflown
        assert refused > 100
        assert heard < 900 * KIB


async def test_two_sessions_of_a_user_share_one_rate(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch) as harness:
        harness.room(capacity=8)
        sink: SlowClientSink = await narrow(harness, 0)
        own = [ShortFramesSink() for _ in range(4)]
        clients = [await harness.joined(1, session, sink=one) for session, one in enumerate(own)]
        for _ in range(20):
            for client in clients:
                client.say(text(30 * KIB))
        await settle()
        assert not sink.overflown
        assert sum(one.refusals() for one in own) > 55


async def test_a_crash_forgets_nobody(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch) as harness:
        harness.room(capacity=8)
        await narrow(harness, 0)
        own = ShortFramesSink()
        client = await harness.joined(1, sink=own)
        for _ in range(12):
            client.say(text(59 * KIB))
        await settle()
        assert own.refusals()
        harness.crash()
        await trio.sleep(0.5)  # until it runs again
        for _ in range(3):
            client.say(text(59 * KIB))
        await settle()
        assert own.refusals() == 3
