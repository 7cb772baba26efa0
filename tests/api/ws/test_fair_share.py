"""A loud player, a receiver with little bandwidth, and the others: who pays for what is sent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from actors.delivery.batch import Piece
from api.ws.message_rate import MessageRate, weight
from api.ws.transport.backlog import Backlog
from reileta.settings import MIB, Settings
from tests.actors.frames import failed
from tests.actors.node_harness import Client, NodeHarness, open_harness, settle
from tests.actors.sinks import FakeSink

KIB = 1024


class SlowClientSink(FakeSink):
    """A client that takes so many bytes a second."""

    def __init__(self, bytes_per_s: int) -> None:
        super().__init__()
        self.backlog = Backlog(MIB)
        self.overflown = False
        self._bytes_per_s = bytes_per_s

    def write(self, pieces: Sequence[Piece]) -> None:
        self.overflown = self.overflown or not self.backlog.push(pieces)

    def send(self, frame: bytes) -> None:
        raise AssertionError("nothing is asked")

    async def read(self) -> None:
        while True:
            await trio.sleep(0.1)
            self.backlog.taken(min(self.backlog.size, self._bytes_per_s // 10))


async def narrow(harness: NodeHarness, bytes_per_s: int) -> SlowClientSink:
    client = await harness.connect(9)
    await client.join()
    sink = SlowClientSink(bytes_per_s)
    harness.act(lambda room: room.parts.fanout.add(sink, None))
    await settle()
    return sink


async def shout(client: Client, size: int, seconds: int) -> None:
    """Says as much as one socket may, for so long."""
    allowance = MessageRate(Settings())
    data = b'"%b"' % (b"x" * (size - 2))
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        if allowance.take(weight(size)):
            client.say(data)
        else:
            allowance.take(-weight(size))  # a client that is not to be closed
            await trio.sleep(0.05)
        await settle()


@pytest.mark.parametrize("size", [60 * KIB, 8 * KIB, 900])
@pytest.mark.parametrize("sockets", [1, 4])
async def test_a_loud_player_does_not_have_others_closed(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, size: int, sockets: int
) -> None:
    async with open_harness(monkeypatch) as harness, trio.open_nursery() as nursery:
        loud, quiet = await harness.crowd(1, 2)
        sink = await narrow(harness, 48 * KIB)
        nursery.start_soon(sink.read)
        async with trio.open_nursery() as shouting:
            for _ in range(sockets):
                shouting.start_soon(shout, loud, size, 60)
            for number in range(60):
                quiet.say(b"%d" % number)
                await trio.sleep(1)
        await settle()
        assert not sink.overflown
        assert not [one for one in quiet.received() if one.error is not None]
        assert failed("data", 102) in loud.received()
        nursery.cancel_scope.cancel()


async def test_one_that_does_not_read_overflows_and_normal_players_do_not_notice(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch) as harness:
        players = await harness.crowd(1, 2, 3)
        sink = await narrow(harness, 0)
        data = b'"%b"' % (b"x" * 1000)
        for _ in range(600):
            for player in players:
                player.say(data)
            await trio.sleep(1 / 20)
        await settle()
        assert sink.overflown
        for player in players:
            assert not [one for one in player.received() if one.error is not None]
