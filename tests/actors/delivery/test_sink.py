"""The fake sockets of the tests are sinks, and read what they are given as a client would."""

from __future__ import annotations

import pytest

from actors.delivery.batch import Batch
from actors.delivery.sink import Sink
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import event, text_frame
from tests.actors.sinks import FakeSink, SlowSink


def test_a_sink_has_what_it_was_given_in_order() -> None:
    fake = FakeSink()
    sink: Sink = fake
    batch = Batch([event("a", None, b"{}"), event("b", None, b"{}"), event("c", None, b"{}")])
    sink.write([(batch, batch.ends[0], batch.ends[2]), (batch, 0, batch.ends[0])])
    sink.send(event("d", None, b"{}"))
    assert fake.said() == ["b", "c", "a", "d"]
    assert fake.said() == []
    sink.close(CloseCode.CREDENTIAL_GONE, "gone")
    sink.close(CloseCode.GOING_AWAY)
    sink.send(text_frame(b"{}"))
    assert (fake.closed, fake.frames) == ((4000, "gone"), [])


def test_pieces_are_whole_frames() -> None:
    batch = Batch([text_frame(b"{}")])
    with pytest.raises(AssertionError):
        FakeSink().write([(batch, 0, 2)])


def test_a_slow_one_has_it_later() -> None:
    sink = SlowSink()
    sink.send(text_frame(b'{"command":"a","data":1}'))
    assert (sink.waiting_bytes, sink.said()) == (26, [])
    sink.read()
    assert (sink.waiting_bytes, sink.said()) == (0, ["a"])
