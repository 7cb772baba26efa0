"""Records and changes as values."""

from __future__ import annotations

import dataclasses

import pytest

from reileta.records import ADMIN_TAG, InstanceChanges, User

USER = User("u_1", 1, "ada", "Ada", None, None, "online", frozenset(), False, None, 0, 0)


def test_an_admin_is_who_has_the_tag() -> None:
    assert not USER.admin
    assert dataclasses.replace(USER, tags=frozenset({ADMIN_TAG})).admin


def test_records_are_values() -> None:
    assert dataclasses.replace(USER) == USER
    with pytest.raises(dataclasses.FrozenInstanceError):
        USER.email = "x"  # type: ignore[misc]


def test_changes_tell_what_is_emptied_from_what_is_left_alone() -> None:
    assert InstanceChanges().given() == {}
    assert InstanceChanges(title=None, capacity=3).given() == {"title": None, "capacity": 3}
