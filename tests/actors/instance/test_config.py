from __future__ import annotations

from actors.instance.config import instance_limits
from reileta.settings import Settings


def test_the_settings_times_are_the_rules_milliseconds() -> None:
    settings = Settings(seat_grace_s=1.5, hold_s=2, queue_grace_s=3, empty_instance_s=4)
    limits = instance_limits(settings)
    assert (limits.grace_ms, limits.hold_ms) == (1500, 2000)
    assert (limits.queue_grace_ms, limits.empty_ms) == (3000, 4000)
    assert limits.candidates >= 2000
