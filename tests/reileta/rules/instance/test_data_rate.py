"""How much a player may say while others can't keep up."""

from __future__ import annotations

from reileta.rules.instance.data_rate import (
    FAIR_BURST_BYTES,
    FAIR_BYTES_PER_S,
    HOLD_MS,
    DataRate,
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
