"""The figures of the last 15 minutes: what two samples give, and the memory of the rows."""

from __future__ import annotations

from reileta.rules.console.figures import NAMES, FigureRing, Sample, between
from reileta.rules.console.rates import Count, RateBook

BOUNDS = (0.001, 0.01, 0.1)


def row(before: Sample, after: Sample) -> dict[str, float]:
    return dict(zip(NAMES, between(before, after), strict=True))


def test_rates_are_per_second_and_states_are_those_of_the_later_moment() -> None:
    before = Sample(10.0, sockets=9, messages_in=100, cpu_s=1.0, drains=10, drained=20, crashes=2)
    after = Sample(
        15.0, sockets=4, messages_in=350, cpu_s=2.5, drains=15, drained=35, waited_s=0.01, crashes=3
    )
    figures = row(before, after)
    assert figures["sockets"] == 4
    assert figures["messages_in_per_s"] == 50
    assert figures["cpu"] == 0.3
    assert (figures["drain_size"], figures["wait_ms"]) == (3.0, 2.0)
    assert figures["crashes"] == 1


def test_nothing_is_divided_by_zero() -> None:
    still = Sample(1.0)
    assert set(between(still, still)) == {0.0}


def test_the_lag_is_the_worst_since_the_sample_before() -> None:
    before = Sample(0.0, lag=(5, 0, 3, 1), lag_bounds=BOUNDS)
    assert row(before, Sample(5.0, lag=(9, 2, 3, 1), lag_bounds=BOUNDS))["lag_ms"] == 10
    assert row(before, Sample(5.0, lag=(5, 0, 3, 2), lag_bounds=BOUNDS))["lag_ms"] == 100
    assert row(before, before)["lag_ms"] == 0


def test_the_oldest_row_gives_way_and_the_memory_stays_the_same() -> None:
    ring = FigureRing(kept=3)
    size = ring.size_bytes
    assert ring.rows().at == []
    for number in range(5):
        ring.add(number * 1000, [float(number)] * len(NAMES))
    rows = ring.rows()
    assert rows.at == [2000, 3000, 4000]
    assert set(map(tuple, rows.series.values())) == {(2.0, 3.0, 4.0)}
    assert ring.rows(3000).at == [4000]
    assert ring.rows(4000).series["cpu"] == []
    assert (len(ring), ring.size_bytes) == (3, size)


def test_a_rate_needs_two_readings() -> None:
    book = RateBook()
    assert book.due(0.0)
    book.read(0.0, {"instance/1": Count(10, 5, 0.5)})
    assert book.of("instance/1") is None
    assert not book.due(0.9)
    book.read(2.0, {"instance/1": Count(50, 15, 0.7), "instance/2": Count(9, 9, 9.0)})
    rate = book.of("instance/1")
    assert rate is not None
    assert (rate.messages_per_s, rate.drain_size, rate.wait_ms) == (20.0, 4.0, 20.0)
    assert book.of("instance/2") is None


def test_an_actor_that_counts_anew_has_no_negative_rate() -> None:
    book = RateBook()
    book.read(0.0, {"hub": Count(100, 50, 1.0)})
    book.read(1.0, {"hub": Count(6, 3, 0.003)})
    rate = book.of("hub")
    assert rate is not None
    assert (rate.messages_per_s, rate.drain_size, rate.wait_ms) == (6.0, 2.0, 1.0)
    book.clear()
    assert book.of("hub") is None
