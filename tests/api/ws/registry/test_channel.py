"""`/api/ws` as a whole: how it ends, and what its messages are."""

from __future__ import annotations

import json

import msgspec
import pytest

from api.ws.registry.channel import REGISTRY_CHANNEL, ServerMessage
from reileta.errors import MessageInvalid
from reileta.protocol.frames import answer, event, failure, payload_of
from tests.test_docs import rows


def test_every_close_code_is_in_it() -> None:
    told = {row[0] for row in rows("Close codes") if row[0].isdigit()}
    assert set(map(str, REGISTRY_CHANNEL.close_codes)) == told


@pytest.mark.parametrize(
    "frame",
    [
        answer("ping", b'{"mine":1}', None, b'{"client":1}'),
        answer("instance-join", b"1", "i_1", b"{}"),
        event("update-user", "u_1", b"{}"),
        failure("ping", b"1", "avr", MessageInvalid.field("data", "is required")),
        failure(None, None, None, MessageInvalid()),
    ],
)
def test_messages_are_described_as_they_are_framed(frame: bytes) -> None:
    said = json.loads(payload_of(frame))
    whole = msgspec.convert(said, ServerMessage)
    assert json.loads(msgspec.json.encode(whole)) == said
