"""A client's allowance of messages."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from api.ws.message_rate import MessageRate, weight
from reileta.settings import Settings


@pytest.fixture
async def allowance(mock_clock: MockClock) -> MessageRate:
    return MessageRate(Settings(messages_per_s=8, messages_burst=5))


async def test_a_burst_may_come_at_once(allowance: MessageRate) -> None:
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


async def test_a_fraction_of_a_message_counts_as_that(allowance: MessageRate) -> None:
    assert allowance.take(4.5)
    assert not allowance.take()


async def test_without_limits_everything_may_come() -> None:
    allowance = MessageRate(Settings(messages_burst=1, rate_limits="off"))
    assert all(allowance.take(100) for _ in range(3))


async def test_a_message_counts_once_for_each_kib_that_it_begins() -> None:
    sizes = (0, 1, 1024, 1025, 2048, 60_000, 65_536)
    assert [weight(size) for size in sizes] == [1, 1, 1, 2, 2, 59, 64]
