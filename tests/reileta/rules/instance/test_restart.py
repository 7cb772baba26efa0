"""For how long seats are held after a restart."""

from __future__ import annotations

import pytest

from reileta.rules.instance.restart import KEPT_MS, PAUSE_MS, hold_ms, outdated


@pytest.mark.parametrize(
    ("grace_ms", "away_ms", "hold"),
    [
        (10_000, 0, 10_000),
        (10_000, -5_000, 10_000),  # the database's clock was set back
        (10_000, 4_000, 14_000),
        (10_000, 30_000, 40_000),
        (10_000, KEPT_MS, 10_000 + PAUSE_MS),
        (10_000, KEPT_MS + 1, 0),
        (0, 4_000, 0),
    ],
)
def test_the_hold_is_the_grace_and_the_pause_of_a_client(
    grace_ms: int, away_ms: int, hold: int
) -> None:
    assert hold_ms(grace_ms, away_ms) == hold


def test_nothing_counts_once_a_server_was_away_for_ten_minutes() -> None:
    assert not outdated(10 * 60 * 1000)
    assert outdated(10 * 60 * 1000 + 1)
