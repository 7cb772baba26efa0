"""The checks of a contest's history find what cannot all be true."""

from __future__ import annotations

from dataclasses import replace

from tests.chaos.history import History, Hold, Wait


def test_what_can_be_true_is_no_violation() -> None:
    history = History(
        holds=[Hold(1, 1, 7, 0.0, 2.0), Hold(2, 2, 7, 2.0, 3.0), Hold(3, 3, 8, 0.0, 9.0)]
    )
    history.acquired(7, 1, 1)
    history.wrote(7, 2, 1)
    history.wrote(7, 4, 1)  # the write in between was not acknowledged
    history.acquired(7, 4, 2)
    history.acquired(7, 4, 5)
    history.wrote(7, 5, 5)
    history.check()
    assert history.violations == []
    assert history.written == 3


def test_two_holders_and_two_resources_are_found_by_the_clock() -> None:
    history = History(holds=[Hold(1, 1, 7, 0.0, 2.0), Hold(2, 2, 7, 1.0, 3.0)])
    history.check()
    assert [one.partition(":")[0] for one in history.violations] == ["two holders"]
    history = History(holds=[Hold(1, 1, 7, 0.0, 2.0), Hold(2, 1, 8, 1.0, 3.0)])
    history.check()
    assert [one.partition(":")[0] for one in history.violations] == ["two resources"]


def test_a_version_that_was_made_twice_is_found() -> None:
    history = History()
    history.wrote(7, 2, 1)
    history.wrote(7, 2, 2)
    history.check()
    assert history.violations == ["resource 7 had a version twice"]


def test_a_write_by_one_who_was_succeeded_is_found() -> None:
    history = History()
    history.acquired(7, 1, 1)
    history.acquired(7, 1, 2)
    history.wrote(7, 2, 2)
    history.wrote(7, 3, 1)
    history.check()
    assert history.violations == ["hold 1 of 7 went on at version 3"]


def _wait(session: int, asked: float, joined: float, offered_until: str | None) -> Wait:
    return Wait(session, 7, 1, asked, joined, fresh=True, offered_until=offered_until)


def test_a_session_that_overtook_another_is_found() -> None:
    first, second = _wait(1, 0, 1, "10:01"), _wait(2, 2, 3, "10:00")
    history = History(waits=[first, second])
    history.check()
    assert [one.partition(":")[0] for one in history.violations] == ["out of turn"]


def test_waits_whose_order_nobody_knows_are_no_violation() -> None:
    """They overlapped, it was in line before, the server began anew, or it got no offer."""
    first = _wait(1, 0, 5, "10:01")
    for second in (
        _wait(2, 2, 3, "10:00"),
        replace(_wait(2, 6, 7, "10:00"), fresh=False),
        replace(_wait(2, 6, 7, "10:00"), life=2),
        replace(_wait(2, 6, 7, "10:00"), resource=8),
        _wait(2, 6, 7, "10:02"),
        _wait(2, 6, 7, None),
    ):
        history = History(waits=[first, second])
        history.check()
        assert history.violations == []
