"""Guesses at several nodes are counted together; without the database, each node counts alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from api.exact_limits import ExactLimits
from api.rate_limits import GUESSES, GUESSES_FROM_AFAR, LOGIN, READ, HttpRateLimits
from reileta.errors import DatabaseUnavailable, TooManyRequests
from reileta.rules.ratelimit import Rate, RateLimiter
from tests.conftest import ManualClock

HERE, THERE = "192.0.2.1", "198.51.100.1"


@dataclass
class FakeAttempts:
    """The database's count, in memory."""

    limiters: dict[Rate, RateLimiter] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    async def take(self, key: str, rate: Rate, /) -> float:
        self.asked += 1
        if self.away:
            raise DatabaseUnavailable
        return self.limiters.setdefault(rate, RateLimiter(rate)).take(key, 0.0)

    async def give_back(self, key: str, rate: Rate, /) -> None:
        if self.away:
            raise DatabaseUnavailable
        self.limiters.setdefault(rate, RateLimiter(rate)).give_back(key)


@pytest.fixture
def attempts() -> FakeAttempts:
    return FakeAttempts()


def node(attempts: FakeAttempts, clock: ManualClock) -> ExactLimits:
    limits = HttpRateLimits(clock)
    limits.share(attempts)
    return ExactLimits(limits)


async def guesses(nodes: list[ExactLimits], ip: str = HERE) -> int:
    """How many guesses pass, spread over the nodes, until each refuses one."""
    passed = 0
    for limits in nodes:
        try:
            for _ in range(1000):
                await limits.guess("Ada", ip)
                passed += 1
        except TooManyRequests:
            continue
    return passed


async def test_guesses_spread_over_nodes_get_one_burst(
    attempts: FakeAttempts, clock: ManualClock
) -> None:
    nodes = [node(attempts, clock) for _ in range(3)]
    assert await guesses(nodes) == GUESSES.burst


async def test_without_the_database_each_node_counts_for_itself(
    attempts: FakeAttempts, clock: ManualClock
) -> None:
    attempts.away = True
    assert await guesses([node(attempts, clock) for _ in range(2)]) == 2 * GUESSES.burst


async def test_guesses_from_many_addresses_are_counted_for_the_name(
    attempts: FakeAttempts, clock: ManualClock
) -> None:
    nodes = [node(attempts, clock) for _ in range(2)]
    passed = 0
    for number in range(GUESSES_FROM_AFAR.burst + 20):
        limits = nodes[number % 2]
        guess = await limits.guess("ada", f"192.0.2.{number}")
        try:
            await limits.guess_from_afar(guess)
        except TooManyRequests:
            # It does not count for the address either.
            for other in nodes:
                await other.guess("ada", f"192.0.2.{number}")
        else:
            passed += 1
    assert passed == GUESSES_FROM_AFAR.burst


async def test_a_right_password_costs_nothing(attempts: FakeAttempts, clock: ManualClock) -> None:
    nodes = [node(attempts, clock) for _ in range(2)]
    for number in range(300):
        limits = nodes[number % 2]
        guess = await limits.guess("ada", HERE)
        await limits.guess_from_afar(guess)
        await limits.no_guess(guess)
    assert await guesses(nodes, THERE) == GUESSES.burst


async def test_only_routes_with_passwords_and_keys_ask_the_database(
    attempts: FakeAttempts, clock: ManualClock
) -> None:
    nodes = [node(attempts, clock) for _ in range(2)]
    assert ExactLimits.counts(LOGIN)
    assert not ExactLimits.counts(READ)
    for number in range(LOGIN.burst):
        await nodes[number % 2].route("POST /api/auth/login", HERE)
    for limits in nodes:
        with pytest.raises(TooManyRequests):
            await limits.route("POST /api/auth/login", HERE)
        await limits.route("POST /api/auth/login", THERE)


async def test_without_limits_or_without_a_cluster_nothing_is_asked(
    attempts: FakeAttempts, clock: ManualClock
) -> None:
    off = HttpRateLimits(clock, enabled=False)
    off.share(attempts)
    for limits in (off, HttpRateLimits(clock)):
        exact = ExactLimits(limits)
        await exact.no_guess(await exact.guess("ada", HERE))
        await exact.route("POST /api/auth/login", HERE)
    assert attempts.asked == 0
