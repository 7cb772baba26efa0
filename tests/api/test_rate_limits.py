"""Rate limits per address, account, token and route."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.rate_limits import (
    ACCOUNT,
    ADDRESS,
    GUESSES,
    GUESSES_FROM_AFAR,
    TOKEN,
    HttpRateLimits,
    network,
)
from reileta.errors import TooManyRequests
from reileta.rules.identity import Principal
from reileta.rules.ratelimit import Rate
from tests.api.test_credentials import USER
from tests.conftest import ManualClock

ASKER = Principal(user=USER, session_id="s_1", token_hash=b"t")


@pytest.fixture
def limits(clock: ManualClock) -> HttpRateLimits:
    return HttpRateLimits(clock)


def test_an_address_has_its_burst(limits: HttpRateLimits) -> None:
    for _ in range(ADDRESS.burst):
        limits.address("192.0.2.1")
    with pytest.raises(TooManyRequests) as refused:
        limits.address("192.0.2.1")
    assert 0 < refused.value.retry_after_s <= 1 / ADDRESS.per_s + 1e-6
    limits.address("192.0.2.2")


def test_routes_are_counted_apart(limits: HttpRateLimits) -> None:
    rate = Rate(per_s=1, burst=1)
    limits.route("GET /a", rate, "192.0.2.1")
    with pytest.raises(TooManyRequests):
        limits.route("GET /a", rate, "192.0.2.1")
    limits.route("GET /b", rate, "192.0.2.1")
    limits.route("GET /a", rate, "192.0.2.2")


def test_an_account_is_limited_over_all_its_tokens(limits: HttpRateLimits) -> None:
    for n in range(ACCOUNT.burst):
        limits.principal(replace(ASKER, token_hash=str(n).encode()))
    with pytest.raises(TooManyRequests):
        limits.principal(replace(ASKER, token_hash=b"one more"))


def test_a_token_is_limited(limits: HttpRateLimits) -> None:
    for _ in range(TOKEN.burst):
        limits.principal(ASKER)
    with pytest.raises(TooManyRequests):
        limits.principal(ASKER)
    limits.principal(replace(ASKER, token_hash=b"other"))


def test_guesses_at_a_name_are_limited(limits: HttpRateLimits) -> None:
    for _ in range(GUESSES.burst):
        limits.guess("ada", "192.0.2.1")
    with pytest.raises(TooManyRequests):
        limits.guess("ADA", "192.0.2.1")
    limits.guess("bob", "192.0.2.1")
    limits.guess("ada", "192.0.2.2")


def test_a_subscriber_of_ipv6_guesses_as_one(limits: HttpRateLimits) -> None:
    for number in range(GUESSES.burst):
        limits.guess("ada", f"2001:db8:1:2::{number}")
    with pytest.raises(TooManyRequests):
        limits.guess("ada", "2001:db8:1:2:ffff::")
    limits.guess("ada", "2001:db8:1:3::")


def test_guesses_from_many_addresses_are_limited_too_and_then_cost_the_address_nothing(
    limits: HttpRateLimits,
) -> None:
    for number in range(GUESSES_FROM_AFAR.burst):
        limits.guess_from_afar(limits.guess("ada", f"192.0.2.{number}"))
    for _ in range(GUESSES.burst + 1):
        with pytest.raises(TooManyRequests):
            limits.guess_from_afar(limits.guess("ADA", "198.51.100.1"))
    limits.guess_from_afar(limits.guess("bob", "198.51.100.1"))


def test_what_was_no_guess_counts_nowhere(limits: HttpRateLimits) -> None:
    for _ in range(GUESSES_FROM_AFAR.burst + 1):
        guess = limits.guess("ada", "192.0.2.1")
        limits.guess_from_afar(guess)
        limits.no_guess(guess)
    for _ in range(GUESSES_FROM_AFAR.burst + 1):
        limits.no_guess(limits.guess("ada", "192.0.2.1"))


def test_an_allowance_comes_back(limits: HttpRateLimits, clock: ManualClock) -> None:
    for _ in range(ADDRESS.burst):
        limits.address("192.0.2.1")
    clock.advance(10)
    limits.address("192.0.2.1")
    with pytest.raises(TooManyRequests):
        limits.address("192.0.2.1")


def test_lifted_limits_count_nothing(clock: ManualClock) -> None:
    limits = HttpRateLimits(clock, enabled=False)
    for _ in range(1000):
        limits.address("192.0.2.1")
        limits.route("GET /a", Rate(1, 1), "192.0.2.1")
        limits.principal(ASKER)
        guess = limits.guess("ada", "192.0.2.1")
        limits.guess_from_afar(guess)
        limits.no_guess(guess)


@pytest.mark.parametrize(
    ("ip", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::"),
        ("not:an:address", "not:an:address"),
        ("local", "local"),
    ],
)
def test_a_subscriber_of_ipv6_is_one(ip: str, counted_as: str) -> None:
    assert network(ip) == counted_as


def test_a_large_body_counts_as_many_requests(limits: HttpRateLimits) -> None:
    for _ in range(ADDRESS.burst // 16 - 1):
        limits.body("192.0.2.1", 256 * 1024)
    with pytest.raises(TooManyRequests):
        limits.body("192.0.2.1", 512 * 1024)
    for _ in range(1000):
        limits.body("192.0.2.1", 1024)
