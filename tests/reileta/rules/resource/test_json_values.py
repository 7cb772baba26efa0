from __future__ import annotations

import json
import math
from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.errors import MessageInvalid, PayloadTooLarge, ResourceInvalid
from reileta.rules.resource.json_values import (
    DEPTH_LIMIT,
    VALUES_LIMIT,
    Json,
    Unstorable,
    decode,
    encode,
    is_deeper,
    read,
    refuse_if_unstorable,
    same,
    values_within,
)
from tests.reileta.json_strategies import values

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
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"-Infinity",
        b'"\xff"',
        b'{"\xff":1}',
        b"\xef\xbb\xbf" * 2 + b"1",
        b"[1,]",
    ],
)
def test_what_is_no_json_is_refused_at_its_field(text: bytes) -> None:
    with pytest.raises(ResourceInvalid, match="data: must be JSON"):
        decode(text, limit_bytes=LIMIT, field="data", error=ResourceInvalid)


def test_a_byte_order_mark_before_json_does_not_count() -> None:
    assert read(b'\xef\xbb\xbf{"a":1}') == {"a": 1}
    assert decode("\ufeff[1]", limit_bytes=99) == [1]


def test_half_a_surrogate_pair_is_refused_as_text_and_as_value() -> None:
    with pytest.raises(MessageInvalid):
        decode('"\ud800"', limit_bytes=LIMIT)
    with pytest.raises(MessageInvalid):
        refuse_if_unstorable("\ud800", limit_bytes=LIMIT, field="data")


def test_the_limit_is_of_bytes() -> None:
    assert decode('"é"', limit_bytes=4) == "é"
    with pytest.raises(PayloadTooLarge):
        decode('"é"', limit_bytes=3)
    with pytest.raises(PayloadTooLarge):
        refuse_if_unstorable("é", limit_bytes=3, field="data")


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
    assert refuse_if_unstorable({"a": (1, None)}, limit_bytes=99, field="data") == {"a": [1, None]}
    for other in (object(), math.nan, math.inf, {1: "a"}):
        with pytest.raises(MessageInvalid):
            refuse_if_unstorable({"a": (1, other)}, limit_bytes=99, field="data")
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(MessageInvalid, match="nested"):
        refuse_if_unstorable(deep, limit_bytes=10**6, field="data")


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


def values_of(value: Json) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(values_of, value.values()))
    return 1 + sum(map(values_of, value)) if isinstance(value, list) else 1


def depth_of(value: Json) -> int:
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth_of, inner), default=0)
    return 0


marks = st.text(st.sampled_from('[]{},:"\\ x'), max_size=6)
marked: st.SearchStrategy[Json] = st.recursive(
    marks | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(marks, inner, max_size=3),
    max_leaves=20,
)


@given(marked, st.sampled_from([None, 1, "\t"]), st.integers(0, 5))
def test_values_and_depth_are_counted_as_if_they_were_followed(
    value: Json, indent: int | str | None, limit: int
) -> None:
    text = json.dumps(value, indent=indent).encode()
    assert values_within(text) == values_of(value)
    assert is_deeper(text, limit) is (depth_of(value) > limit)
    if values_of(value) > limit:
        with pytest.raises(Unstorable):
            read(text, values_limit=limit)
    else:
        assert read(text, values_limit=limit) == value


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        ('{"a":1e400}', "a", "range"),
        ('{"a":{"b":[1,-1e309]}}', "a.b.1", "range"),
        ("[1" + "0" * 309 + "]", "0", "range"),
        ("1e400", "", "range"),
        ('{"a":1e-400}', "a", "must be 0"),
        ('{"a":[0,-0.' + "0" * 330 + "1]}", "a.1", "must be 0"),
        ('{"a":0.' + "0" * 40 + "1e-289}", "a", "must be 0"),
        ("9007199254740993.0", "", "digits"),
        ('{"a":-9007199254740993e0}', "a", "digits"),
        ('{"a":[9.007199254740993E+15]}', "a.0", "digits"),
        ('{"a":123456789012345678901234567890.5}', "a", "digits"),
        ('{"a":12345678901234567.5}', "a", "digits"),
        ('{"a":3.14159265358979323846}', "a", "digits"),
        ('{"a":0.000' + "1" * 900 + "}", "a", "digits"),
        ('{"a":{"b":1,"c":2,"b":3}}', "a.b", "repeat"),
        ('{"a":1,"a":1}', "a", "repeat"),
        ('{"a":"\\u003a\\u003A","b":1,"b":2}', "b", "repeat"),
        ('{"a":1,"\\u0061":2}', "a", "repeat"),
        ('{"a":["\\ud800"]}', "a.0", "surrogate"),
        ('{"a":"\\udc00\\ud800"}', "a", "surrogate"),
        ('{"b":0,"\\udfff":1}', "?", "surrogate"),
    ],
)
def test_what_can_not_be_kept_is_named(text: str, path: str, what: str) -> None:
    with pytest.raises(Unstorable, match=what) as refused:
        read(text.encode())
    assert refused.value.path == path
    with pytest.raises(ResourceInvalid) as told:
        decode(text, limit_bytes=LIMIT, field="data", error=ResourceInvalid)
    assert told.value.details[0].field == ".".join(filter(None, ("data", path)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1" + "0" * 308, 10**308),
        ("-9007199254740993", -9007199254740993),
        ("0e-999", 0.0),
        ("9007199254740992.0", 9007199254740992.0),
        ("0.10000000000000001", 0.1),
        ("5.684341886080802E-14", 2.0**-44),
        (f"{0.1:.55f}", 0.1),
        (f"{1e23:.1f}", 1e23),
        ("1e23", 1e23),
        ("3.14159265358979310000", math.pi),
        ('"9007199254740993.0"', "9007199254740993.0"),
        ('{"9007199254740993.0":1}', {"9007199254740993.0": 1}),
        ("-0.0", -0.0),
        ("0." + "0" * 400, 0.0),
        ("5e-324", 5e-324),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ('"' + "1" * 400 + '"', "1" * 400),
        ('{"a":"e-999 \\u003a :","b":1}', {"a": "e-999 : :", "b": 1}),
        ('"\\u0000"', "\0"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_what_looks_odd_and_can_be_kept_is(text: str, value: Json) -> None:
    kept = decode(text, limit_bytes=LIMIT)
    assert same(kept, value)
    assert same(decode(encode(kept), limit_bytes=LIMIT), value)


def test_a_fault_far_on_is_refused_without_its_place() -> None:
    for fault in ("1e400", "1e-400", '{"a":1,"a":2}'):
        with pytest.raises(Unstorable) as refused:
            read(b"[" + b"0," * 9_000 + fault.encode() + b"]")
        assert refused.value.path == ""


def test_too_many_values_are_too_large() -> None:
    for text in ("[" + "[]," * VALUES_LIMIT + "1]", "[" + '"",' * VALUES_LIMIT + "1]"):
        with pytest.raises(PayloadTooLarge, match="values"):
            decode(text, limit_bytes=10**6)
    assert decode("[" + "[]," * (VALUES_LIMIT - 2) + "1]", limit_bytes=10**6)
    assert decode('["' + "[,{" * 50_000 + '"]', limit_bytes=10**6)


numbers = st.one_of(
    st.integers(-(10**320), 10**320).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
)


def loses_digits(text: str) -> bool:
    """Whether the nearest float, written with as many digits, is another number."""
    given = Decimal(text).normalize(Context(prec=10_000))
    digits = len(given.as_tuple().digits)
    fraction = int(given.as_tuple().exponent) < 0
    if digits <= 15 or (digits <= 17 and fraction) or not math.isfinite(float(text)):
        return False
    return Decimal(f"{float(text):.{digits - 1}e}") != given


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(17, 800))
def test_a_float_may_be_written_with_as_many_digits_as_one_likes(
    number: float, digits: int
) -> None:
    for text in (f"{number:.{digits}e}", f"{number:.{digits}g}"):
        kept = decode(text, limit_bytes=LIMIT)
        assert isinstance(kept, int) or same(kept, number)


@given(numbers)
def test_a_number_is_kept_as_it_is_or_refused(text: str) -> None:
    whole = text.lstrip("-").isdigit()
    expected: int | float = int(text) if whole else float(text)
    zero = (
        not whole
        and expected == 0
        and any(c in "123456789" for c in text.split("e")[0].split("E")[0])
    )
    loses = not whole and loses_digits(text)
    try:
        kept = decode(text, limit_bytes=LIMIT)
    except MessageInvalid:
        assert zero or loses or abs(float(text)) == math.inf
    else:
        assert not zero
        assert not loses
        assert same(kept, expected) or (kept, expected) == (0, 0)
        assert same(decode(encode(kept), limit_bytes=LIMIT), kept)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", ":", "c:"]), marked), max_size=4))
def test_a_name_that_is_given_twice_is_found(members: list[tuple[str, Json]]) -> None:
    text = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members)
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        with pytest.raises(Unstorable, match="repeat"):
            read(b'{"x":{%b}}' % text.encode())
    else:
        assert read(b"{%b}" % text.encode()) == dict(members)
