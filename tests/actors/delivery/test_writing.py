"""Writing to sockets at once: what the system takes is sent, and each sink learns of the rest."""

from __future__ import annotations

import pytest

from actors.delivery.batch import Batch
from actors.delivery.writing import COPIED_BYTES, Picked, write_picked, write_pieces, write_whole
from reileta.observability.metrics import Metrics
from reileta.protocol.frames import text_frame
from tests.actors.sinks import DirectSink, FakeSink


def frame(text: str) -> bytes:
    return text_frame(text.encode())


def test_what_can_be_sent_directly_is_and_each_sink_learns_of_the_rest() -> None:
    frames = [frame("one"), frame("two")]
    batch, metrics = Batch(frames), Metrics()
    ready, slow, full, kept = DirectSink(1000), DirectSink(3), DirectSink(None), FakeSink()
    write_whole([full, ready, slow, kept], batch, metrics)
    assert (ready.sent, ready.rests, ready.frames) == ([batch.buffer], [], [])
    assert (slow.sent, slow.rests, slow.frames) == ([batch.buffer[:3]], [3], [])
    assert (full.sent, full.rests, full.frames) == ([], [], frames)
    assert kept.frames == frames
    assert metrics.bytes_out == len(batch.buffer)  # the others count for themselves


@pytest.mark.parametrize("length", [3, COPIED_BYTES])
def test_pieces_are_sent_directly_if_they_are_short(length: int) -> None:
    frames = [frame(letter * length) for letter in "abc"]
    batch, metrics = Batch(frames), Metrics()
    size = len(frames[0])
    pieces = [(batch, 0, size), (batch, 2 * size, 3 * size)]
    ready, slow, full = DirectSink(10**6), DirectSink(7), DirectSink(None)
    for sink in (ready, slow, full):
        write_pieces(sink, pieces, metrics)
    data = frames[0] + frames[2]
    if length < COPIED_BYTES:
        assert (ready.sent, ready.frames) == ([data], [])
        assert (slow.sent, slow.rests, slow.frames) == ([data[:7]], [7], [])
        assert metrics.bytes_out == len(data)
    else:
        assert [sink.sent for sink in (ready, slow)] == [[], []]
        assert ready.frames == slow.frames == [frames[0], frames[2]]
    assert full.frames == [frames[0], frames[2]]


def test_picked_frames_of_several_batches_are_one_write() -> None:
    one, other = Batch([frame(letter) for letter in "abcd"]), Batch([frame("e")])
    picked = [Picked(one, one.frames(), [0, 2, 3]), Picked(other, other.frames(), [0])]
    frames, metrics = [frame(letter) for letter in "acde"], Metrics()
    ready, slow, full, kept = DirectSink(1000), DirectSink(7), DirectSink(None), FakeSink()
    for sink in (ready, slow, full, kept):
        write_picked(sink, picked, metrics)
    data = b"".join(frames)
    assert (ready.sent, ready.frames) == ([data], [])
    assert (slow.sent, slow.rests, slow.frames) == ([data[:7]], [7], [])
    assert full.frames == kept.frames == frames
    assert (full.writes, kept.writes) == (1, 1)
    assert metrics.bytes_out == len(data)
