from __future__ import annotations

import io
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reileta.diagnostics.recording import (
    MAGIC,
    RECORD_LIMIT,
    Called,
    Ended,
    NotARecording,
    Opened,
    Received,
    Record,
    RecordingReader,
    encode,
)
from reileta.rules.identity import Visitor

RECORDS: list[Record] = [
    Opened("i_1", 5, "0.1.0"),
    Received(6, "SendData", 41, 40, 2**64 - 1, 3),
    Called("speak", ["p_1", "k", 1.5, None, b"\x00\xff{", 6], {}, (), None),
    Called("join", [], {"now": 7}, ("p_2",), "InstanceFull"),
    Ended(9, "crashed", "Boom", b"\x01" * 32),
]
DATA = MAGIC + b"".join(map(encode, RECORDS))


def read(data: bytes) -> tuple[list[Record], str | None]:
    reader = RecordingReader(io.BytesIO(data))
    return list(reader), reader.damage


def shown(records: list[Record]) -> list[str]:
    """As text, since a list and a tuple of the same are not equal."""
    return [repr(one).replace("(", "[").replace(")", "]").replace(",]", "]") for one in records]


def test_what_was_written_is_read() -> None:
    records, damage = read(DATA)
    assert damage is None
    assert shown(records) == shown(RECORDS)


@settings(deadline=None)
@given(st.integers(len(MAGIC), len(DATA)))
def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_record(size: int) -> None:
    whole = [len(MAGIC)]
    for record in RECORDS:
        whole.append(whole[-1] + len(encode(record)))
    records, damage = read(DATA[:size])
    assert len(records) == sum(end <= size for end in whole) - 1
    assert (damage is None) == (size in whole)
    if damage is not None:
        assert damage.startswith("the last record is truncated, at byte ")
        assert int(damage.split()[-1]) in whole


@settings(deadline=None)
@given(st.integers(len(MAGIC), len(DATA) - 1), st.integers(1, 255))
def test_a_byte_that_changed_is_noticed(place: int, change: int) -> None:
    data = bytearray(DATA)
    data[place] ^= change
    records, damage = read(bytes(data))
    assert damage is not None
    assert shown(records) == shown(RECORDS[: len(records)])


@pytest.mark.parametrize("length", [0, RECORD_LIMIT + 1, 2**32 - 1])
def test_a_length_that_no_record_has_is_damage(length: int) -> None:
    records, damage = read(MAGIC + length.to_bytes(4, "little") + bytes(1000))
    assert records == []
    assert damage == f"it is damaged from byte {len(MAGIC)} on"


def test_a_record_of_an_unknown_kind_is_damage() -> None:
    body = b"\x91\xa4what"
    data = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body
    assert read(MAGIC + data) == ([], f"it is damaged from byte {len(MAGIC)} on")


@pytest.mark.parametrize("data", [b"", b"{}\n", b"reileta recording", b"\x00" * 100_000])
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(NotARecording, match="this is not a recording"):
        RecordingReader(io.BytesIO(data))


def test_another_version_is_refused_by_its_number() -> None:
    with pytest.raises(NotARecording, match="has version 2; this Reileta reads version 1"):
        RecordingReader(io.BytesIO(b"reileta recording 2\n" + DATA[len(MAGIC) :]))


def test_fields_of_a_later_reileta_are_passed_over() -> None:
    class Later(Opened, frozen=True, array_like=True, tag="opened"):
        more: str = "new"

    records, damage = read(MAGIC + encode(Later("i_1", 5, "0.9.0")))
    assert damage is None
    assert records == [Opened("i_1", 5, "0.9.0")]


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**40, 2**64 - 1])
def test_integers_of_any_size_are_kept(number: int) -> None:
    who = Visitor("s_1", "u_1@home", "A", friends=frozenset({"u_2@home"}))
    args: list[Any] = [{"deep": [number]}, number, b"\xff", who]
    records, _ = read(MAGIC + encode(Called("x", args, {"at": number}, (), None)))
    (called,) = records
    assert isinstance(called, Called)
    assert called.args[:3] == [{"deep": [number]}, number, b"\xff"]
    assert called.args[3]["friends"] == ["u_2@home"]
    assert called.kwargs == {"at": number}


@pytest.mark.parametrize("strange", [object(), "\ud800"])
def test_what_can_t_be_written_down_raises(strange: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(Called("x", [strange], {}, (), None))
