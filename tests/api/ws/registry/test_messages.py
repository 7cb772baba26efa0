from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from api.ws.registry.commands import DATA_DEPTH
from api.ws.registry.connection import InvalidMessage, parse, parse_data
from api.ws.registry.inputs import AuthenticateInput, InstanceInput, PingInput, TopicInput
from reileta.errors import MessageInvalid
from reileta.protocol.frames import DataFrames, payload_of
from reileta.protocol.input_types import Input
from reileta.rules.resource.json_values import is_deeper
from reileta.unicode import is_utf8


def strict(text: bytes) -> Any:
    """The value, as a parser that takes nothing but JSON in UTF-8 reads it."""

    def refuse(name: str) -> float:
        raise ValueError(name)

    return json.loads(text.decode("utf-8"), parse_constant=refuse)


def relayed(payload: bytes) -> bytes:
    """What receivers get of an `instance-data` message that is taken."""
    message = parse(payload)
    frames = DataFrames("i_1", "p_1")
    return payload_of(frames.keyed(message.key, message.at, bytes(message.data)))


def test_a_message_with_everything() -> None:
    message = parse(
        b'{"command": "instance-data", "state": {"n": [1]}, "subgroup": "i_1",'
        b' "data":  {"x": 1.50} , "key": "k", "at": 7, "to": ["p_1", "p_2"], "more": true}'
    )
    assert message.command == "instance-data"
    assert message.wanted == b'{"n": [1]}'
    assert message.subgroup == "i_1"
    assert bytes(message.data) == b'{"x": 1.50}'
    assert (message.key, message.at, message.to) == ("k", 7, ("p_1", "p_2"))


@pytest.mark.parametrize("state", [b"", b', "state": null'])
def test_without_state_no_answer_is_wanted(state: bytes) -> None:
    assert parse(b'{"command": "ping"%b}' % state).wanted is None


@pytest.mark.parametrize("state", [b"0", b'""', b"false", b"[]", b"1.0", b'"\\u00e9"', b" 5 "])
def test_state_comes_back_as_it_was_sent(state: bytes) -> None:
    assert parse(b'{"command": "ping", "state":%b}' % state).wanted == state.strip()


BROKEN: list[tuple[bytes, str]] = [
    (b"", "message"),
    (b" ", "message"),
    (b"null", "message"),
    (b"5", "message"),
    (b'"text"', "message"),
    (b"[]", "message"),
    (b"[" * 30_000, "message"),
    (b"{", "message"),
    (b"{}", "command"),
    (b"{'command': 'ping'}", "message"),
    (b'{"command": "ping",}', "message"),
    (b'{"command": "ping"} {}', "message"),
    (b'{"command": "ping"', "message"),
    (b"\xef\xbb\xbf\xef\xbb\xbf{}", "message"),
    (b'\xef\xbb\xbf{"command": 5}', "command"),
    (b'{"command": "ping" /* why */}', "message"),
    (b'{"command": "pi\nng"}', "message"),
    (b'{"command": "\\ud800"}', "message"),
    (b'{"command": NaN}', "message"),
    (b'{"command": null}', "command"),
    (b'{"command": 7}', "command"),
    (b'{"command": ["ping"]}', "command"),
    (b'{"command": "x", "subgroup": 7}', "subgroup"),
    (b'{"command": "x", "key": 7}', "key"),
    (b'{"command": "x", "key": ["k"]}', "key"),
    (b'{"command": "x", "at": "now"}', "at"),
    (b'{"command": "x", "at": true}', "at"),
    (b'{"command": "x", "at": 1e999}', "at"),
    (b'{"command": "x", "at": %b}' % (b"9" * 5_000), "at"),
    (b'{"command": "x", "to": "p_1"}', "to"),
    (b'{"command": "x", "to": [7]}', "to"),
    (b'{"command": "x", "to": {"p_1": 1}}', "to"),
    (b'{"command": "x", "data": %b1%b}' % (b"[" * 20_000, b"]" * 20_000), "message"),
    (b'{"command": "x", "data": %b1%b}' % (b'{"a":' * 9_000, b"}" * 9_000), "message"),
]


@pytest.mark.parametrize(("payload", "field"), BROKEN, ids=range(len(BROKEN)))
def test_broken_messages_name_the_field(payload: bytes, field: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(payload)
    (detail,) = caught.value.error.details
    assert detail.field == field
    assert detail.message
    assert caught.value.error.code == 119


def test_what_can_be_told_of_a_broken_message_is_kept() -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(b'{"subgroup": "i_1", "command": "instance-data", "state": [7], "at": "now"}')
    assert caught.value.state == b"[7]"
    assert caught.value.command == "instance-data"
    assert caught.value.subgroup == "i_1"
    with pytest.raises(InvalidMessage) as caught:
        parse(b'{"subgroup": 1, "command": 2, "state": null}')
    assert (caught.value.state, caught.value.command, caught.value.subgroup) == (None, None, None)


NO_JSON = [
    *(b"01", b"1.", b".5", b"-", b"+1", b"1e", b"1e+", b"0x10", b"-01", b"--1", b"1_000"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nul", b"True", b"undefined"),
    *(b'"\\x41"', b'"\\u12"', b'"\\uZZZZ"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\'),
    *(b'"a\x00b"', b'"a\nb"', b'"a\tb"', b"'a'", b'"a'),
    *(b"[1,]", b"[,]", b"[1 2]", b"[1", b"]", b'{"a":1,}', b'{"a"}', b"{1:2}", b'{"a" 1}'),
    *(b"1 // no", b"/**/1", b"\x0c1", b"\xa01", b"1;", b"1,2"),
]


@pytest.mark.parametrize("data", NO_JSON)
def test_data_that_others_could_not_parse_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        parse(b'{"command": "instance-data", "data": %b}' % data)


@pytest.mark.parametrize(
    "data",
    [b"1e999", b"-0", b"1E+2", b'"\\u0000\x7f\\/"', b'"\\ud83d\\ude00"', b'{"a":1,"a":2}', b'""'],
)
def test_odd_json_is_passed_on_byte_for_byte(data: bytes) -> None:
    wire = relayed(b'{"command": "instance-data", "data":\t%b\n}' % data)
    assert wire.endswith(b'"data":%b}}' % data)
    strict(wire)


def test_of_a_field_given_twice_the_last_counts() -> None:
    message = parse(b'{"command":"a","command":"b","state":1,"state":2,"data":1,"data":[2]}')
    assert (message.command, message.wanted, bytes(message.data)) == ("b", b"2", b"[2]")


@pytest.mark.parametrize(
    "at", [b"0", b"-5", b"1.5", b"18446744073709551616", b"-9223372036854775809", b"1e308"]
)
def test_large_times_are_passed_on(at: bytes) -> None:
    value = strict(relayed(b'{"command":"instance-data","data":1,"at":%b}' % at))["data"]["at"]
    assert value == json.loads(at)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(values, st.text(min_size=1, max_size=64), st.integers() | st.none(), st.booleans())
def test_what_is_sent_is_what_arrives(data: object, key: str, at: int | None, plain: bool) -> None:
    sent = {"command": "instance-data", "data": data, "key": key, "at": at}
    payload = json.dumps(sent, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    assert is_utf8(payload) == (plain or not any("\ud800" <= c <= "\udfff" for c in key))
    if not is_utf8(payload):
        return
    try:
        wire = relayed(payload)
    except InvalidMessage:
        assert any("\ud800" <= c <= "\udfff" for c in json.dumps(sent, ensure_ascii=False))
        return
    got = strict(wire)["data"]
    assert got["data"] == data
    assert got["key"] == key
    assert got.get("at") == at


fragments = st.lists(
    st.sampled_from(
        [
            *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"-", b"1", b"0", b".", b"e"),
            *(b'"a"', b"null", b"true", b"1.5e3", b'"\\u00e9"', b'"\\ud800"', b"\xc3\xa9", b"\n"),
            *(b'{"a":', b"[1,", b'"\\ud83d', b"\\ude00", b"\x00", b"NaN", b"\xe2\x80\xa8"),
        ]
    ),
    max_size=12,
)


@settings(max_examples=400, deadline=None)
@given(fragments)
def test_whatever_is_taken_is_json_for_everybody(parts: list[bytes]) -> None:
    data = b"".join(parts)
    payload = b'{"command":"instance-data","data":%b}' % data
    if not is_utf8(payload):
        return
    try:
        message = parse(payload)
    except InvalidMessage:
        return
    if not bytes(message.data):
        return  # `"data":` was closed, and something else began
    wire = strict(relayed(payload))
    expected = strict(payload)["data"]
    assert wire["data"]["data"] == expected or math.isinf(expected)


@pytest.mark.parametrize(
    ("type_", "data", "field"),
    [
        (InstanceInput, b"", "data.instance"),
        (InstanceInput, b"{}", "data.instance"),
        (InstanceInput, b'{"instance": 7}', "data.instance"),
        (InstanceInput, b"[]", "data"),
        (InstanceInput, b"null", "data.instance"),
        (TopicInput, b'{"target": "u_1"}', "data.event"),
        (TopicInput, b'{"event": "x", "target": 1}', "data.target"),
        (AuthenticateInput, b'{"token": {}}', "data.token"),
        (AuthenticateInput, b"{}", "data.token"),
        (AuthenticateInput, b'{"token": "a", "integrity": "b"}', "data.token"),
        (InstanceInput, b'{"instance": ""}', "data.instance"),
        (InstanceInput, b'{"instance": "%b"}' % (b"x" * 513), "data.instance"),
        (InstanceInput, b'{"instance": 1e999}', "data.instance"),
        (TopicInput, b'{"event": "x", "target": "%b"}' % (b"x" * 257), "data.target"),
        (TopicInput, b'{"event": "x", "target": "\\u0000"}', "data.target"),
    ],
)
def test_data_of_a_command_names_the_field(type_: type[Input], data: bytes, field: str) -> None:
    with pytest.raises(MessageInvalid) as caught:
        parse_data(Raw(data), type_)
    assert [detail.field for detail in caught.value.details] == [field]


@pytest.mark.parametrize("left_out", [b"null", b'""'])
def test_a_credential_may_come_with_an_empty_one_of_the_other_kind(left_out: bytes) -> None:
    guest = parse_data(Raw(b'{"token": %b, "integrity": "ia_1"}' % left_out), AuthenticateInput)
    assert (guest.token or guest.integrity) == "ia_1"
    user = parse_data(Raw(b'{"token": "ua_1", "integrity": %b}' % left_out), AuthenticateInput)
    assert (user.token or user.integrity) == "ua_1"


def test_data_of_a_command() -> None:
    assert parse_data(Raw(b'{"instance": "i_1", "more": 1}'), InstanceInput).instance == "i_1"
    assert bytes(parse_data(Raw(b""), PingInput).time) == b"null"
    assert bytes(parse_data(Raw(b'{"time": [1, 2]}'), PingInput).time) == b"[1, 2]"


@pytest.mark.parametrize(
    ("data", "deep"),
    [
        (b"[" * DATA_DEPTH + b"]" * DATA_DEPTH, False),
        (b"[" * (DATA_DEPTH + 1) + b"]" * (DATA_DEPTH + 1), True),
        (b'{"a":' * (DATA_DEPTH + 1) + b"1" + b"}" * (DATA_DEPTH + 1), True),
        (b"[" + b"[]," * 500 + b"[]]", False),
        (b'"' + b"[" * 500 + b'"', False),
        (b'"\\"' + b"[{" * 500 + b'\\\\"', False),
        (b'["]","' + b"[" * 100 + b'"]', False),
    ],
)
def test_what_is_nested_too_deeply_to_be_relayed(data: bytes, deep: bool) -> None:
    assert is_deeper(data, DATA_DEPTH) is deep
