"""Who is heard, and by whom: the cases that `test_instance.py` has not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from actors.delivery.batch import Piece
from actors.instance.messages import SendData
from actors.instance.parts import InstanceParts
from actors.instance.relay import DataRelay
from reileta.rules.instance.data_rate import hold_back_loudest
from tests.actors.frames import data, failed
from tests.actors.node_harness import ROOM, NodeHarness, open_harness, settle
from tests.actors.sinks import FakeSink, frames_of


async def test_those_addressed_alone_hear_it(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two, three = await harness.crowd(1, 2, 3)
    player = next(iter(two.sink.seats.values())).player
    own = next(iter(one.sink.seats.values())).player
    one.say(b"1", to=(player, own, "p_gone"), state=b"4")
    await settle()
    assert (one.received(), two.received(), three.received()) == ([data(state=4)], [data(1)], [])


async def test_a_rollback_is_answered_and_not_heard(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    one.say(b"2", key="k", at=2)
    one.say(b"1", key="k", at=1, state=b"5")
    await settle()
    assert [one["data"] for one in one.sink.take()] == [{"dropped": True}]
    assert two.received() == [data(2)]


class Slow(FakeSink):
    """A client that can't keep up: whoever is heard most is held back."""

    def write(self, pieces: Sequence[Piece]) -> None:
        super().write(pieces)
        for batch, _, _ in pieces:
            if batch.paces is not None:
                sizes = map(len, frames_of([(batch, 0, len(batch))]))
                shares = zip(batch.paces, sizes, strict=True)
                hold_back_loudest((pace, size) for pace, size in shares if pace is not None)


async def test_who_says_too_much_is_refused_and_the_others_go_on(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    slow = await harness.joined(3, sink=Slow())
    for each in (one, two):
        each.sink.take()
    large = b'"%b"' % (b"x" * 60_000)
    one.say(large)
    await settle()
    assert len(two.received()) == 1
    one.say(large, state=b"1")
    one.say(large)
    two.say(b"3")
    await settle()
    assert one.received() == [failed("data", 102, state=1), failed("data", 102), data(3)]
    assert two.received() == []
    slow.sink.take()
    await trio.sleep(2)
    one.say(large, state=b"4")
    await settle()
    assert one.received() == [data(state=4)]


async def test_those_addressed_alone_hold_back_as_well(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = (await harness.crowd(1))[0]
    slow = await harness.joined(3, sink=Slow())
    to = (next(iter(slow.sink.seats.values())).player,)
    one.sink.take()
    for state in b"123":
        one.say(b'"%b"' % (b"x" * 60_000), to=to, state=b"%c" % state)
        await settle()
    assert one.received() == [
        data(state=1),
        failed("data", 102, state=2),
        failed("data", 102, state=3),
    ]


async def test_who_says_little_is_never_refused(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = (await harness.crowd(1))[0]
    await harness.joined(3, sink=Slow())
    one.sink.take()
    for _ in range(100):
        one.say(b'"%b"' % (b"x" * 1_000))
        await trio.sleep(1 / 30)
    await settle()
    assert one.received() == []


async def test_much_at_once_is_written_in_parts(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one, two = await harness.crowd(1, 2)
    before = two.sink.writes
    for _ in range(8):
        one.say(b'"%b"' % (b"x" * 30_000))
    await settle()
    assert two.sink.writes - before >= 2
    assert len(two.received()) == 8


async def test_without_rate_limits_nobody_is_held_back(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with open_harness(monkeypatch, rate_limits="off") as harness:
        one = (await harness.crowd(1))[0]
        await harness.joined(3, sink=Slow())
        one.sink.take()
        for _ in range(20):
            one.say(b'"%b"' % (b"x" * 60_000))
        await settle()
        assert one.received() == []


async def test_only_senders_inside_are_remembered(
    harness: NodeHarness, autojump_clock: MockClock
) -> None:
    one = await harness.joined(1)
    inside: list[InstanceParts] = []
    harness.act(lambda actor: inside.append(actor.parts))
    await settle()
    relay, seat = DataRelay(inside[0]), one.sink.seats[ROOM]
    (player,) = inside[0].rules.players.values()
    for _ in range(2):
        relay.send(SendData(one.sink, seat.player, None, None, None, b"1", None))
    relay.send(SendData(one.sink, "p_gone", None, None, None, b"1", None))
    assert len(relay) == 1
    relay.forget(player)
    assert len(relay) == 0
