"""The commands `reileta servers …`, with a stand-in for the database."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest

from reileta import cli
from reileta.cli_options import variable
from reileta.errors import Overloaded
from reileta.records import PeerServer
from reileta.rules.federation.server_rules import Rule
from reileta.settings import Settings
from tests import logs
from tests.reileta.cli_modules import stand_in

KEY, OTHER = "K" * 43, "O" * 43
B = PeerServer(
    address="b.example:3032",
    host="b.example",
    secure=True,
    state="pending",
    public_key=KEY,
    key_since=0,
    offered_key=OTHER,
    offered_at=0,
    gateway_http=None,
    gateway_ws=None,
    version=None,
    first_seen=0,
    last_seen=0,
)


class FakeCommands(types.ModuleType):
    """Stands in the place of what the commands do to the database."""

    def __init__(self) -> None:
        super().__init__("reileta.store.server_commands")
        self.put: list[tuple[str, str, str | None, int | None]] = []
        self.full = False

    def list_servers(self, settings: Settings) -> Any:
        rules = [
            Rule("evil.example", "block", "root", 0, reason="it's\x1b spam", until=2_000),
            Rule("old.example", "block", "root", 0, until=1_000),
        ]
        return types.SimpleNamespace(now_ms=1_000, servers=(B,), rules=rules)

    def put_rule(
        self, settings: Settings, pattern: str, kind: str, *, reason: str | None, until: int | None
    ) -> None:
        if self.full:
            raise Overloaded
        self.put.append((pattern, kind, reason, until))

    def delete_rule(self, settings: Settings, pattern: str) -> bool:
        return pattern == "evil.example"

    def accept_key(self, settings: Settings, address: str, key: str) -> PeerServer | None:
        if address != B.address:
            return None
        return B if key != OTHER else types.SimpleNamespace(public_key=OTHER)  # type: ignore[return-value]


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCommands]:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    fake = FakeCommands()
    stand_in(monkeypatch, "reileta.store.server_commands", fake)
    with logs.restored():
        yield fake


def test_a_list_has_the_servers_and_the_rules_that_hold(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["servers", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("b.example:3032", "pending", f"key={KEY}", f"offered={OTHER}"),
        "seen=1970-01-01T00:00:00Z",
    ]
    assert lines[1].startswith("evil.example  rule=block  until=1970-01-01T00:00:02Z  reason=")
    assert "\x1b" not in lines[1]
    assert len(lines) == 2


def test_rules_are_set_for_hosts_in_any_spelling(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    far = "2999-01-01"
    assert cli.main(["servers", "block", "EVIL.example.:8443", "--reason", "spam"]) == 0
    assert capsys.readouterr().err == "evil.example is blocked\n"
    assert cli.main(["servers", "silence", "bücher.example", "--until", far]) == 0
    assert cli.main(["servers", "allow", "[2001:DB8::1]"]) == 0
    assert [one[:3] for one in tools.put] == [
        ("evil.example", "block", "spam"),
        ("xn--bcher-kva.example", "silence", None),
        ("[2001:db8::1]", "allow", None),
    ]
    assert tools.put[1][3] == 32_472_144_000_000
    tools.full = True
    assert cli.main(["servers", "block", "evil.example"]) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["block", "a b"],
        ["block", "127.1"],
        ["block", "evil.example", "--until", "yesterday"],
        ["block", "evil.example", "--until", "2001-01-01"],
        ["block", "evil.example", "--reason", "x" * 501],
        ["unblock", ""],
        ["accept-key", "a b", KEY],
        ["accept-key", "b.example"],
        ["block"],
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main(["servers", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tools.put == []


def test_what_is_not_there_is_status_1(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["servers", "unblock", "evil.example"]) == 0
    assert cli.main(["servers", "unblock", "good.example"]) == 1
    assert capsys.readouterr().err.endswith("there is no rule about good.example\n")
    assert cli.main(["servers", "accept-key", "c.example", OTHER]) == 1
    assert capsys.readouterr().err == "reileta: c.example is not known\n"
    assert cli.main(["servers", "accept-key", "b.example:3032", KEY[:-1] + "x"]) == 1
    assert capsys.readouterr().err == f"reileta: b.example:3032 offers {OTHER}\n"
    assert cli.main(["servers", "accept-key", "B.example:3032", OTHER]) == 0
