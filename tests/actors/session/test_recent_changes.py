"""Users that were changed a moment ago are remembered as they are now, for a while."""

from __future__ import annotations

from dataclasses import replace

from actors.session.recent_changes import REMEMBERED_MS, RecentUserChanges
from tests.actors.node_harness import account
from tests.conftest import ManualClock


def test_the_newer_of_two_counts() -> None:
    latest = RecentUserChanges(ManualClock())
    before = account(1, admin=True)
    assert latest.of(before) is before
    now = replace(account(1), updated_at=before.updated_at)  # in the same millisecond
    latest.add(now)
    assert latest.of(before) is now
    newer = replace(before, updated_at=before.updated_at + 1)
    assert latest.of(newer) is newer
    assert latest.of(account(2)) == account(2)


def test_it_is_forgotten_after_a_while() -> None:
    clock = ManualClock()
    latest = RecentUserChanges(clock)
    latest.add(account(1))
    clock.advance(REMEMBERED_MS // 2)
    latest.add(account(2))
    latest.add(account(1))  # again
    clock.advance(REMEMBERED_MS - 1)
    latest.forget()
    assert len(latest) == 2
    clock.advance(1)
    latest.forget()
    assert len(latest) == 0
