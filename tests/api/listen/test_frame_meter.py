"""The frames of HTTP/2 that a client may send."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from api.listen.frame_meter import BANK, BURST, FULL_BYTES, PER_S, FrameMeter
from api.listen.http1 import PREFACE
from tests.api.listen.h2client import frame

DATA, SETTINGS, PING = 0, 4, 6


def begun(now: float = 0.0) -> FrameMeter:
    meter = FrameMeter()
    assert meter.take(PREFACE, now)
    return meter


def test_a_burst_and_no_more() -> None:
    meter = begun()
    assert meter.take(frame(PING, bytes(8)) * BURST, 0.0)
    assert not meter.take(frame(PING, bytes(8)), 0.0)


def test_a_rate_in_the_long_run() -> None:
    meter = begun()
    for second in range(100):
        assert meter.take(frame(SETTINGS) * PER_S, float(second))
    for second in range(100, 200):
        if not meter.take(frame(SETTINGS) * PER_S * 2, float(second)):
            return
    raise AssertionError("twice the rate is taken for ever")


def test_data_is_counted_when_it_carries_little() -> None:
    for size, counted in ((0, True), (FULL_BYTES - 1, True), (FULL_BYTES, False), (16_384, False)):
        meter = begun()
        taken = all(meter.take(frame(DATA, bytes(size)), 0.0) for _ in range(BURST + 1))
        assert taken is not counted, size


def test_credit_is_kept_within_bounds() -> None:
    meter = begun()
    meter.allow(10 * BANK)
    assert meter.take(frame(PING, bytes(8)) * (BANK + BURST), 1_000.0)
    assert not meter.take(frame(PING, bytes(8)), 1_000.0)


def test_time_takes_no_credit_away() -> None:
    meter = begun()
    meter.allow(100)
    assert meter.take(b"", 1_000.0)
    assert meter.take(frame(PING, bytes(8)) * (100 + BURST), 1_000.0)


frames = st.lists(
    st.builds(
        frame,
        st.integers(0, 12),
        st.binary(max_size=40) | st.just(bytes(FULL_BYTES)),
        flags=st.integers(0, 255),
        stream=st.integers(0, 9),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(frames, st.lists(st.integers(0, 4_000), max_size=20))
def test_any_split_counts_the_same(parts: list[bytes], cuts: list[int]) -> None:
    data = PREFACE + b"".join(parts)
    counted = sum(1 for part in parts if part[3] != DATA or len(part) < 9 + FULL_BYTES)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    meter = FrameMeter()
    for start, end in pairwise(edges):
        assert meter.take(data[start:end], 0.0)
    assert meter.take(frame(PING) * (BURST - counted), 0.0)
    assert not meter.take(frame(PING), 0.0)
