"""A client's allowance of messages."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from api.ws.message_rate import GONE_LIMIT, USER_SOCKETS, MessageRate, UserRates, weight
from reileta.errors import QuotaReached
from reileta.settings import Settings


@pytest.fixture
async def allowance(mock_clock: MockClock) -> MessageRate:
    return MessageRate(Settings(messages_per_s=8, messages_burst=5))


async def test_a_burst_may_come_at_once(allowance: MessageRate, autojump_clock: MockClock) -> None:
    assert [allowance.take() for _ in range(6)] == [True] * 5 + [False]


async def test_it_comes_back_with_time_up_to_the_burst(
    allowance: MessageRate, mock_clock: MockClock
) -> None:
    assert allowance.take(5)
    mock_clock.jump(0.125)
    assert [allowance.take(), allowance.take()] == [True, False]
    mock_clock.jump(60)
    assert [allowance.take(5), allowance.take()] == [True, False]


async def test_what_is_refused_counts_too(allowance: MessageRate, mock_clock: MockClock) -> None:
    assert not allowance.take(15)
    mock_clock.jump(1)
    assert not allowance.take()
    mock_clock.jump(0.5)
    assert allowance.take()


async def test_a_fraction_of_a_message_counts_as_that(
    allowance: MessageRate, autojump_clock: MockClock
) -> None:
    assert allowance.take(4.5)
    assert not allowance.take()


async def test_without_limits_everything_may_come() -> None:
    allowance = MessageRate(Settings(messages_burst=1, rate_limits="off"))
    assert all(allowance.take(100) for _ in range(3))


async def test_a_message_counts_once_for_each_kib_that_it_begins() -> None:
    sizes = (0, 1, 1024, 1025, 2048, 60_000, 65_536)
    assert [weight(size) for size in sizes] == [1, 1, 1, 2, 2, 59, 64]


SLOW = Settings(messages_per_s=8, messages_burst=40)


async def test_sockets_of_one_user_share_what_few_have(mock_clock: MockClock) -> None:
    rates = UserRates(SLOW)
    sent = 0
    for _ in range(6):
        one = MessageRate(SLOW)
        one.shared = rates.opened("ada")
        while one.take():
            sent += 1
    assert sent == USER_SOCKETS * 40
    other = MessageRate(SLOW)
    other.shared = rates.opened("bob")
    assert other.take(40)


async def test_what_a_user_sent_outlives_its_sockets_until_it_is_made_up_for(
    mock_clock: MockClock,
) -> None:
    rates = UserRates(SLOW)
    assert rates.opened("ada").take(USER_SOCKETS * 40)
    rates.closed("ada")
    again = rates.opened("ada")
    assert not again.take(1)
    rates.closed("ada")
    mock_clock.jump(40 / 8)
    rates.opened("bob")
    rates.closed("bob")
    assert len(rates) == 1
    assert rates.opened("ada").take(USER_SOCKETS * 40)


async def test_a_socket_that_is_idle_keeps_the_one_shared_rate(mock_clock: MockClock) -> None:
    rates = UserRates(SLOW)
    idle = rates.opened("ada")
    mock_clock.jump(1000)
    for _ in range(3):
        assert rates.opened("ada") is idle
        rates.closed("ada")
        mock_clock.jump(1000)


async def test_users_that_went_are_not_remembered_without_end(mock_clock: MockClock) -> None:
    rates = UserRates(Settings(messages_per_s=0.001))
    for number in range(GONE_LIMIT + 5):
        rates.opened(str(number))
        rates.closed(str(number))
    assert len(rates) == GONE_LIMIT


async def test_what_is_refused_to_a_user_is_no_debt(mock_clock: MockClock) -> None:
    shared = UserRates(SLOW).opened("ada")
    assert shared.take(USER_SOCKETS * 40)
    for _ in range(100):
        assert not shared.take(40)
    mock_clock.jump(1)
    assert shared.take(USER_SOCKETS * 8)


async def test_a_user_has_so_many_sockets_and_no_more() -> None:
    rates = UserRates(Settings(sockets_per_user=2))
    rates.opened("ada"), rates.opened("ada"), rates.opened("bob")
    for _ in range(2):
        with pytest.raises(QuotaReached):
            rates.ensure_room("ada")
        with pytest.raises(QuotaReached):
            rates.opened("ada")
    rates.closed("ada")
    rates.opened("ada")


@pytest.mark.parametrize("lifted", [{"sockets_per_user": 0}, {"rate_limits": "off"}])
async def test_the_limit_of_sockets_can_be_lifted(lifted: dict[str, Any]) -> None:
    rates = UserRates(Settings(**lifted))
    for _ in range(100):
        rates.opened("ada")
