"""Events and Acks: what is sent, and each way of getting it wrong with its close code."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from reileta.errors import PayloadTooLarge
from reileta.protocol.frames import payload_of
from reileta.protocol.session_frames import (
    ClientAck,
    ClientEvent,
    MessageRefused,
    ack_frame,
    event_frame,
    iso,
    new_event_id,
    parse,
    refusal_frame,
)

ID = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
NOW = 1_790_000_000_123
EVENT: dict[str, Any] = {
    "type": "event",
    "id": ID,
    "sent_at": iso(NOW),
    "status": "ok",
    "reason": None,
    "payload": {"kind": "state", "patch": {"x": 1}},
}
ACK: dict[str, Any] = {"type": "ack", "id": ID, "sent_at": iso(NOW)}


def said(frame: bytes) -> Any:
    return json.loads(payload_of(frame))


def test_iso_8601_is_the_format_of_s() -> None:
    assert iso(NOW) == "2026-09-21T14:13:20.123000+0000"
    parsed = datetime.strptime(iso(NOW), "%Y-%m-%dT%H:%M:%S.%f%z")
    assert round(parsed.timestamp() * 1000) == NOW


def test_an_event_says_what_it_is() -> None:
    assert said(event_frame(ID, NOW, {"kind": "state", "patch": {"x": 1}})) == EVENT


def test_an_ack_names_the_event() -> None:
    assert said(ack_frame(ID, NOW)) == ACK


def test_a_refusal_names_the_event_and_why() -> None:
    frame = said(refusal_frame(new_event_id(), ID, NOW, PayloadTooLarge()))
    assert (frame["status"], frame["reason"]) == ("error", "Payload too large")
    assert frame["payload"]["event"] == ID
    assert frame["payload"]["error"]["code"] == 103


def test_what_clients_send_is_understood_and_an_unknown_field_ignored() -> None:
    assert parse(json.dumps({**EVENT, "more": 1}).encode()) == ClientEvent(ID, {"x": 1})
    assert parse(json.dumps({**ACK, "more": 1}).encode()) == ClientAck(ID)


def test_a_field_that_may_be_null_may_be_left_out() -> None:
    assert parse(json.dumps(without("reason")).encode()) == ClientEvent(ID, {"x": 1})
    assert parse(json.dumps({**EVENT, "reason": "why"}).encode()) == ClientEvent(ID, {"x": 1})


@pytest.mark.parametrize(
    "time", ["2016-12-31T23:59:60.000000+0000", "1990-12-31T15:59:60-08:00", "2016-12-31T23:59:60Z"]
)
def test_an_event_may_be_sent_in_a_leap_second(time: str) -> None:
    assert parse(json.dumps({**EVENT, "sent_at": time}).encode()) == ClientEvent(ID, {"x": 1})


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in EVENT.items() if key != name}


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (None, 4001),
        (b"nothing", 4002),
        (b"[]", 4002),
        (b'{"x": "\xff"}', 4002),
        (b"[" * 100_000, 4002),
        ({}, 4003),
        *((without(name), 4003) for name in EVENT if name != "reason"),
        ({**EVENT, "payload": {}}, 4003),
        ({**EVENT, "payload": {"kind": "state"}}, 4003),
        ({"type": "ack", "id": ID}, 4003),
        ({**EVENT, "type": 1}, 4004),
        ({**EVENT, "id": 1}, 4004),
        ({**EVENT, "reason": 1}, 4004),
        ({**EVENT, "payload": 1}, 4004),
        ({**EVENT, "payload": {"kind": 1}}, 4004),
        ({**EVENT, "payload": {"kind": "state", "patch": [1]}}, 4004),
        ({**ACK, "sent_at": None}, 4004),
        ({**EVENT, "type": "other"}, 4005),
        ({"type": "other"}, 4005),
        ({"type": "ack "}, 4005),
        ({"type": "other", "id": 1, "sent_at": 1}, 4005),
        ({**EVENT, "status": "fatal"}, 4005),
        ({**EVENT, "id": "1"}, 4005),
        ({**EVENT, "sent_at": "today"}, 4005),
        ({**EVENT, "sent_at": "2016-12-31T23:59:61.000000+0000"}, 4005),
        ({**EVENT, "sent_at": "2016-12-31T23:60:00.000000+0000"}, 4005),
        ({**EVENT, "sent_at": "2026-09-21T14:13:20"}, 4005),
        ({**EVENT, "status": "fine"}, 4005),
        ({**EVENT, "reason": "x" * 2000}, 4005),
        ({**EVENT, "payload": {"kind": "other"}}, 4005),
        (
            {
                **EVENT,
                "payload": {"kind": "state", "patch": {"x": json.loads("[" * 70 + "]" * 70)}},
            },
            4005,
        ),
    ],
)
def test_each_fault_has_its_close_code(sent: Any, code: int) -> None:
    payload = json.dumps(sent).encode() if isinstance(sent, dict) else sent
    with pytest.raises(MessageRefused) as refused:
        parse(payload)
    assert refused.value.code == code
    assert refused.value.reason
