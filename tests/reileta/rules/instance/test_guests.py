"""Guests inside an instance: users of other servers, and what a host can do about their servers."""

from __future__ import annotations

from typing import Any

import pytest

from reileta.errors import (
    Banned,
    GuestNotAllowed,
    ModerationInvalid,
    NotAllowed,
    ReiletaError,
)
from reileta.ids import all_of
from reileta.records import Ban, InstanceChanges
from reileta.rules.identity import Visitor
from reileta.rules.instance.events import BannedUser, CandidateChanged, Unbanned
from reileta.rules.instance.instance import Instance, InstanceLimits
from tests.reileta.instances import OWNER, filled, gone, record_of, room, user, visitor

FAR, BELOW, NEAR = "far.example:3032", "eu.far.example", "near.example"


def guest_at(number: int, server: str = FAR) -> str:
    return f"u_00000000-0000-4000-8000-{number:012x}@{server}"


def guest(number: int, server: str = FAR, **more: Any) -> Visitor:
    return Visitor(
        f"s_{number}.{server}", guest_at(number, server), f"Guest {number}", guest=True, **more
    )


def owned_by_a_guest() -> Instance:
    return Instance(
        record_of("avr:public"),
        owner=guest_at(0),
        bans=(),
        limits=InstanceLimits(),
        now=0,
        new_player_id=lambda: "p_1",
    )


def test_a_guest_joins_and_is_moderated_like_anybody() -> None:
    instance = room()
    filled(instance, 0)
    player, _ = instance.join(guest(1), 1)
    assert instance.role_of(player.user) == "normal"
    instance.moderate(visitor(0), guest_at(1), "mute", None, None, 2)
    with pytest.raises(NotAllowed):
        instance.speak(player.id, None, None, None, b"1", 3)
    out = instance.moderate(visitor(0), player.id, "kick", None, None, 4)
    assert gone(out) == [(guest_at(1), "kicked")]
    instance.moderate(visitor(0), guest_at(1), "ban", None, None, 5)
    with pytest.raises(Banned):
        instance.join(guest(1), 6)
    # The same id at another server is another user.
    instance.join(guest(1, NEAR), 7)


def test_a_guest_is_not_the_master_however_long_it_is_inside() -> None:
    instance = room()
    masters = []
    for act in (
        lambda: instance.join(guest(1), 0),
        lambda: instance.join(visitor(2), 1),
        lambda: instance.leave("s_2.0", 2),
    ):
        act()
        masters.append(instance.master)
    assert masters == [None, user(2), None]


@pytest.mark.parametrize(
    "act",
    [
        lambda one, by: one.moderate(by, user(0), "kick", None, None, 9),
        lambda one, by: one.moderate(by, all_of(NEAR), "ban", None, None, 9),
        lambda one, by: one.transfer_master(by, user(2), 9),
        lambda one, by: one.add_moderator(by, user(2), 9),
        lambda one, by: one.remove_moderator(by, user(2), 9),
        lambda one, by: one.update(by, InstanceChanges(title="Mine"), 9),
        lambda one, by: one.close(by, 9),
        lambda one, by: one.admit(by, user(3), 9),
        lambda one, by: one.refuse(by, user(3), 9),
    ],
)
def test_a_guest_hosts_nothing_that_it_does_not_own(act: Any) -> None:
    instance = room(access="avr:invite_plus")
    instance.invited[guest_at(1)] = "by-leader"
    instance.join(guest(1), 0)
    with pytest.raises(GuestNotAllowed):
        act(instance, guest(1, admin=True))
    try:
        act(owned_by_a_guest(), guest(0))
    except GuestNotAllowed:
        raise
    except ReiletaError:
        pass  # what the rules refuse anybody


def test_a_guest_is_not_given_a_role() -> None:
    instance = room()
    filled(instance, 0)
    player, _ = instance.join(guest(1), 1)
    with pytest.raises(GuestNotAllowed):
        instance.transfer_master(visitor(0), player.id, 2)
    with pytest.raises(GuestNotAllowed):
        instance.add_moderator(visitor(0), guest_at(1), 3, guest=True)


def test_an_instance_can_shut_guests_out() -> None:
    instance = room("avr:no_guests")
    for ask in (instance.join, instance.candidate):
        with pytest.raises(GuestNotAllowed):
            ask(guest(1), 0)
    with pytest.raises(GuestNotAllowed):
        room("avr:no_guests", access="avr:invite_only").admit(
            visitor(0), guest_at(1), 0, guest=True
        )
    instance.join(visitor(1), 1)


def test_guests_who_wait_are_refused_when_the_instance_shuts_them_out() -> None:
    instance = room(capacity=1)
    filled(instance, 0)
    instance.candidate(guest(1), 1)
    instance.candidate(visitor(2), 2)
    tags = frozenset({"avr:public", "avr:no_guests"})
    _, out = instance.update(visitor(0), InstanceChanges(tags=tags), 3)
    assert CandidateChanged(guest_at(1), None, "refused") in out
    assert [one.user for one in instance.entries()] == [user(2)]


def test_guests_inside_stay_when_the_instance_shuts_others_out() -> None:
    instance = room()
    filled(instance, 0)
    player, _ = instance.join(guest(1), 1)
    tags = frozenset({"avr:public", "avr:no_guests"})
    instance.update(visitor(0), InstanceChanges(tags=tags), 2)
    instance.disconnect(guest(1).session, 3)
    assert instance.join(guest(1), 4) == (player, [])


def test_a_ban_of_a_server_is_one_of_all_its_users_at_any_port_and_below() -> None:
    instance = room(capacity=2)
    filled(instance, 0)
    instance.join(guest(1), 1)
    instance.candidate(guest(2, BELOW), 2)
    instance.candidate(guest(3, NEAR), 3)
    out = instance.moderate(visitor(0), all_of("far.example"), "ban", "rude", 99, 4)
    assert gone(out) == [(guest_at(1), "banned")]
    assert CandidateChanged(guest_at(2, BELOW), None, "banned") in out
    ban = Ban("i_1", "*@far.example", 99, "rude", OWNER, 4)
    assert BannedUser(ban, False) in out
    assert [one.user for one in instance.entries()] == [guest_at(3, NEAR)]
    for who in (guest(1), guest(9), guest(2, BELOW), guest(4, "far.example:9")):
        with pytest.raises(Banned):
            instance.join(who, 5)
    assert instance.tick(99)[0] == Unbanned("*@far.example", None)
    instance.moderate(visitor(0), guest_at(3, NEAR), "kick", None, None, 100)
    instance.join(guest(1), 101)


def test_a_ban_of_a_server_is_lifted() -> None:
    banned = Ban("i_1", all_of("far.example"), None, None, OWNER, 0)
    instance = room(banned=[banned])
    with pytest.raises(Banned):
        instance.join(guest(1), 1)
    out = instance.moderate(visitor(0), all_of("far.example"), "unban", None, None, 2)
    assert out == [Unbanned("*@far.example", OWNER)]
    assert instance.moderate(visitor(0), all_of("far.example"), "unban", None, None, 2) == []
    instance.join(guest(1), 3)


def test_a_server_is_neither_kicked_nor_muted_nor_warned() -> None:
    instance = room()
    for measure in ("kick", "mute", "unmute", "warn"):
        with pytest.raises(ModerationInvalid):
            instance.moderate(visitor(0), all_of(FAR), measure, None, None, 1)


def test_a_user_who_may_not_moderate_bans_no_server() -> None:
    instance = room()
    filled(instance, 0, 1)
    with pytest.raises(NotAllowed):
        instance.moderate(visitor(1), all_of(FAR), "ban", None, None, 2)


def test_the_users_of_a_blocked_server_leave() -> None:
    instance = room(capacity=2, access="avr:invite_plus")
    filled(instance, 0)
    for one in (guest(1), guest(2), guest(3, NEAR)):
        instance.admit(visitor(0), one.user, 1, online=True, guest=True)
    instance.join(guest(1), 2)
    out = instance.exclude(frozenset({FAR}), 3)
    assert gone(out) == [(guest_at(1), "server-blocked")]
    assert CandidateChanged(guest_at(2), None, "server-blocked") in out
    assert [(one.user, one.state) for one in instance.entries()] == [
        (guest_at(3, NEAR), "admitted")
    ]
    assert instance.exclude(frozenset({FAR}), 4) == []
    with pytest.raises(NotAllowed):  # the invitation is gone, too
        instance.join(guest(1), 5)
