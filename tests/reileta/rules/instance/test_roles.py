from __future__ import annotations

from itertools import product

from reileta.rules.instance.roles import Role, Roles, outranks
from tests.reileta.instances import OWNER, user, visitor

ORDER: tuple[Role, ...] = ("owner", "admin", "master", "moderator", "normal")


def test_each_outranks_those_below_alone() -> None:
    for (high, one), (low, other) in product(enumerate(ORDER), repeat=2):
        assert outranks(one, other) is (high < low)


def test_the_highest_role_counts() -> None:
    roles = Roles(OWNER)
    roles.entered(visitor(0, admin=True))
    roles.entered(visitor(1, admin=True))
    roles.moderators[user(2)] = None
    roles.elect([user(2), user(3)])
    assert roles.of(OWNER) == "owner"
    assert roles.of(user(1)) == "admin"
    assert roles.of(user(2)) == "master"
    assert roles.of(user(3)) == "normal"
    roles.went(user(2))
    assert roles.of(user(2)) == "moderator"


def test_an_admin_need_not_be_inside_and_a_guest_never_is_one() -> None:
    roles = Roles(OWNER)
    assert roles.of_visitor(visitor(1, admin=True)) == "admin"
    assert roles.of_visitor(visitor(0, admin=True)) == "owner"
    guest = visitor(1, admin=True, guest=True)
    roles.entered(guest)
    assert roles.of_visitor(guest) == "normal"
    assert roles.of(guest.user) == "normal"


def test_who_asks_is_an_admin_as_long_as_the_server_says_so() -> None:
    roles = Roles(OWNER)
    roles.entered(visitor(1, admin=True))
    roles.moderators[user(1)] = None
    roles.entered(visitor(2))
    assert roles.of_visitor(visitor(1)) == "moderator"
    assert roles.of_visitor(visitor(2, admin=True)) == "admin"


def test_the_master_stays_until_it_goes() -> None:
    roles = Roles(OWNER)
    roles.elect([])
    masters = [roles.master]
    roles.elect([user(1), user(2)])
    roles.elect([user(2), user(1)])
    masters.append(roles.master)
    roles.went(user(1))
    roles.elect([user(2)])
    masters.append(roles.master)
    assert masters == [None, user(1), user(2)]
