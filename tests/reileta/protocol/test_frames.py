"""Messages as WebSocket frames, against a client's own reading of RFC 6455."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from reileta.errors import InstanceFull, InstanceInvalid
from reileta.protocol.frames import (
    DEFLATE_FROM,
    DataFrames,
    answer,
    deflate,
    encode,
    event,
    failure,
    payload_of,
    text_frame,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def parsed(raw: bytes, *extensions: Extension) -> Frame:
    """The one frame in the bytes, as a client reads it."""
    reader = StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    steps = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert reader.buffer == b""
    frame: Frame = done.value.value
    return frame


def read(raw: bytes) -> Any:
    frame = parsed(raw)
    assert (frame.opcode, frame.fin, frame.rsv1) == (Opcode.TEXT, True, False)
    return json.loads(bytes(frame.data))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_every_length_is_framed_as_clients_read_it(size: int) -> None:
    payload = b"x" * size
    frame = text_frame(payload)
    assert parsed(frame).data == payload
    assert payload_of(frame) == payload
    assert payload_of(memoryview(frame)) == payload


@pytest.mark.parametrize("size", [0, 10, DEFLATE_FROM, 500, 70_000])
def test_compressed_frames_hold_the_same(size: int) -> None:
    payload = encode(["ä" * size])
    frame = text_frame(payload)
    packed = deflate(memoryview(frame))
    assert (packed == frame) == (len(frame) < DEFLATE_FROM)
    assert len(packed) <= len(frame)
    # No context is kept from one frame to the next: each can be dropped or conflated.
    client = PerMessageDeflate(True, True, 15, 15)
    assert [parsed(packed, client).data for _ in range(2)] == [payload, payload]


@given(state=values, data=values, subgroup=st.none() | st.text())
def test_answers_hold_what_was_sent_along_byte_for_byte(
    state: object, data: object, subgroup: str | None
) -> None:
    sent = json.dumps(state, indent=1).encode()
    raw = json.dumps(data, ensure_ascii=True, indent=2).encode()
    frame = answer("ping", sent, subgroup, raw)
    assert sent in frame
    assert raw in frame
    expected = {"state": state, "command": "ping", "subgroup": subgroup, "data": data}
    if subgroup is None:
        del expected["subgroup"]
    assert read(frame) == expected


def test_an_event_has_no_state_and_an_answer_may_be_empty() -> None:
    assert read(event("update-user", "u_1", b'{"a":1}')) == {
        "command": "update-user",
        "subgroup": "u_1",
        "data": {"a": 1},
    }
    assert read(answer("instance-data", b"null", None)) == {
        "state": None,
        "command": "instance-data",
        "data": {},
    }


def test_failures_name_the_error_and_the_fields() -> None:
    error = InstanceInvalid.field("capacity", "must be 1 to 1024")
    assert read(failure("instance-join", b'{"n": [1]}', "i_1", error)) == {
        "state": {"n": [1]},
        "command": "instance-join",
        "subgroup": "i_1",
        "error": {
            "code": 33,
            "message": "Instance invalid input",
            "details": [{"field": "capacity", "message": "must be 1 to 1024"}],
        },
    }
    assert read(failure(None, None, None, InstanceFull())) == {
        "error": {"code": 48, "message": "Instance is full"}
    }


@given(data=values, key=st.none() | st.text(min_size=1), at=st.none() | st.floats(-1e9, 1e9))
def test_data_is_passed_on_byte_for_byte(data: object, key: str | None, at: float | None) -> None:
    raw = json.dumps(data, ensure_ascii=False, indent=1).encode(errors="surrogatepass")
    frames = DataFrames("i_1", "p_1")
    frame = frames.keyed(key, at, raw)
    assert frame.endswith(b'"data":%b}}' % raw)
    inner = {"player": "p_1", "key": key, "at": at, "data": data}
    assert read(frame) == {
        "command": "instance-data",
        "subgroup": "i_1",
        "data": {
            name: value
            for name, value in inner.items()
            if name not in ("key", "at") or value is not None
        },
    }
    if key is None and at is None:
        assert frames.plain(raw) == frame


def test_a_raw_value_stays_as_it_is() -> None:
    assert encode(msgspec.Raw(b"[ 1 ]")) == b"[ 1 ]"
