"""Frames by hand, held against the `websockets` library's parser."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from benchmarks.frames import (
    MARKER,
    STAMP_BEFORE_MARKER,
    FrameReader,
    Template,
    client_frame,
    close_code,
    masked,
    payload,
)


def server_reads(data: bytes | bytearray) -> list[bytes]:
    """The payloads that a server of the `websockets` library finds in a client's bytes."""
    protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=None)
    protocol.receive_data(bytes(data))
    assert protocol.parser_exc is None
    return [
        bytes(event.data) for event in protocol.events_received() if isinstance(event, TheirFrame)
    ]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_server_reads_every_size(size: int) -> None:
    data = b"x" * size
    assert server_reads(client_frame(data)) == [data]


@given(st.binary(max_size=64))
def test_masking_twice_gives_the_data_back(data: bytes) -> None:
    assert masked(masked(data)) == data


def test_a_payload_is_json_of_the_size_asked_for_with_one_marker() -> None:
    data = payload(42, 150)
    assert len(data) == 150
    assert data.count(MARKER) == 1
    found = json.loads(data)
    assert int(found["s"]) == 42
    assert int(found["t"]) == 0
    assert found["m"].encode() == MARKER


def test_a_payload_too_small_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="at least") as caught:
        payload(1, 10)
    needed = int("".join(filter(str.isdigit, str(caught.value))))
    assert len(payload(1, needed)) == needed


@given(st.integers(0, 10**19 - 1), st.integers(0, 7))
def test_a_template_carries_each_time_it_is_stamped_with(due_ns: int, shift: int) -> None:
    template = Template(b"." * shift + payload(7, 150))
    template.stamped(1)
    (data,) = server_reads(template.stamped(due_ns))
    stamp = data.index(MARKER) - STAMP_BEFORE_MARKER
    assert int(data[stamp : stamp + 19]) == due_ns
    assert data[:stamp] == (b"." * shift + payload(7, 150))[:stamp]
    assert template.last_ns == due_ns


def test_a_template_needs_a_marker() -> None:
    with pytest.raises(ValueError, match="subsection not found"):
        Template(b'{"no":"marker"}')


@given(
    st.lists(st.tuples(st.sampled_from([1, 9, 10]), st.binary(max_size=300)), max_size=6),
    st.integers(1, 50),
)
def test_the_reader_finds_all_frames_however_they_are_cut(
    frames: list[tuple[int, bytes]], piece: int
) -> None:
    cut = [(opcode, data[:125] if opcode > 8 else data) for opcode, data in frames]
    stream = b"".join(
        TheirFrame(Opcode(opcode), data).serialize(mask=False) for opcode, data in cut
    )
    reader = FrameReader()
    found = [
        (frame.opcode, frame.data)
        for begin in range(0, len(stream), piece)
        for frame in reader.feed(stream[begin : begin + piece])
    ]
    assert found == cut


def test_the_reader_reads_a_frame_of_more_than_64_kib() -> None:
    data = b"y" * 70_000
    stream = TheirFrame(Opcode.TEXT, data).serialize(mask=False)
    assert [frame.data for frame in FrameReader().feed(stream)] == [data]


@pytest.mark.parametrize(("data", "code"), [(b"", None), (b"\x0f", None), (b"\x0f\xa8why", 4008)])
def test_the_close_code(data: bytes, code: int | None) -> None:
    assert close_code(data) == code
