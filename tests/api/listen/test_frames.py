"""The frames of HTTP/2: whole ones, the same however they are split, and no more than is fair."""

from __future__ import annotations

from itertools import pairwise

import pytest
from h2.errors import ErrorCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from api.listen.frames import (
    BANK,
    BURST,
    FRAME_LIMIT_BYTES,
    FULL_BYTES,
    PER_S,
    SETTINGS_LIMIT,
    FrameReader,
    FrameRefused,
    FrameType,
)
from api.listen.http1 import PREFACE
from api.listen.request_head import HEAD_LIMIT_BYTES
from tests.api.listen.h2client import frame

PINGS = frame(FrameType.PING, bytes(8))


def begun() -> FrameReader:
    reader = FrameReader()
    assert read(reader, PREFACE) == []
    return reader


def read(reader: FrameReader, data: bytes, now: float = 0.0) -> list[bytes]:
    """The frames that come out. Raises FrameRefused."""
    reader.feed(data)
    frames = []
    while (one := reader.next(now)) is not None:
        frames.append(one.data)
    return frames


def code_of(reader: FrameReader, data: bytes, now: float = 0.0) -> ErrorCodes | None:
    """Why the connection ends."""
    try:
        read(reader, data, now)
    except FrameRefused as refused:
        return refused.code
    return None


def test_a_burst_and_no_more() -> None:
    reader = begun()
    assert len(read(reader, PINGS * BURST)) == BURST
    assert code_of(reader, PINGS) == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_rate_in_the_long_run() -> None:
    reader = begun()
    for second in range(100):
        assert code_of(reader, PINGS * PER_S, float(second)) is None
    codes = [code_of(reader, PINGS * PER_S * 2, float(second)) for second in range(100, 200)]
    assert ErrorCodes.ENHANCE_YOUR_CALM in codes


@pytest.mark.parametrize("kind", [kind for kind in range(12) if kind != FrameType.CONTINUATION])
def test_every_kind_counts(kind: int) -> None:
    flags = 4 if kind == FrameType.HEADERS else 0
    one = frame(kind, bytes(4), flags=flags, stream=1)
    assert code_of(begun(), one * (BURST + 1)) == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("size", "counts"),
    [(0, True), (FULL_BYTES - 1, True), (FULL_BYTES, False), (FRAME_LIMIT_BYTES, False)],
)
def test_data_is_counted_when_it_carries_little(size: int, counts: bool) -> None:
    reader = begun()
    codes = {
        code_of(reader, frame(FrameType.DATA, bytes(size), stream=1)) for _ in range(BURST + 1)
    }
    assert codes == ({None, ErrorCodes.ENHANCE_YOUR_CALM} if counts else {None})


def test_credit_is_kept_within_bounds() -> None:
    reader = begun()
    reader.allow(10 * BANK)
    assert code_of(reader, PINGS * (BANK + BURST), 1_000.0) is None
    assert code_of(reader, PINGS, 1_000.0) == ErrorCodes.ENHANCE_YOUR_CALM


def test_time_takes_no_credit_away() -> None:
    reader = begun()
    reader.allow(100)
    assert code_of(reader, PINGS * (100 + BURST), 1_000.0) is None


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ErrorCodes.PROTOCOL_ERROR),
        (PREFACE[:-1] + b"x", ErrorCodes.PROTOCOL_ERROR),
        (b"x", ErrorCodes.PROTOCOL_ERROR),
        (PREFACE + (FRAME_LIMIT_BYTES + 1).to_bytes(3) + bytes(6), ErrorCodes.FRAME_SIZE_ERROR),
        (PREFACE + b"\xff\xff\xff" + bytes(6), ErrorCodes.FRAME_SIZE_ERROR),
        (PREFACE + frame(FrameType.CONTINUATION, stream=1), ErrorCodes.PROTOCOL_ERROR),
        (PREFACE + frame(FrameType.HEADERS, stream=1) + PINGS, ErrorCodes.PROTOCOL_ERROR),
        (PREFACE + frame(FrameType.HEADERS, stream=1) * 2, ErrorCodes.PROTOCOL_ERROR),
        (
            PREFACE + frame(FrameType.SETTINGS, bytes(6 * (SETTINGS_LIMIT + 1))),
            ErrorCodes.ENHANCE_YOUR_CALM,
        ),
        (
            PREFACE + frame(FrameType.HEADERS, b"\x20\x3f\x01\x20\x82", flags=4, stream=1),
            ErrorCodes.COMPRESSION_ERROR,
        ),
        (
            PREFACE
            + frame(FrameType.HEADERS, bytes(FRAME_LIMIT_BYTES), stream=1)
            + frame(FrameType.CONTINUATION, bytes(HEAD_LIMIT_BYTES), stream=1),
            ErrorCodes.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_what_ends_a_connection(sent: bytes, code: ErrorCodes) -> None:
    assert code_of(FrameReader(), sent) == code
    reader = FrameReader()
    codes = [code_of(reader, bytes([byte])) for byte in sent]
    assert code in codes


def test_a_frame_that_is_too_long_is_refused_by_its_header() -> None:
    """Nothing of it is waited for."""
    header = (FRAME_LIMIT_BYTES + 1).to_bytes(3) + bytes(6)
    assert code_of(begun(), header) == ErrorCodes.FRAME_SIZE_ERROR


frames = st.lists(
    st.builds(
        frame,
        st.sampled_from([0, 2, 3, 6, 7, 8, 10, 200]),
        st.binary(max_size=40) | st.just(bytes(FULL_BYTES)),
        flags=st.integers(0, 255),
        stream=st.integers(0, 9),
    )
    | st.builds(frame, st.just(4), st.binary(max_size=40))
    | st.builds(frame, st.just(1), st.just(b"\x82"), flags=st.just(4), stream=st.integers(0, 9)),
    max_size=30,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(frames, st.lists(st.integers(0, 4_000), max_size=20))
def test_any_split_gives_the_same(parts: list[bytes], cuts: list[int]) -> None:
    data = PREFACE + b"".join(parts)
    counted = sum(part[3] != FrameType.DATA or len(part) < 9 + FULL_BYTES for part in parts)
    reader, taken = FrameReader(), []
    for start, end in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        taken += read(reader, data[start:end])
    known = set(FrameType) - {FrameType.PRIORITY}
    assert taken == [part for part in parts if part[3] in known]
    assert code_of(reader, PINGS * (BURST - counted)) is None
    assert code_of(reader, PINGS) == ErrorCodes.ENHANCE_YOUR_CALM
