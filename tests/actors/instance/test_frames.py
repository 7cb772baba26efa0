"""What an instance says, in JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.instance.frames import InstanceFrames
from reileta.protocol.frames import payload_of
from reileta.rules.instance.events import Left
from tests.reileta.instances import filled, room, user, visitor


def read(frame: bytes) -> Any:
    return msgspec.json.decode(payload_of(frame))


def test_a_welcome_holds_all_that_a_player_must_know() -> None:
    rules = room()
    one, two = filled(rules, 1, 2)
    rules.speak(one.id, "pose", 2.5, None, b"[1, 2.0]", 3)
    rules.speak(two.id, "name", None, None, b'"x"', 3)
    frame = InstanceFrames(rules).welcome(two, b'{"n": 1}')
    assert payload_of(frame).startswith(b'{"state":{"n": 1},"command":"instance-join",')
    assert b'"data":[1, 2.0]' in payload_of(frame)  # byte for byte
    assert read(frame)["data"] == {
        "instance": rules.record.id,
        "player": two.id,
        "role": "normal",
        "players": [
            {
                "player": one.id,
                "user": user(1),
                "displayname": "User 1",
                "role": "master",
                "joined_at": 0,
            },
            {
                "player": two.id,
                "user": user(2),
                "displayname": "User 2",
                "role": "normal",
                "joined_at": 1,
            },
        ],
        "retained": [
            {"player": one.id, "key": "pose", "data": [1, 2.0], "at": 2.5},
            {"player": two.id, "key": "name", "data": "x"},
        ],
    }


def test_a_player_s_view_is_made_anew_when_its_role_changed() -> None:
    rules = room()
    one, two = filled(rules, 1, 2)
    encoder = InstanceFrames(rules)
    before = encoder.player_view(two)
    assert encoder.player_view(two) is before
    rules.leave(one.session, 5)
    assert msgspec.json.decode(encoder.player_view(two))["role"] == "master"


def test_a_restored_player_gets_the_same_as_an_event() -> None:
    rules = room()
    (one,) = filled(rules, 1)
    encoder = InstanceFrames(rules)
    restored, welcome = read(encoder.restored(one)), read(encoder.welcome(one, b"1"))
    assert (restored["command"], restored["subgroup"]) == ("instance-restored", rules.record.id)
    assert "state" not in restored
    assert restored["data"] == welcome["data"]


def test_a_moderators_reason_is_for_the_player_alone() -> None:
    rules = room()
    (one,) = filled(rules, 1)
    encoder = InstanceFrames(rules)
    left = Left(one, "kicked", "rude")
    frame, data = encoder.left(left)
    assert read(frame)["data"] == msgspec.json.decode(data)
    assert msgspec.json.decode(data) == {"player": one.id, "user": user(1), "reason": "kicked"}
    assert read(encoder.left_of_player(left))["data"]["note"] == "rude"
    assert "note" not in read(encoder.left_of_player(Left(one, "closed")))["data"]
    assert read(encoder.abandoned("i_1", one))["data"]["reason"] == "closed"


def test_nothing_is_kept_of_one_that_is_gone() -> None:
    rules = room()
    encoder = InstanceFrames(rules)
    player, _ = rules.join(visitor(1), 0)
    frame, data = encoder.joined(player)
    assert read(frame)["data"] == msgspec.json.decode(data)
    kept = encoder.player_view(player)
    encoder.forget(player.id)
    encoder.forget(player.id)
    assert encoder.player_view(player) is not kept
    assert read(encoder.farewell(player.id, b"2")) == {
        "state": 2,
        "command": "instance-leave",
        "subgroup": rules.record.id,
        "data": {"instance": rules.record.id, "player": player.id},
    }
