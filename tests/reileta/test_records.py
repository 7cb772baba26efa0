"""Records and changes as values."""

from __future__ import annotations

import dataclasses

from reileta.records import ADMIN_TAG, InstanceChanges, Token, User

USER = User("u_1", 1, "ada", "Ada", None, None, "online", frozenset(), False, None, 0, 0)


def test_an_admin_is_who_has_the_tag() -> None:
    assert not USER.admin
    assert dataclasses.replace(USER, tags=frozenset({ADMIN_TAG})).admin


def test_changes_tell_what_is_emptied_from_what_is_left_alone() -> None:
    assert InstanceChanges().given() == {}
    assert InstanceChanges(title=None, capacity=3).given() == {"title": None, "capacity": 3}


def test_a_token_is_known_by_its_first_access_key() -> None:
    token = Token(b"a1", b"r1", "s_1", "u_1", 0, 0, 0, None)
    assert token.id == b"a1"
    assert dataclasses.replace(token, access_hash=b"a2", first_hash=b"a1").id == b"a1"
