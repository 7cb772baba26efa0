"""What each server is sent, and how its answers are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.connect import Target
from benchmarks.dialects import Plain, Reileta, SocketIo, choose, decode, read_tokens
from benchmarks.errors import BenchmarkError
from benchmarks.frames import payload

TARGET = Target("127.0.0.1", 3032, secure=False)


def test_reileta_joins_and_sends_by_the_protocol() -> None:
    dialect = Reileta(["ua_a", "ua_b", "ua_c"], ["i_1", "i_2"], group=2)
    assert dialect.headers(2)["Authorization"] == "Bearer ua_c"
    assert json.loads(dialect.greeting(2) or b"") == {
        "state": "join", "command": "instance-join", "data": {"instance": "i_2"},
    }  # fmt: skip
    sent = json.loads(dialect.message(1, payload(1, 150)))
    assert sent["command"] == "instance-data"
    assert sent["subgroup"] == "i_1"
    assert "key" not in sent
    assert sent["data"] == json.loads(payload(1, 150))


def test_reileta_sends_a_key_when_told_to() -> None:
    sent = json.loads(Reileta(["t"], ["i_1"], 2, "position").message(0, b"{}"))
    assert sent["key"] == "position"


def test_without_an_instance_nothing_is_joined() -> None:
    assert Reileta(["t"]).greeting(0) is None


def test_a_join_is_answered_by_its_state_and_refused_by_its_error() -> None:
    dialect = Reileta(["t"], ["i_1"], 2)
    assert not dialect.greeted(0, b'{"command":"authenticated","data":{}}')
    assert dialect.greeted(0, b'{"state":"join","command":"instance-join","data":{}}')
    with pytest.raises(BenchmarkError, match="48 Instance is full"):
        dialect.greeted(0, b'{"state":"join","error":{"code":48,"message":"Instance is full"}}')


def test_what_is_no_message_is_said() -> None:
    with pytest.raises(BenchmarkError, match="invalid message"):
        decode(b"<html>")


def test_peers_have_a_room_for_each_group() -> None:
    assert [Plain(2).path(number) for number in (0, 1, 2)] == ["/room-0", "/room-0", "/room-1"]
    assert SocketIo(2).path(3).endswith("transport=websocket&room=room-1")
    assert Plain(2).greeting(0) is None


def test_socket_io_opens_its_namespace_and_emits() -> None:
    dialect = SocketIo(2)
    assert dialect.greeting(0) == b"40"
    assert dialect.greeted(0, b'40{"sid":"x"}')
    assert not dialect.greeted(0, b'0{"sid":"x"}')
    assert json.loads(dialect.message(0, b'{"a":1}')[2:]) == ["data", {"a": 1}]


@pytest.mark.parametrize(
    ("name", "tokens", "instance", "why"),
    [
        ("carrier-pigeon", [], None, "unknown protocol"),
        ("reileta", ["one"], None, "4 players need 4 tokens; the file has 1"),
        ("reileta", ["t"] * 4, "i_1", "a named instance"),
    ],
)
def test_what_cannot_be_measured_is_said(
    name: str, tokens: list[str], instance: str | None, why: str
) -> None:
    with pytest.raises(BenchmarkError, match=why):
        choose(name, TARGET, tokens, players=4, group=2, instance=instance)


def test_a_named_instance_is_joined_as_it_is() -> None:
    dialect = choose("reileta", TARGET, ["t"] * 4, players=4, group=4, instance="i_1")
    assert isinstance(dialect, Reileta)
    assert dialect.instances == ["i_1"]


def test_tokens_are_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("ua_1\nua_2\n\n")
    assert read_tokens(file) == ["ua_1", "ua_2"]
    assert read_tokens(None) == []


def test_a_token_file_that_is_empty_or_absent_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(BenchmarkError, match="no token"):
        read_tokens(tmp_path / "empty")
    with pytest.raises(BenchmarkError, match="cannot read"):
        read_tokens(tmp_path / "absent")
