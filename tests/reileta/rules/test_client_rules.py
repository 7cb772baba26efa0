from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.client_rules import (
    ClientRule,
    ClientRuleBook,
    ClientRuleKind,
    canonical_pattern,
    fits,
)

USER = "u_00000000-0000-4000-8000-000000000001"


def rule(kind: ClientRuleKind, pattern: str, until: int | None = None) -> ClientRule:
    return ClientRule(
        kind, canonical_pattern(kind, pattern, "own.example"), "admin", 0, None, until
    )


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.7", "::ffff:192.0.2.7", "::192.0.2.7"),
        ("::ffff:192.0.2.0/120", "192.0.2.1", "192.0.3.1"),
        ("2001:db8::/48", "2001:db8:0:1::9", "2001:db8:1::9"),
        ("2001:DB8::0/128", "2001:db8::", "2001:db8::1"),
        ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
        ("::/0", "2001:db8::1", "203.0.113.1"),
    ],
)
def test_networks(pattern: str, inside: str, outside: str) -> None:
    book = ClientRuleBook([rule("network", "198.51.100.0/25"), rule("network", pattern)])
    assert book.of_client(inside, "", 0) is not None
    assert book.of_client(outside, "", 0) is None
    assert book.of_client("unix:", "", 0) is None


def test_a_rule_ends_by_itself() -> None:
    book = ClientRuleBook(
        [rule("network", "192.0.2.1", 10), rule("agent", "bot*", 10), rule("account", USER, 10)]
    )
    for now, refused in ((9, True), (10, False)):
        assert (book.of_client("192.0.2.1", "", now) is not None) is refused
        assert (book.of_client("192.0.2.2", "Bot/1", now) is not None) is refused
        assert (book.of_account(USER, now) is not None) is refused


def test_a_rule_about_one_network_does_not_hide_that_of_a_larger_one() -> None:
    book = ClientRuleBook([rule("network", "192.0.2.1", 10), rule("network", "192.0.2.0/24")])
    assert book.of_client("192.0.2.1", "", 11) is not None


@pytest.mark.parametrize(
    ("pattern", "text", "fit"),
    [
        ("bad", "bad", True),
        ("bad", "bad bot", False),
        ("bad*", "bad bot", True),
        ("*bot", "bad bot", True),
        ("*bot", "bot bad", False),
        ("b*d*t", "bad bot", True),
        ("ab*ba", "aba", False),
        ("a.c", "abc", False),
        ("*curl*", "x curl/8", True),
    ],
)
def test_agents(pattern: str, text: str, fit: bool) -> None:
    assert fits(pattern, text) is fit
    book = ClientRuleBook([rule("agent", pattern.upper())])
    assert (book.of_client("192.0.2.1", text.title(), 0) is not None) is fit


@given(st.lists(st.text("ab", max_size=3), min_size=1, max_size=4), st.text("ab", max_size=8))
def test_a_pattern_fits_what_a_naive_search_finds(parts: list[str], text: str) -> None:
    def naive(rest: list[str], at: str, first: bool) -> bool:
        head, *tail = rest
        starts = [0] if first else range(len(at) + 1)
        if not tail:
            return at == head if first else at.endswith(head)
        return any(
            naive(tail, at[start + len(head) :], False)
            for start in starts
            if at[start:].startswith(head)
        )

    assert fits("*".join(parts), text) is naive(parts, text, True)


def test_accounts_of_this_server_have_one_spelling() -> None:
    assert canonical_pattern("account", f"{USER}@OWN.example:443", "own.example") == USER
    guest = canonical_pattern("account", f"{USER}@B.Example.org", "own.example")
    assert guest == f"{USER}@b.example.org"
    book = ClientRuleBook([ClientRule("account", guest, "admin", 0)])
    assert book.about_accounts
    assert book.of_account(guest, 0) is not None
    assert book.of_account(USER, 0) is None


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("network", "192.0.2.1/24"),
        ("network", "example.org"),
        ("network", "fe80::1%eth0"),
        ("network", "1"),
        ("agent", "***"),
        ("agent", "a*b*c*d*e*f*g*h*i*j"),
        ("agent", "a\nb"),
        ("agent", " "),
        ("account", "ann"),
        ("account", "@me"),
        ("account", f"{USER}@"),
        ("account", "w_00000000-0000-4000-8000-000000000001"),
    ],
)
def test_patterns_that_mean_nothing(kind: ClientRuleKind, pattern: str) -> None:
    with pytest.raises(ValueError, match="must"):
        canonical_pattern(kind, pattern, "own.example")
