from __future__ import annotations

from actors.instance.config import instance_limits
from reileta.settings import Settings


def test_the_settings_times_are_the_rules_milliseconds() -> None:
    settings = Settings(seat_grace_s=1.5, hold_s=2, queue_grace_s=3, empty_instance_s=4)
    limits = instance_limits(settings)
    assert (limits.grace_ms, limits.hold_ms) == (1500, 2000)
    assert (limits.queue_grace_ms, limits.empty_ms) == (3000, 4000)
    assert limits.candidates >= 2000


def test_one_user_has_few_seats_unless_rate_limits_are_off() -> None:
    assert instance_limits(Settings()).seats_per_user == 4
    assert instance_limits(Settings(seats_per_user=7)).seats_per_user == 7
    assert instance_limits(Settings(rate_limits="off")).seats_per_user == 0
