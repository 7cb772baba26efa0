"""What ended a moment ago is remembered, for a while."""

from __future__ import annotations

from actors.session.revocations import REMEMBERED_MS, RevocationList
from tests.conftest import ManualClock


def test_what_ended_is_known_for_a_minute() -> None:
    clock = ManualClock()
    revoked = RevocationList(clock)
    revoked.add(b"token")
    clock.advance(REMEMBERED_MS // 2)
    revoked.add("s_1")
    assert b"token" in revoked
    assert "s_1" in revoked
    assert b"other" not in revoked
    clock.advance(REMEMBERED_MS // 2)
    revoked.forget()
    assert b"token" not in revoked
    assert "s_1" in revoked
    revoked.add("s_1")  # again
    clock.advance(REMEMBERED_MS - 1)
    revoked.forget()
    assert len(revoked) == 1
    clock.advance(1)
    revoked.forget()
    assert len(revoked) == 0
