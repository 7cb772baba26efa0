"""A large snapshot in parts, as clients read it: one message, most of which all who join share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from actors.delivery.batch import Batch, Piece
from actors.delivery.fanout import Fanout
from actors.instance.frames import SHARED_FROM_BYTES, InstanceFrames
from api.ws.transport.backlog import Backlog
from reileta.protocol.frames import payload_of, text_frame
from reileta.rules.instance.instance import Instance
from tests.actors.sinks import FakeSink
from tests.reileta.instances import filled, room

KIB = 1024


def large_room(players: int = 4, keys: int = 3) -> Instance:
    rules = room(capacity=players)
    for one in filled(rules, *range(1, players + 1)):
        for key in range(keys):
            text = b'"%b"' % (f"{one.id}/{key} ".encode() * 1000)
            rules.speak(one.id, f"k{key}", None if key else 1.5, None, text, 9)
    return rules


def message_of(wire: bytes, *, deflate: bool = False) -> bytes:
    """The one message in what is sent, put together."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    if deflate:
        client.extensions = [PerMessageDeflate(False, False, 15, 15)]
    client.receive_data(wire)
    frames = [one for one in client.events_received() if isinstance(one, Frame)]
    assert client.parser_exc is None
    assert [one.opcode for one in frames] == [Opcode.TEXT] + [Opcode.CONT] * (len(frames) - 1)
    assert [one.fin for one in frames] == [False] * (len(frames) - 1) + [True]
    return b"".join(bytes(one.data) for one in frames)


def whole(parts: Sequence[Batch]) -> list[Piece]:
    return [(one, 0, len(one)) for one in parts]


def bytes_of(pieces: Sequence[Piece]) -> bytes:
    return b"".join(bytes(batch.view[start:end]) for batch, start, end in pieces)


@pytest.mark.parametrize("deflate", [False, True])
def test_the_parts_are_the_whole(deflate: bool) -> None:
    rules = large_room()
    encoder = InstanceFrames(rules)
    player = next(iter(rules.players.values()))
    pieces = whole(encoder.welcome_parts(player, b"7"))
    if deflate:
        pieces = [batch.deflated(start, end) for batch, start, end in pieces]
    got = message_of(bytes_of(pieces), deflate=deflate)
    assert got == payload_of(encoder.welcome(player, b"7"))


def test_all_who_join_share_what_did_not_change() -> None:
    rules = large_room()
    encoder = InstanceFrames(rules)
    one, two, *_ = rules.players.values()
    first, second = encoder.welcome_parts(one, b"1"), encoder.welcome_parts(two, b"2")
    assert [a is b for a, b in zip(first, second, strict=True)] == [False] + [True] * 5
    rules.speak(two.id, "k0", 2.0, None, b'"new"', 10)
    third = encoder.welcome_parts(one, b"3")
    assert [a is b for a, b in zip(first, third, strict=True)] == [False, True, False] + [True] * 3
    assert message_of(bytes_of(whole(third))) == payload_of(encoder.welcome(one, b"3"))
    rules.leave(one.session, 11)  # the first, before whose values there is no comma
    encoder.forget(one.id)
    fourth = encoder.welcome_parts(two, b"4")
    assert message_of(bytes_of(whole(fourth))) == payload_of(encoder.welcome(two, b"4"))


def test_many_that_do_not_read_hold_little_more_than_one() -> None:
    rules = large_room(players=8, keys=4)
    encoder = InstanceFrames(rules)
    player = next(iter(rules.players.values()))
    held: dict[int, int] = {}
    for state in range(64):
        backlog = Backlog(64 * KIB)
        assert backlog.push(whole(encoder.welcome_parts(player, b"%d" % state)))
        for number in range(8):  # enough to conflate what waits
            newer = Batch([text_frame(b"%d" % number * 9000)], ["k"])
            assert backlog.push(whole([newer]))
            backlog.conflate()
        held |= {id(view.obj): view.obj.__sizeof__() for view in backlog.views()}
    snapshot = len(encoder.welcome(player, b"1"))
    assert snapshot > 2 * SHARED_FROM_BYTES
    assert sum(held.values()) < snapshot + 64 * 12 * KIB


def test_a_snapshot_in_parts_may_pass_the_limit_once() -> None:
    parts = [Batch([bytes(1000)], snapshot=True) for _ in range(10)]
    backlog = Backlog(500)
    assert backlog.push(whole(parts))
    assert backlog.push(whole([Batch([bytes(400)])]))
    assert not backlog.push(whole([Batch([bytes(200)])]))


def test_a_small_snapshot_is_one_frame() -> None:
    rules = room()
    (player,) = filled(rules, 1)
    encoder = InstanceFrames(rules)
    (part,) = encoder.welcome_parts(player, b"1")
    assert part.snapshot
    assert part.buffer == encoder.welcome(player, b"1")


def test_the_parts_come_in_a_row_before_what_all_get() -> None:
    fanout, sink = Fanout(), FakeSink()
    parts = [Batch([text_frame(b"%d" % number)], snapshot=True) for number in range(3)]
    fanout.broadcast(text_frame(b"before"))
    fanout.add(sink, parts)
    fanout.broadcast(text_frame(b"after"))
    fanout.answer(sink, parts[:2])
    fanout.broadcast(text_frame(b"last"))
    fanout.flush()
    texts = [payload_of(one) for one in sink.frames]
    assert texts == [b"0", b"1", b"2", b"after", b"0", b"1", b"last"]
