"""Counting: each delivery once, wherever the stream is cut; samples that tell the right time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frames import MARKER, STAMP_BEFORE_MARKER, payload
from benchmarks.tally import (
    CARRY,
    LEAST_SAMPLES,
    WINDOW_NS,
    Tally,
    calm_percentile,
    closing_code,
    latencies_between,
)


def message(due_ns: int, size: int = 150) -> bytes:
    """A frame of a server with a payload that was due then."""
    data = bytearray(payload(1, size))
    stamp = data.index(MARKER) - STAMP_BEFORE_MARKER
    data[stamp : stamp + 19] = b"%019d" % due_ns
    return b"\x81\x7e" + len(data).to_bytes(2) + bytes(data)


def feed(tally: Tally, stream_bytes: bytes, cuts: list[int], now_ns: int = 10_000) -> int:
    """Hands a tally the bytes cut at those places; the stream's count."""
    stream = tally.stream()
    edges = sorted({0, len(stream_bytes), *(cut % (len(stream_bytes) + 1) for cut in cuts)})
    for begin, end in pairwise(edges):
        tally.space[: end - begin] = stream_bytes[begin:end]
        tally.arrived(stream, end - begin, now_ns)
    assert stream.received_bytes == len(stream_bytes)
    return stream.delivered


def test_deliveries_that_were_discarded_count_by_their_bytes() -> None:
    tally = Tally(sample_every=7)
    read, other = tally.stream(), tally.stream(1)
    for number in range(1, 11):
        whole = message(number)
        tally.discarded(other, len(whole))
        assert tally.delivered == (2 * number - 1 if number > 1 else 0)  # of what size is it?
        tally.space[: len(whole)] = whole
        tally.arrived(read, len(whole), 10_000)
        assert tally.delivered == 2 * number
    assert other.received_bytes == read.received_bytes == 10 * len(message(1))
    assert len(tally.due_ns) == 2


@given(
    st.lists(st.integers(92, 400), min_size=1, max_size=20),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.integers(1, 7),
)
def test_each_delivery_counts_once_and_every_nth_is_sampled(
    sizes: list[int], cuts: list[int], every: int
) -> None:
    tally = Tally(sample_every=every, size=1 << 14)
    stream = b"".join(message(number, size) for number, size in enumerate(sizes, 1))
    assert feed(tally, stream, cuts) == tally.delivered == len(sizes)
    # Of frames of many sizes a neighbour of the nth may be taken: the way to it is guessed.
    wanted = list(range(1, len(sizes) + 1, every))
    assert len(tally.due_ns) == len(wanted)
    assert sorted(set(tally.due_ns)) == list(tally.due_ns)
    if len(set(sizes)) == 1:
        assert list(tally.due_ns) == wanted
    assert list(tally.latency_ns) == [10_000 - due for due in tally.due_ns]


def test_one_byte_at_a_time() -> None:
    tally = Tally(sample_every=1, size=64)
    stream = message(5) + message(6) + message(7)
    assert feed(tally, stream, list(range(len(stream)))) == 3
    assert list(tally.due_ns) == [5, 6, 7]


def test_two_streams_do_not_mix() -> None:
    tally = Tally(sample_every=1, size=1024)
    first, second = tally.stream(), tally.stream()
    data = message(1)
    cut = data.index(MARKER) + 3
    for stream, piece in ((first, data[:cut]), (second, data), (first, data[cut:])):
        tally.space[: len(piece)] = piece
        tally.arrived(stream, len(piece), 1)
    assert (first.delivered, second.delivered) == (1, 1)


def test_streams_begin_to_sample_at_different_deliveries() -> None:
    tally = Tally(sample_every=3)
    assert [tally.stream(number).until_sample for number in range(4)] == [1, 2, 3, 1]


@given(
    st.binary(max_size=20).filter(lambda data: b"\x89" not in data and MARKER not in data),
    st.integers(1, 40),
)
def test_a_ping_is_found_once_however_it_is_cut(asked: bytes, piece: int) -> None:
    tally = Tally(sample_every=1, size=1024)
    stream = tally.stream()
    data = message(1) + bytes([0x89, len(asked)]) + asked + message(2)
    found = []
    for begin in range(0, len(data), piece):
        part = data[begin : begin + piece]
        tally.space[: len(part)] = part
        tally.arrived(stream, len(part), 1)
        ping = tally.ping(len(part))
        if ping is not None:
            found.append(ping)
    assert found == [asked]


def test_a_stale_ping_of_another_stream_is_not_seen() -> None:
    tally = Tally(sample_every=1, size=1024)
    first, second = tally.stream(), tally.stream()
    tally.space[:3] = b"\x89\x01a"
    tally.arrived(first, 3, 1)
    assert tally.ping(3) == b"a"
    tally.space[:2] = b"\x81\x00"
    tally.arrived(second, 2, 1)
    assert tally.ping(2) is None


def test_the_close_code_at_the_end_of_a_stream() -> None:
    tally = Tally(sample_every=1, size=1024)
    stream = tally.stream()
    end = message(1) + b"\x88\x06\x0f\xa8slow"
    tally.space[: len(end)] = end
    tally.arrived(stream, len(end), 1)
    assert len(stream.tail) == CARRY
    assert closing_code(stream.tail) == 4008
    assert closing_code(message(1)) is None
    assert closing_code(b"\x88\x00") is None


def test_latencies_of_a_span_are_those_that_were_due_in_it() -> None:
    tally = Tally(sample_every=1, size=4096)
    feed(tally, b"".join(message(due) for due in (100, 200, 300, 400)), [])
    assert latencies_between(tally, 200, 400) == [9800, 9700]


def test_a_pause_of_the_machine_does_not_change_the_calm_percentile() -> None:
    tally = Tally(sample_every=1)
    for window in range(5):
        for number in range(LEAST_SAMPLES):
            tally.due_ns.append(1000 + window * WINDOW_NS + number)
            tally.latency_ns.append(900 if window == 3 else 10 * window + number)
    assert calm_percentile(tally, 1000, 1000 + 5 * WINDOW_NS, 0.99) == 20 + 98
    tally.due_ns.append(1000 + 5 * WINDOW_NS)
    tally.latency_ns.append(7)
    assert calm_percentile(tally, 1000 + 5 * WINDOW_NS, 10 * WINDOW_NS, 0.99) is None
