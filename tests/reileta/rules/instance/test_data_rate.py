"""How much a player may say while others can't keep up."""

from __future__ import annotations

from reileta.rules.instance.data_rate import (
    FAIR_BURST_BYTES,
    FAIR_BYTES_PER_S,
    GONE_LIMIT,
    HOLD_MS,
    LEAST_BURST_BYTES,
    MESSAGE_LEAST_BYTES,
    DataRate,
    InstanceRates,
    hold_back_loudest,
)

NOW = 1_790_000_000_000


def test_nobody_is_held_to_begin_with() -> None:
    pace = DataRate()
    assert not pace.held


def test_who_is_held_back_has_the_fair_rate() -> None:
    pace = DataRate()
    pace.hold_back()
    assert pace.held
    assert pace.allows(FAIR_BYTES_PER_S, NOW)
    assert not pace.allows(1, NOW)
    assert pace.allows(FAIR_BYTES_PER_S, NOW + 1_000)
    assert not pace.allows(FAIR_BYTES_PER_S, NOW + 1_500)
    assert pace.allows(FAIR_BYTES_PER_S, NOW + 2_000)
    assert not pace.allows(FAIR_BURST_BYTES + 1, NOW + 9_000)
    assert pace.allows(FAIR_BURST_BYTES, NOW + 9_000)


def test_what_is_refused_is_not_counted() -> None:
    pace = DataRate()
    pace.hold_back()
    assert not pace.allows(FAIR_BYTES_PER_S + 1, NOW)
    assert pace.allows(FAIR_BYTES_PER_S, NOW)


def test_it_is_over_some_time_after_the_last_time() -> None:
    pace = DataRate()
    pace.hold_back()
    assert pace.allows(FAIR_BYTES_PER_S, NOW)
    pace.hold_back()
    assert not pace.allows(FAIR_BYTES_PER_S, NOW + 500)  # it does not begin anew
    assert not pace.allows(FAIR_BURST_BYTES + 1, NOW + HOLD_MS + 499)
    assert pace.allows(10 * FAIR_BURST_BYTES, NOW + HOLD_MS + 500)
    assert not pace.held


def test_a_clock_that_goes_back_gives_nothing() -> None:
    pace = DataRate()
    pace.hold_back()
    assert pace.allows(FAIR_BYTES_PER_S, NOW)
    for _ in range(2):
        assert not pace.allows(1, NOW - 60_000)


def test_those_with_the_largest_share_are_held_back() -> None:
    loud, other, quiet = DataRate(), DataRate(), DataRate()
    hold_back_loudest([(loud, 50), (quiet, 1), (other, 60), (loud, 50), (quiet, 2)])
    assert (loud.held, other.held, quiet.held) == (True, True, False)
    same = [DataRate(), DataRate()]
    hold_back_loudest((one, 7) for one in same)
    assert all(one.held for one in same)
    hold_back_loudest([])


LIMIT = 1 << 20


def test_who_left_has_the_same_rate_for_a_while() -> None:
    rates = InstanceRates(LIMIT)
    first = rates.of("a")
    rates.went("a", NOW)
    rates.went("b", NOW)  # who never said anything
    assert rates.of("a") is first
    rates.went("a", NOW)
    rates.went("c", NOW + HOLD_MS)
    assert len(rates) == 0
    assert rates.of("a") is not first


def test_many_who_left_are_not_remembered_without_end() -> None:
    rates = InstanceRates(LIMIT)
    for number in range(GONE_LIMIT + 10):
        rates.of(str(number))
        rates.went(str(number), NOW)
    assert len(rates) == GONE_LIMIT


def test_when_all_are_held_back_they_share_what_still_fits() -> None:
    rates = InstanceRates(LIMIT)
    assert rates.burst(16) == FAIR_BURST_BYTES
    some = [rates.of(str(number)) for number in range(16)]
    some[0].hold_all_back()
    assert rates.held
    told = 0
    for rate in some:
        while rates.allows(rate, 1000, NOW, 16):
            told += 1000
    assert LIMIT // 8 < told <= LIMIT * 3 // 16
    assert not rates.allows(some[0], 1000, NOW, 16)
    assert rates.allows(some[0], 8000, NOW + 250, 16)
    assert rates.burst(10_000) == LEAST_BURST_BYTES


def test_all_are_free_again_when_nobody_is_full_any_more() -> None:
    rates = InstanceRates(LIMIT)
    rate = rates.of("a")
    rate.hold_all_back()
    assert not rates.allows(rate, LIMIT, NOW, 1)
    assert not rates.allows(rate, LIMIT, NOW + HOLD_MS - 1, 1)
    assert rates.allows(rate, LIMIT, NOW + HOLD_MS, 1)
    assert not rates.held
    assert not rate.held


def test_small_messages_count_as_much_as_their_frames_do() -> None:
    rates = InstanceRates(LIMIT)
    rate = rates.of("a")
    rates.hold_back()
    told = 0
    while rates.allows(rate, 1, NOW, 1):
        told += 1
    assert told == FAIR_BYTES_PER_S // MESSAGE_LEAST_BYTES


def test_a_rate_without_an_instance_holds_nobody_else_back() -> None:
    DataRate().hold_all_back()
