"""The commands `reileta clients …`, with a stand-in for the database."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

from reileta import cli
from reileta.cli_options import variable
from reileta.errors import Overloaded
from reileta.rules.client_rules import ClientRule, ClientRuleKind
from reileta.settings import Settings
from tests import logs
from tests.reileta.cli_modules import stand_in

USER = "u_00000000-0000-4000-8000-000000000007"


class FakeCommands(types.ModuleType):
    """Stands in the place of what the commands do to the database."""

    def __init__(self) -> None:
        super().__init__("reileta.store.client_commands")
        self.put: list[tuple[str, str, str | None, int | None]] = []
        self.full = False

    def list_rules(self, settings: Settings) -> list[ClientRule]:
        return [
            ClientRule("network", "192.0.2.0/24", "root", 0, reason="it's\x1b spam", until=2_000),
            ClientRule("agent", "badbot*", "root", 0),
        ]

    def put_rule(
        self,
        settings: Settings,
        kind: ClientRuleKind,
        pattern: str,
        *,
        reason: str | None,
        until: int | None,
    ) -> None:
        if self.full:
            raise Overloaded
        self.put.append((kind, pattern, reason, until))

    def delete_rule(self, settings: Settings, kind: ClientRuleKind, pattern: str) -> bool:
        return (kind, pattern) == ("network", "192.0.2.0/24")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCommands]:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    fake = FakeCommands()
    stand_in(monkeypatch, "reileta.store.client_commands", fake)
    with logs.restored():
        yield fake


def test_a_list_has_the_rules(tools: FakeCommands, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["clients", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("network  192.0.2.0/24  until=1970-01-01T00:00:02Z  reason=")
    assert "\x1b" not in lines[0]
    assert lines[1:] == ["agent  badbot*"]


def test_rules_are_set_in_any_spelling(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    block = ["clients", "block"]
    assert cli.main([*block, "network", " 192.0.2.7/32 ", "--reason", "spam"]) == 0
    assert capsys.readouterr().err == "network 192.0.2.7 is blocked\n"
    assert cli.main([*block, "network", "::ffff:192.0.2.0/120", "--until", "2999-01-01"]) == 0
    assert capsys.readouterr().err.startswith("network 192.0.2.0/24 is blocked until 2999-01-01")
    assert cli.main([*block, "network", "2001:DB8::/48"]) == 0
    assert cli.main([*block, "agent", "BadBot*"]) == 0
    assert cli.main([*block, "account", USER]) == 0
    assert cli.main([*block, "account", f"{USER}@B.example"]) == 0
    assert tools.put == [
        ("network", "192.0.2.7", "spam", None),
        ("network", "192.0.2.0/24", None, 32_472_144_000_000),
        ("network", "2001:db8::/48", None, None),
        ("agent", "badbot*", None, None),
        ("account", USER, None, None),
        ("account", f"{USER}@b.example", None, None),
    ]
    tools.full = True
    assert cli.main([*block, "agent", "Another*"]) == 1
    assert "there are 200 rules already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["block", "network", "192.0.2.7/24"],
        ["block", "network", "example.org"],
        ["block", "network", "fe80::1%eth0"],
        ["block", "agent", "**"],
        ["block", "agent", "a\nb"],
        ["block", "agent", "x" * 301],
        ["block", "account", "ada"],
        ["block", "address", "192.0.2.7"],
        ["block", "network", "192.0.2.7", "--until", "yesterday"],
        ["block", "network", "192.0.2.7", "--until", "2001-01-01"],
        ["block", "network", "192.0.2.7", "--reason", "x" * 501],
        ["block", "network"],
        ["block"],
        ["unblock", "network", ""],
    ],
)
def test_wrong_use_is_one_line_and_status_2(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main(["clients", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tools.put == []


def test_a_rule_that_is_not_there_is_status_1(
    tools: FakeCommands, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["clients", "unblock", "network", "192.0.2.0/24"]) == 0
    assert capsys.readouterr().err == "network 192.0.2.0/24 is not blocked any more\n"
    assert cli.main(["clients", "unblock", "network", "192.0.2.0/25"]) == 1
    assert capsys.readouterr().err.endswith("there is no rule about network 192.0.2.0/25\n")
