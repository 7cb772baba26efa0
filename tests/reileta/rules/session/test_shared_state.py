"""A state between its sockets and the database, by sentence."""

from __future__ import annotations

import pytest

from reileta.errors import DatabaseUnavailable, Overloaded, PayloadTooLarge, SessionNotFound
from reileta.rules.resource.json_values import encode
from reileta.rules.session.shared_state import (
    VALUES_LIMIT,
    LiveState,
    PatchRefused,
    State,
    StateChanged,
    StateEvent,
)


def live() -> LiveState:
    return LiveState({}, 0, limit_bytes=64, waiting_limit=3)


def test_an_ack_means_that_the_change_is_in_the_database() -> None:
    one = live()
    one.change(StateEvent({"a": 1}, "x", "first"))
    assert (one.state, one.version) == ({}, 0)
    save = one.save()
    assert save is not None
    assert (save.base, save.version, save.text) == (0, 1, '{"a":1}')
    assert (one.state, one.version) == ({}, 0)
    assert one.saved() == [StateChanged(1, {"a": 1}, StateEvent({"a": 1}, "x", "first"))]
    assert (one.state, one.version, one.unsaved) == ({"a": 1}, 1, 0)


def test_the_patches_of_one_drain_are_one_write_and_a_version_each() -> None:
    one = live()
    one.change(StateEvent({"a": 1, "b": 1}, "x", 1))
    one.change(StateEvent({"a": 2, "b": None}, "y", 2))
    save = one.save()
    assert save is not None
    assert (save.base, save.version, save.state) == (0, 2, {"a": 2})
    told = one.saved()
    assert [(each.version, each.patch) for each in told if isinstance(each, StateChanged)] == [
        (1, {"a": 1, "b": 1}),
        (2, {"a": 2, "b": None}),
    ]


def test_what_comes_while_a_write_is_under_way_waits_for_the_next() -> None:
    one = live()
    one.change(StateEvent({"a": 1}, "x", 1))
    assert one.save() is not None
    one.change(StateEvent({"b": 1}, "y", 2))
    assert one.save() is None
    one.saved()
    save = one.save()
    assert save is not None
    assert (save.base, save.version, save.state) == (1, 2, {"a": 1, "b": 1})
    one.saved()
    assert one.save() is None


def test_a_stale_writer_writes_on_top_of_what_it_finds() -> None:
    one = live()
    one.change(StateEvent({"a": 1}, "x", 1))
    one.save()
    one.change(StateEvent({"b": 1}, "y", 2))
    assert one.stale({"a": 0, "c": 1}, 5) == [StateChanged(5, {"a": 0, "c": 1}, None)]
    assert (one.state, one.version) == ({"a": 0, "c": 1}, 5)
    save = one.save()
    assert save is not None
    assert (save.base, save.version) == (5, 7)
    assert save.state == {"a": 1, "b": 1, "c": 1}


def test_what_no_longer_fits_on_top_of_it_is_refused() -> None:
    one = live()
    one.change(StateEvent({"a": "x" * 20}, "x", 1))
    one.change(StateEvent({"b": 1}, "y", 2))
    one.save()
    _, refused = one.stale({"c": "y" * 40}, 1)
    assert isinstance(refused, PatchRefused)
    assert (refused.change.ref, type(refused.error)) == (1, PayloadTooLarge)
    save = one.save()
    assert save is not None
    assert save.state == {"b": 1, "c": "y" * 40}


def test_when_the_database_is_away_nothing_is_acknowledged() -> None:
    one = live()
    one.change(StateEvent({"a": 1}, "x", 1))
    one.save()
    one.change(StateEvent({"b": 1}, "y", 2))
    error = DatabaseUnavailable()
    assert one.abandon(error) == [
        PatchRefused(StateEvent({"a": 1}, "x", 1), error),
        PatchRefused(StateEvent({"b": 1}, "y", 2), error),
    ]
    assert (one.state, one.version, one.unsaved, one.save()) == ({}, 0, 0, None)


def test_what_was_abandoned_and_written_all_the_same_is_found() -> None:
    one = live()
    one.change(StateEvent({"a": 1}, "x", 1))
    one.save()
    one.abandon(DatabaseUnavailable())
    one.change(StateEvent({"b": 1}, "y", 2))
    one.save()
    assert one.stale({"a": 1}, 1) == [StateChanged(1, {"a": 1}, None)]
    save = one.save()
    assert save is not None
    assert save.state == {"a": 1, "b": 1}


def test_the_state_has_a_limit() -> None:
    one = live()
    fits: State = {"a": "x" * (64 - len(encode({"a": ""})))}
    one.change(StateEvent(fits, "x", 1))
    with pytest.raises(PayloadTooLarge):
        one.change(StateEvent({"b": 1}, "x", 2))
    with pytest.raises(PayloadTooLarge):
        one.change(StateEvent({"a": "é" * 33}, "x", 3))
    one.change(StateEvent({"a": None, "b": fits["a"]}, "x", 4))
    save = one.save()
    assert save is not None
    assert len(save.text) == 64
    assert [each.ref for each in save.changes] == [1, 4]


def test_what_waits_for_the_database_has_a_limit() -> None:
    one = live()
    for number in range(3):
        one.change(StateEvent({}, "x", number))
    with pytest.raises(Overloaded):
        one.change(StateEvent({}, "x", 3))
    one.save()
    with pytest.raises(Overloaded):
        one.change(StateEvent({}, "x", 3))
    one.saved()
    one.change(StateEvent({}, "x", 3))


def test_the_end_empties_the_state_and_refuses_what_waits() -> None:
    one = live()
    one.change(StateEvent({"a": 1}, "x", 1))
    one.save()
    one.saved()
    one.change(StateEvent({"b": 1}, "x", 2))
    error = SessionNotFound()
    assert one.clear(error) == [PatchRefused(StateEvent({"b": 1}, "x", 2), error)]
    assert (one.state, one.unsaved, one.save()) == ({}, 0, None)


def test_the_state_has_a_limit_of_values() -> None:
    one = LiveState({}, 0, limit_bytes=10**6, waiting_limit=9)
    one.change(StateEvent({"a": [0] * (VALUES_LIMIT - 2)}, "x", 1))
    with pytest.raises(PayloadTooLarge, match="values"):
        one.change(StateEvent({"b": 1}, "x", 2))
    one.change(StateEvent({"a": [0], "b": 1}, "x", 3))
    save = one.save()
    assert save is not None
    assert save.state == {"a": [0], "b": 1}


def test_a_state_that_is_over_its_limit_may_shrink() -> None:
    one = LiveState({"a": "x" * 100, "b": "y" * 50}, 1, limit_bytes=64, waiting_limit=9)
    with pytest.raises(PayloadTooLarge):
        one.change(StateEvent({"c": 1}, "x", 1))
    one.change(StateEvent({"a": None}, "x", 2))
    save = one.save()
    assert save is not None
    assert save.state == {"b": "y" * 50}
