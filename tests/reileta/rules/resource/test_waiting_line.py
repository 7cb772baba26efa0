"""The waiting line's rules, one by one; `tests/reileta/test_waiting_machine.py` combines them."""

from __future__ import annotations

import pytest

from reileta.errors import NotQueued, QuotaReached
from reileta.rules.identity import Claimant
from reileta.rules.resource.waiting_line import (
    LINE_LIMIT,
    LeaveReason,
    LeftLine,
    Place,
    PlaceChanged,
    WaitingLine,
)

OFFER_MS = 30_000
GRACE_MS = 60_000


def line_of(*sessions: str) -> WaitingLine:
    line = WaitingLine(offer_ms=OFFER_MS, grace_ms=GRACE_MS)
    for session in sessions:
        line.join(Claimant(session, "u_1"), 0, present=True)
    return line


def test_the_first_to_come_gets_the_offer() -> None:
    line = line_of("a", "b")
    assert line.place("a") == Place(1)
    line.offer(5)
    assert line.offered == Claimant("a", "u_1")
    assert line.place("a") == Place(1, 5 + OFFER_MS)
    assert line.place("b") == Place(2)


def test_a_session_without_the_offer_can_not_acquire_past_the_line() -> None:
    assert line_of().admits("c")
    line = line_of("a", "b")
    assert not line.admits("a")
    assert not line.admits("c")
    line.offer(0)
    assert line.admits("a")
    assert not line.admits("b")
    assert not line.admits("c")


def test_joining_again_keeps_the_place() -> None:
    line = line_of("a", "b")
    line.join(Claimant("a", "u_1"), 9, present=True)
    assert line.sessions == ("a", "b")


def test_an_offer_that_runs_out_goes_to_the_next() -> None:
    line = line_of("a", "b")
    line.offer(0)
    assert line.tick(OFFER_MS - 1) == []
    assert line.tick(OFFER_MS) == [LeftLine("a", LeaveReason.EXPIRED)]
    assert line.offered is None
    line.offer(OFFER_MS)
    assert line.place("b") == Place(1, 2 * OFFER_MS)


def test_an_offer_is_not_prolonged_by_another_offer() -> None:
    line = line_of("a")
    line.offer(0)
    line.offer(100)
    assert line.place("a") == Place(1, OFFER_MS)


def test_a_session_that_stays_away_loses_its_place() -> None:
    line = line_of("a", "b")
    line.absent("a", 10)
    line.absent("a", 500)  # the time counts from the first
    line.absent("b", 20)
    line.present("b")
    assert line.next_deadline == 10 + GRACE_MS
    assert line.tick(9 + GRACE_MS) == []
    assert line.tick(10 + GRACE_MS) == [LeftLine("a", LeaveReason.AWAY)]
    assert line.tick(10 * GRACE_MS) == []


def test_a_session_that_joins_without_a_socket_is_away_from_then_on() -> None:
    line = line_of()
    line.join(Claimant("a", "u_1"), 7, present=False)
    assert line.tick(7 + GRACE_MS) == [LeftLine("a", LeaveReason.AWAY)]


def test_the_holder_leaves_the_line_and_ends_the_offer_of_another() -> None:
    line = line_of("a", "b")
    line.offer(0)
    assert line.taken("b") == [LeftLine("b", LeaveReason.ACQUIRED)]
    assert line.offered is None
    assert line.sessions == ("a",)


def test_the_next_gets_an_offer_of_its_own_when_the_first_leaves() -> None:
    line = line_of("a", "b")
    line.offer(0)
    assert line.leave("a", LeaveReason.WITHDRAWN) == [LeftLine("a", LeaveReason.WITHDRAWN)]
    assert line.offered is None
    line.offer(9)
    assert line.place("b") == Place(1, 9 + OFFER_MS)
    assert line.leave("a", LeaveReason.WITHDRAWN) == []


def test_places_are_told_when_they_change() -> None:
    line = line_of("a", "b")
    assert line.changes() == [PlaceChanged("a", Place(1)), PlaceChanged("b", Place(2))]
    assert line.changes() == []
    line.leave("a", LeaveReason.WITHDRAWN)
    assert line.changes() == [PlaceChanged("b", Place(1))]
    line.offer(0)
    assert line.changes() == [PlaceChanged("b", Place(1, OFFER_MS))]
    line.present("b")  # with a new socket
    assert line.changes() == [PlaceChanged("b", Place(1, OFFER_MS))]


def test_the_line_is_bounded() -> None:
    line = line_of(*(f"s{number}" for number in range(LINE_LIMIT)))
    with pytest.raises(QuotaReached):
        line.join(Claimant("last", "u_1"), 0, present=True)
    line.join(Claimant("s0", "u_1"), 0, present=True)
    assert len(line) == LINE_LIMIT


def test_a_line_that_is_dissolved_is_empty() -> None:
    line = line_of("a", "b")
    line.offer(0)
    reasons = [LeftLine(one, LeaveReason.DELETED) for one in ("a", "b")]
    assert line.dissolve(LeaveReason.DELETED) == reasons
    assert line.offered is None
    assert line.next_deadline is None
    with pytest.raises(NotQueued):
        line.place("a")


def test_joining_again_as_an_admin_counts() -> None:
    line = line_of("a")
    line.join(Claimant("a", "u_1", admin=True), 9, present=True)
    assert line.first == Claimant("a", "u_1", admin=True)


def test_sessions_whose_users_may_no_longer_acquire_it_leave() -> None:
    line = line_of("a", "b", "c")
    line.offer(0)
    left = line.ensure_allowed(lambda who: who.session == "c")
    assert left == [LeftLine(one, LeaveReason.REFUSED) for one in ("a", "b")]
    assert line.sessions == ("c",)
    assert line.offered is None


def test_the_next_deadline_is_that_of_the_offer_or_of_an_absence() -> None:
    assert line_of("a").next_deadline is None
    line = line_of("a", "b")
    line.offer(7)
    assert line.next_deadline == 7 + OFFER_MS
    line.absent("b", 0)
    assert line.next_deadline == 7 + OFFER_MS
    line.leave("a", LeaveReason.WITHDRAWN)
    assert line.next_deadline == GRACE_MS


def test_a_user_who_becomes_an_admin_or_ceases_to_be_one_waits_as_such() -> None:
    line = line_of("a")
    assert line.set_admin("u_1", admin=True)
    assert line.first == Claimant("a", "u_1", admin=True)
    assert line.set_admin("u_1", admin=False)
    assert line.first == Claimant("a", "u_1")
    assert not line.set_admin("u_2", admin=True)
