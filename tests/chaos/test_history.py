"""The checks of a contest's history find what cannot all be true."""

from __future__ import annotations

from tests.chaos.history import History, Hold


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
