from __future__ import annotations

from structlog.testing import capture_logs

from reileta.observability import log_events
from reileta.observability.activity_log import ALL, SOURCE, ActivityLog
from tests.conftest import ManualClock

LEFT = log_events.PLAYER_LEFT
JOINED = log_events.PLAYER_JOINED


async def test_one_source_has_a_rate_and_what_is_left_out_is_counted(clock: ManualClock) -> None:
    log = ActivityLog(clock)
    with capture_logs() as entries:
        for _ in range(SOURCE.burst + 7):
            log.note(LEFT, "u_1", user="u_1")
        log.note(LEFT, "u_2", user="u_2")
        log.note(JOINED, "u_1", user="u_1")
        await log.report()
        await log.report()
    assert [one["user"] for one in entries[:-1]] == ["u_1"] * SOURCE.burst + ["u_2", "u_1"]
    assert entries[-1] == {
        "event": "log.limited",
        "of": LEFT,
        "lines": 7,
        "log_level": "warning",
    }


async def test_all_sources_together_have_a_rate_for_each_event(clock: ManualClock) -> None:
    log = ActivityLog(clock)
    with capture_logs() as entries:
        for number in range(ALL.burst + 5):
            log.note(LEFT, f"u_{number}")
        log.note(JOINED, "u_1")
        await log.report()
    assert len(entries) == ALL.burst + 2
    assert entries[-1]["lines"] == 5


def test_addresses_and_empty_fields_are_left_out(clock: ManualClock) -> None:
    with capture_logs() as entries:
        for addresses in (False, True):
            ActivityLog(clock, addresses=addresses).note(
                LEFT, "192.0.2.1", address="192.0.2.1", user=None, reason="left"
            )
    assert entries == [
        {"event": LEFT, "reason": "left", "log_level": "info"},
        {"event": LEFT, "reason": "left", "address": "192.0.2.1", "log_level": "info"},
    ]
