"""Which servers this one deals with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.federation.addresses import canonical, covers
from reileta.rules.federation.server_rules import Decision, Mode, Rule, RuleBook, RuleKind, decide

NOW = 1_790_000_000_000


def rule(pattern: str, kind: RuleKind, until: int | None = None) -> Rule:
    return Rule(pattern, kind, "u_1", 0, until=until)


@pytest.mark.parametrize(
    ("address", "decision"),
    [
        ("evil.example", "block"),
        ("evil.example:8443", "block"),
        ("a.evil.example:8443", "block"),
        ("a.b.evil.example", "block"),
        ("notevil.example", "allow"),
        ("evil.example.org", "allow"),
        ("example", "allow"),
        ("203.0.113.7:3032", "block"),
        ("203.0.113.8", "allow"),
        ("[2001:db8::1]:3032", "block"),
        ("[2001:db8::2]", "allow"),
    ],
)
def test_a_block_covers_every_port_and_subdomain(address: str, decision: Decision) -> None:
    rules = [
        rule("evil.example", "block"),
        rule("203.0.113.7", "block"),
        rule("[2001:db8::1]", "block"),
    ]
    assert decide(address, rules, "open", NOW) == decision


def test_a_parent_of_a_number_is_not_a_domain() -> None:
    assert decide("203.0.113.7", [rule("113.7", "block")], "open", NOW) == "allow"


def test_a_block_of_a_parent_wins_over_the_hosts_own_permission() -> None:
    rules = [rule("evil.example", "block"), rule("good.evil.example", "allow")]
    assert decide("good.evil.example", rules, "open", NOW) == "block"
    assert decide("good.evil.example", rules, "allowlist", NOW) == "block"


def test_of_permission_and_silence_the_nearest_wins() -> None:
    rules = [rule("example.org", "silence"), rule("a.example.org", "allow")]
    assert decide("a.example.org", rules, "open", NOW) == "allow"
    assert decide("x.a.example.org", rules, "open", NOW) == "allow"
    assert decide("b.example.org", rules, "open", NOW) == "silence"
    rules = [rule("example.org", "allow"), rule("a.example.org", "silence")]
    assert decide("a.example.org", rules, "allowlist", NOW) == "silence"


@pytest.mark.parametrize(
    ("mode", "address", "decision"),
    [
        ("open", "stranger.example", "allow"),
        ("allowlist", "stranger.example", "block"),
        ("allowlist", "sub.friend.example", "allow"),
        ("allowlist", "quiet.example", "block"),
        ("off", "friend.example", "block"),
        ("off", "stranger.example", "block"),
    ],
)
def test_without_a_rule_the_mode_decides(mode: Mode, address: str, decision: Decision) -> None:
    rules = [rule("friend.example", "allow"), rule("quiet.example", "silence")]
    assert decide(address, rules, mode, NOW) == decision


def test_a_rule_ends_at_its_time() -> None:
    book = RuleBook([rule("evil.example", "block", until=NOW)], "open")
    assert book.decide("evil.example", NOW - 1) == "block"
    assert book.decide("evil.example", NOW) == "allow"
    assert book.ended_between(NOW - 1, NOW)
    assert not book.ended_between(NOW, NOW + 1)
    assert not book.ended_between(NOW - 2, NOW - 1)


HOSTS = st.lists(st.sampled_from(["a", "b", "evil", "example"]), min_size=1, max_size=4).map(
    ".".join
)


@given(address=HOSTS, port=st.sampled_from(["", ":8443"]), blocked=st.lists(HOSTS, max_size=4))
def test_a_block_holds_for_all_that_its_patterns_cover(
    address: str, port: str, blocked: list[str]
) -> None:
    at = canonical(address + port)
    found = decide(at, [rule(pattern, "block") for pattern in blocked], "open", NOW)
    assert (found == "block") == any(covers(pattern, at) for pattern in blocked)
