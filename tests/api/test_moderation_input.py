"""The input that moderates somebody, over HTTP and on the WebSocket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from actors.instance_service import ModerationRequest
from api.moderation_input import ModerateInput
from api.ws.registry.connection import parse_data
from reileta.errors import MessageInvalid, ModerationInvalid, PlayerNotFound
from reileta.protocol.input_types import check

PLAYER = "p_9c4b7e55-3d2a-4b1f-8a6e-5f4d3c2b1a09"


def over_http(body: dict[str, Any]) -> ModerateInput:
    return check(ModerateInput, body, ModerationInvalid)


def on_the_socket(data: dict[str, Any]) -> ModerateInput:
    return parse_data(Raw(json.dumps(data).encode()), ModerateInput)


def test_its_example_is_valid() -> None:
    example = ModerateInput.model_json_schema()["examples"][0]
    request = over_http(example).request()
    assert request == ModerationRequest("ada", "mute", "no singing", 1900000000000)


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        ({"player": PLAYER, "type": "kick"}, ModerationRequest(PLAYER, "kick")),
        (
            {"user": "ada", "type": "ban", "reason": "spam", "until": 5},
            ModerationRequest("ada", "ban", "spam", 5),
        ),
        ({"user": "ada", "type": "ban", "until": 5.0}, ModerationRequest("ada", "ban", None, 5)),
        (
            {"user": "ada", "type": "ban", "until": 2**53 - 1},
            ModerationRequest("ada", "ban", None, 2**53 - 1),
        ),
    ],
)
def test_both_take_the_same(body: dict[str, Any], request_: ModerationRequest) -> None:
    assert over_http(body).request() == on_the_socket(body).request() == request_


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "kick"}, "user"),
        ({"player": PLAYER, "user": "ada", "type": "kick"}, "user"),
        ({"user": "ada", "type": "ban", "until": -1}, "until"),
        ({"user": "ada", "type": "ban", "until": 2**53}, "until"),
        ({"user": "ada", "type": "ban", "until": 2**63}, "until"),
        ({"user": "ada", "type": "ban", "until": 0.5}, "until"),
        ({"user": "ada", "type": "ban", "until": True}, "until"),
        ({"user": "ada\0", "type": "ban"}, "user"),
        ({"user": "a" * 257, "type": "ban"}, "user"),
        ({"user": "ada", "type": "b" * 257}, "type"),
        ({"user": "ada", "type": "ban", "reason": 5}, "reason"),
    ],
)
def test_both_refuse_the_same_and_name_the_field(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ModerationInvalid) as http:
        over_http(body)
    with pytest.raises(MessageInvalid) as socket:
        on_the_socket(body)
    assert [detail.field for detail in http.value.details] == [field]
    assert [detail.field for detail in socket.value.details] == [f"data.{field}"]
    assert [one.message for one in http.value.details] == [
        one.message for one in socket.value.details
    ]


def test_a_player_is_meant_by_its_id() -> None:
    with pytest.raises(PlayerNotFound):
        over_http({"player": "ada", "type": "kick"}).request()
