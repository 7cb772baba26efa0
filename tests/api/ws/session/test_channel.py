"""The session API's sockets are declared as their messages are put together and taken apart."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.ws.declarations import Command
from api.ws.session.channel import (
    COMMANDS,
    EVENTS,
    SESSION_CHANNEL,
    AckMessage,
    ClosingPayload,
    EventMessage,
    RefusedPayload,
)
from reileta.errors import PayloadTooLarge, TooManyRequests
from reileta.protocol import session_frames
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import error_fields, payload_of
from reileta.protocol.session_frames import (
    ClientAck,
    ClientEvent,
    ClientWatch,
    MessageRefused,
    ack_frame,
    event_frame,
    new_event_id,
    parse,
    refusal_frame,
)
from tests.test_docs import rows

KINDS = {
    "server-notice",
    "hello",
    "state",
    "resource",
    "refused",
    "closing",
    "watch",
    "unwatch",
    "resource-updated",
    "resource-unwatched",
    "resource-queue",
}


def same(value: Any, type_: Any) -> bool:
    """Whether it is all that the type has, and nothing else."""
    return bool(json.loads(msgspec.json.encode(msgspec.convert(value, type_))) == value)


def test_both_have_their_kinds_of_events_and_close_codes() -> None:
    assert SESSION_CHANNEL.addresses == ("/ws/user", "/ws/autopilot")
    known = {session_frames.HELLO, session_frames.STATE, session_frames.RESOURCE}
    known |= {session_frames.REFUSED, session_frames.CLOSING}
    known |= {session_frames.WATCH, session_frames.UNWATCH, session_frames.RESOURCE_UPDATED}
    known |= {session_frames.RESOURCE_UNWATCHED, session_frames.RESOURCE_QUEUE}
    known.add(session_frames.SERVER_NOTICE)
    assert EVENTS.names | {command.name for command in COMMANDS} == known == KINDS
    told = {row[0] for row in rows("Close codes of the session API") if row[0].isdigit()}
    assert set(map(str, SESSION_CHANNEL.close_codes)) == told


def test_what_is_sent_is_described_as_it_is_framed() -> None:
    id_ = new_event_id()
    assert same(json.loads(payload_of(ack_frame(id_, 5))), AckMessage)
    closing = {"kind": session_frames.CLOSING, "code": 4000}
    last = event_frame(id_, 5, closing, status="error", reason="over")
    said = json.loads(payload_of(last))
    assert same(said, EventMessage)
    assert same(said["payload"], ClosingPayload)
    limited = {**closing, "code": 1008, "error": error_fields(TooManyRequests())}
    assert same(limited, ClosingPayload)
    error = PayloadTooLarge.field("state", "must be smaller")
    refused = json.loads(payload_of(refusal_frame(id_, new_event_id(), 5, error)))
    assert same(refused, EventMessage)
    assert same(refused["payload"], RefusedPayload)


def test_what_a_client_may_send_is_described_as_it_is_taken_apart() -> None:
    taken = [parse(json.dumps(command.example).encode()) for command in COMMANDS]
    ids = [command.example["id"] for command in COMMANDS]
    assert taken == [
        ClientEvent(ids[0], COMMANDS[0].example["payload"]["patch"]),
        ClientWatch(ids[1], "document", 17, watches=True),
        ClientWatch(ids[2], "document", 17, watches=False),
    ]
    for command in COMMANDS:
        assert same(command.example, EventMessage)
        assert same(command.example["payload"], command.takes)
        acked = parse(json.dumps(command.answer_example).encode())
        assert acked == ClientAck(command.example["id"])


@pytest.mark.parametrize(
    ("command", "message"),
    [(COMMANDS[0], EventMessage), (COMMANDS[0], AckMessage)]
    + [(command, command.takes) for command in COMMANDS],
)
def test_each_field_that_is_described_must_be_there(command: Command, message: Any) -> None:
    whole = command.answer_example if message is AckMessage else command.example
    for name in message.__struct_fields__:
        if name == "reason":  # it may be null, so it may be left out
            continue
        broken = json.loads(json.dumps(whole))
        del (broken["payload"] if message is command.takes else broken)[name]
        with pytest.raises(MessageRefused) as refused:
            parse(json.dumps(broken).encode())
        assert refused.value.code == CloseCode.FIELD_MISSING
