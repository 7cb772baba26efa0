from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.errors import MessageInvalid, PayloadTooLarge, ResourceInvalid
from reileta.jsonvalues import DEPTH_LIMIT, Json, decode, encode, same, settle
from tests.reileta.jsons import values

LIMIT = 64 * 1024


@given(values)
def test_what_is_encoded_is_decoded_as_it_was(value: Json) -> None:
    text = encode(value)
    assert same(decode(text, limit_bytes=LIMIT), value)
    assert encode(decode(text, limit_bytes=LIMIT)) == text
    assert json.loads(text) == value


def test_the_text_is_canonical() -> None:
    assert (
        encode({"b": [1, 1.0, True, None], "a": "é\0"}) == '{"a":"é\\u0000","b":[1,1.0,true,null]}'
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nul", b"NaN", b"-Infinity", b'"\xff"', b'{"\xff":1}', b"\xef\xbb\xbf1", b"[1,]"],
)
def test_what_is_no_json_is_refused_at_its_field(text: bytes) -> None:
    with pytest.raises(ResourceInvalid, match="data: must be JSON"):
        decode(text, limit_bytes=LIMIT, field="data", error=ResourceInvalid)


def test_half_a_surrogate_pair_is_refused_as_text_and_as_value() -> None:
    with pytest.raises(MessageInvalid):
        decode('"\ud800"', limit_bytes=LIMIT)
    with pytest.raises(MessageInvalid):
        settle("\ud800", limit_bytes=LIMIT, field="data")


def test_the_limit_is_of_bytes() -> None:
    assert decode('"é"', limit_bytes=4) == "é"
    with pytest.raises(PayloadTooLarge):
        decode('"é"', limit_bytes=3)
    with pytest.raises(PayloadTooLarge):
        settle("é", limit_bytes=3, field="data")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return opening * (depth - 1) + ("[]" if opening == "[" else "{}") + closing * (depth - 1)

    allowed = decode(nested(DEPTH_LIMIT), limit_bytes=10**6)
    assert encode(allowed) == nested(DEPTH_LIMIT)
    for depth in (DEPTH_LIMIT + 1, 500):
        with pytest.raises(MessageInvalid, match="nested"):
            decode(nested(depth), limit_bytes=10**6)
    with pytest.raises(PayloadTooLarge):
        decode(nested(50_000), limit_bytes=10**6)


def test_wide_is_not_deep() -> None:
    assert decode("[" + ",".join(["[]"] * 500) + "]", limit_bytes=10**6) == [[]] * 500


def test_brackets_within_strings_are_not_deep() -> None:
    assert decode('"' + "[" * 500 + '"', limit_bytes=10**6) == "[" * 500


def test_what_code_made_is_settled_as_it_will_be_kept() -> None:
    assert settle({"a": (1, None)}, limit_bytes=99, field="data") == {"a": [1, None]}
    for other in (object(), math.nan, math.inf, {1: "a"}):
        with pytest.raises(MessageInvalid):
            settle({"a": (1, other)}, limit_bytes=99, field="data")
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(MessageInvalid, match="nested"):
        settle(deep, limit_bytes=10**6, field="data")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (1, True, False),
        (0, False, False),
        ([{"a": 1}], [{"a": True}], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (None, None, True),
        (None, False, False),
    ],
)
def test_the_same_is_the_same_json(one: Json, other: Json, equal: bool) -> None:
    assert same(one, other) is equal


@given(st.integers(-(2**80), 2**80))
def test_whole_numbers_of_any_size_stay(number: int) -> None:
    assert decode(encode(number), limit_bytes=99) == number
