"""The projections of a principal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reileta.records import Profile
from reileta.rules.identity import Claimant, Principal, Viewer, Visitor
from tests.actors.node_harness import ADDRESS, account


@pytest.mark.parametrize("guest", [False, True])
def test_a_guest_is_never_an_admin(guest: bool) -> None:
    who = Principal(account(1, admin=True), "s_1", b"token", guest=guest)
    assert who.administers is not guest
    assert who.as_visitor(ADDRESS).administers is not guest
    assert who.as_claimant().admin is not guest


def test_each_projection_has_what_its_rules_may_know() -> None:
    user = replace(account(1), autopilot=True)
    who = Principal(user, "s_1", b"token")
    friends = frozenset({f"u_2@{ADDRESS}"})
    at_home = f"{user.id}@{ADDRESS}"
    assert who.as_visitor(ADDRESS, friends) == Visitor("s_1", at_home, "U1", friends=friends)
    assert who.as_claimant() == Claimant("s_1", user.id, autopilot=True)
    assert Viewer.of(user, Profile()) == Viewer(user.id, admin=False)
