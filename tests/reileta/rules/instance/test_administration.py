"""Roles, moderation and changes of the instance itself"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from reileta.errors import (
    Banned,
    InstanceInvalid,
    ModerationInvalid,
    NotAllowed,
    NotInInstance,
    PermissionDenied,
    PlayerNotFound,
    ReiletaError,
    TagUnknown,
    UserNotFound,
)
from reileta.records import Ban, InstanceChanges
from reileta.rules.instance.events import (
    AdminChanged,
    BannedUser,
    Closed,
    InstanceEvent,
    Left,
    MasterChanged,
    Muted,
    Renamed,
    RoleChanged,
    Unbanned,
    Unmuted,
    Updated,
    Warned,
)
from reileta.rules.instance.instance import Instance
from tests.reileta.instances import OWNER, filled, gone, room, states, user, visitor


def household() -> Instance:
    """Inside: 1 master, 2 admin, 3 and 4 moderators, 5 and 6 normal; then the owner."""
    instance = room(capacity=10)
    filled(instance, 1)
    instance.join(visitor(2, admin=True), 2)
    filled(instance, 3, 4, 5, 6, now=3)
    instance.join(visitor(0), 9)
    for number in (3, 4):
        instance.add_moderator(visitor(0), user(number), 10)
    return instance


RANKS = {"owner": 0, "admin": 2, "master": 1, "moderator": 3, "normal": 5}
PEERS = {"moderator": 4, "normal": 6}


@pytest.mark.parametrize("by", RANKS)
@pytest.mark.parametrize("target", RANKS)
def test_each_may_moderate_those_below(by: str, target: str) -> None:
    instance = household()
    principal = visitor(RANKS[by], admin=by == "admin")
    victim = user(PEERS[target] if by == target and target in PEERS else RANKS[target])
    names = list(RANKS)
    if names.index(by) < names.index(target):
        assert instance.moderate(principal, victim, "warn", "well", None, 20) == [
            Warned(victim, "well", principal.user)
        ]
    else:
        for measure in ("kick", "ban", "unban", "mute", "unmute", "warn"):
            with pytest.raises(NotAllowed):
                instance.moderate(principal, victim, measure, None, None, 20)
        assert instance.connected == 7


def test_one_outside_moderates_only_by_its_office() -> None:
    instance = household()
    with pytest.raises(NotInInstance):
        instance.moderate(visitor(7), user(5), "kick", None, None, 20)
    for number in (3, 0):
        instance.leave(visitor(number).session, 20)
    instance.moderate(visitor(3), user(5), "mute", None, None, 21)
    instance.moderate(visitor(0), user(5), "warn", None, None, 21)
    instance.moderate(visitor(8, admin=True), user(5), "kick", None, None, 21)
    assert user(5) not in {one.user for one in instance.players.values()}


def test_a_kick_ends_all_presence_but_not_for_good() -> None:
    instance = room(capacity=3)
    first, other = filled(instance, 1, 2)
    second, _ = instance.join(visitor(2, session=1), 5)
    out = instance.moderate(visitor(1), other.id, "kick", "enough", None, 6)
    assert out[:2] == [Left(other, "kicked", "enough"), Left(second, "kicked", "enough")]
    assert list(instance.players.values()) == [first]
    instance.join(visitor(2), 7)


def test_a_kick_ends_candidacy_and_invitation() -> None:
    instance = room(access="avr:invite_only")
    instance.admit(visitor(0), user(1), 0)
    instance.moderate(visitor(0), user(1), "kick", None, None, 1)
    assert instance.entries() == ()
    with pytest.raises(NotAllowed):
        instance.join(visitor(1), 2)


def test_a_ban_ends_presence_seat_and_queue_entry_and_keeps_out() -> None:
    instance = room(capacity=2)
    filled(instance, 1, 2)
    instance.candidate(visitor(3), 5)
    instance.candidate(visitor(4), 5)
    ban = Ban("i_1", user(2), None, "spam", OWNER, 6)
    out = instance.moderate(visitor(0), user(2), "ban", "spam", None, 6)
    assert out[0] == BannedUser(ban, saw_instance=True)
    assert gone(out) == [(user(2), "banned")]
    assert instance.bans == {user(2): ban}
    assert states(instance) == [(user(3), "admitted", None), (user(4), "waiting", 1)]
    instance.moderate(visitor(0), user(3), "ban", None, None, 7)
    assert states(instance) == [(user(4), "admitted", None)]
    for number in (2, 3):
        with pytest.raises(Banned):
            instance.join(visitor(number), 8)
    out = instance.moderate(visitor(0), user(2), "unban", None, None, 9)
    assert out == [Unbanned(user(2), OWNER)]
    assert instance.moderate(visitor(0), user(2), "unban", None, None, 9) == []


def test_bans_given_from_the_store_are_in_force_until_they_run_out() -> None:
    instance = room(banned=[Ban("i_1", user(1), 100, None, OWNER, 0)])
    with pytest.raises(Banned):
        instance.join(visitor(1), 99)
    assert instance.tick(100) == [Unbanned(user(1), None)]
    instance.join(visitor(1), 100)


@pytest.mark.parametrize("moderator", [True, False])
def test_a_ban_says_whether_its_user_could_see_the_instance(moderator: bool) -> None:
    instance = room(access="avr:private")
    if moderator:
        instance.add_moderator(visitor(0), user(3), 0)
    out = instance.moderate(visitor(0), user(3), "ban", None, None, 1)
    assert [each.saw_instance for each in out if isinstance(each, BannedUser)] == [moderator]
    assert not instance.audience.admits(user(3))


def test_a_banned_moderator_is_none_any_more() -> None:
    instance = household()
    out = instance.moderate(visitor(1), user(3), "ban", None, None, 20)
    assert RoleChanged(user(3), "normal", by=user(1)) in out
    with pytest.raises(NotInInstance):
        instance.moderate(visitor(3), user(5), "kick", None, None, 21)


def test_what_a_muted_player_says_is_refused_until_unmuted() -> None:
    instance = room()
    one, two = filled(instance, 1, 2)
    out = instance.moderate(visitor(1), two.id, "mute", "loud", None, 5)
    assert out == [Muted(user(2), None, "loud", user(1), 5)]
    for key in (None, "pose"):
        with pytest.raises(NotAllowed):
            instance.speak(two.id, key, None, None, b"1", 6)
    assert list(instance.retained()) == []
    instance.speak(one.id, None, None, None, b"1", 6)
    # Leaving and coming back does not help, nor does another session.
    instance.leave(two.session, 7)
    for session in (0, 1):
        player, _ = instance.join(visitor(2, session=session), 8)
        with pytest.raises(NotAllowed):
            instance.speak(player.id, None, None, None, b"1", 9)
    out = instance.moderate(visitor(1), user(2), "unmute", None, None, 10)
    assert out == [Unmuted(user(2), user(1))]
    for player in instance.players_of(user(2)):
        assert not instance.speak(player.id, None, None, None, b"1", 11).dropped
    assert instance.moderate(visitor(1), user(2), "unmute", None, None, 10) == []


def test_a_mute_runs_out() -> None:
    instance = room()
    _, two = filled(instance, 1, 2)
    instance.moderate(visitor(1), user(2), "mute", None, 100, 5)
    assert instance.muted(user(2), 99)
    with pytest.raises(NotAllowed):
        instance.speak(two.id, None, None, None, b"1", 99)
    instance.speak(two.id, None, None, None, b"1", 100)
    assert instance.tick(100) == [Unmuted(user(2), None)]
    assert instance.audible == set(instance.players)
    instance.speak(two.id, None, None, None, b"1", 101)


@pytest.mark.parametrize(
    ("target", "type_", "error"),
    [
        ("p_9", "kick", PlayerNotFound),
        (user(9), "kick", PlayerNotFound),
        (user(9), "mute", PlayerNotFound),
        (user(9), "warn", PlayerNotFound),
        ("x" * 1000, "ban", UserNotFound),
        (user(1), "hug", ModerationInvalid),
    ],
)
def test_what_cannot_be_moderated(target: str, type_: str, error: type[ReiletaError]) -> None:
    instance = room()
    filled(instance, 1)
    with pytest.raises(error):
        instance.moderate(visitor(0), target, type_, None, None, 5)
    assert instance.bans == {}


def test_the_owner_hands_mastership_over_until_that_one_leaves() -> None:
    instance = room()
    _, two, three = filled(instance, 1, 2, 3)
    assert instance.transfer_master(visitor(0), three.id, 5) == [MasterChanged(user(3), user(1))]
    assert instance.role_of(user(3)) == "master"
    assert instance.role_of(user(1)) == "normal"
    instance.leave(two.session, 6)
    assert instance.master == user(3)
    assert instance.leave(three.session, 7)[-1] == MasterChanged(user(1), user(3))
    with pytest.raises(PlayerNotFound):
        instance.transfer_master(visitor(0), user(3), 8)
    for other in (visitor(1), visitor(9, admin=True)):
        with pytest.raises(NotAllowed):
            instance.transfer_master(other, user(1), 8)


def test_the_owner_names_and_dismisses_moderators() -> None:
    instance = room(moderators=1)
    name = instance.add_moderator
    assert name(visitor(0), user(1), 0) == [RoleChanged(user(1), "moderator", by=OWNER)]
    assert name(visitor(0), user(1), 0) == []
    with pytest.raises(InstanceInvalid):
        name(visitor(0), user(2), 0)
    with pytest.raises(NotAllowed):
        name(visitor(1), user(2), 0)
    with pytest.raises(UserNotFound):
        name(visitor(0), "nobody", 0)
    with pytest.raises(NotAllowed):
        instance.remove_moderator(visitor(1), user(1), 0)
    assert instance.remove_moderator(visitor(0), user(1), 0) == [
        RoleChanged(user(1), "normal", by=OWNER)
    ]
    assert instance.remove_moderator(visitor(0), user(1), 0) == []


def test_an_update_changes_what_it_names() -> None:
    instance = room()
    record, out = instance.update(visitor(0), InstanceChanges(title="Home"), 5)
    assert (record.title, record.capacity, record.updated_at) == ("Home", 4, 5)
    assert out == [Updated(record)]
    assert instance.record is record
    assert instance.update(visitor(0), InstanceChanges(title="Home"), 6) == (record, [])
    record, _ = instance.update(visitor(9, admin=True), InstanceChanges(title=None), 7)
    assert record.title is None
    instance.update(visitor(9, admin=True), InstanceChanges(tags=frozenset({"avr:official"})), 8)
    assert instance.record.tags == {"avr:official", "avr:public"}
    both = InstanceChanges(tags=frozenset({"avr:public", "avr:private"}))
    instance.update(visitor(9, admin=True), both, 9)
    assert instance.record.tags == {"avr:private"}, "the strictest of those that exclude each other"


def test_capacity_is_never_below_the_seats_taken() -> None:
    instance = room(capacity=4)
    filled(instance, 1, 2)
    instance.candidate(visitor(3), 5)
    for capacity in (2, 0, -1, 1025):
        with pytest.raises(InstanceInvalid) as caught:
            instance.update(visitor(0), InstanceChanges(capacity=capacity), 6)
        assert [detail.field for detail in caught.value.details] == ["capacity"]
    instance.update(visitor(0), InstanceChanges(capacity=3), 6)
    assert instance.free == 0


def test_more_capacity_admits_those_in_line() -> None:
    instance = room(capacity=1)
    filled(instance, 1)
    for number in (2, 3, 4):
        instance.candidate(visitor(number), 5)
    instance.update(visitor(0), InstanceChanges(capacity=3), 6)
    assert states(instance) == [
        (user(2), "admitted", None),
        (user(3), "admitted", None),
        (user(4), "waiting", 1),
    ]


@pytest.mark.parametrize(
    ("changes", "by", "error"),
    [
        (InstanceChanges(title="x"), 1, PermissionDenied),
        (InstanceChanges(tags=frozenset({"avr:permanent"})), 0, PermissionDenied),
        (InstanceChanges(tags=frozenset({"nonsense"})), 0, TagUnknown),
    ],
)
def test_what_an_update_may_not(
    changes: InstanceChanges, by: int, error: type[ReiletaError]
) -> None:
    instance = room()
    filled(instance, 1)
    before = instance.record
    with pytest.raises(error):
        instance.update(visitor(by), changes, 5)
    assert instance.record is before


def test_closing_ends_everything() -> None:
    instance = room(capacity=2)
    filled(instance, 1, 2)
    instance.candidate(visitor(3), 5)
    with pytest.raises(PermissionDenied):
        instance.close(visitor(1), 6)
    out = instance.close(visitor(0), 7)
    assert gone(out) == [(user(1), "closed"), (user(2), "closed")]
    assert out[-1] == Closed("closed")
    assert (instance.closed, instance.connected, instance.entries()) == (True, 0, ())
    assert instance.close(None, 8) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda instance: instance.close(visitor(9, admin=True), 1),
        lambda instance: instance.close(None, 1),
    ],
)
def test_admins_and_the_server_close_as_well(
    call: Callable[[Instance], list[InstanceEvent]],
) -> None:
    assert call(room()) == [Closed("closed")]


def test_moderators_and_mutes_of_before() -> None:
    before = room()
    filled(before, 1)
    before.add_moderator(visitor(0), user(2), 0)
    before.moderate(visitor(0), user(1), "mute", None, 50, 1)
    after = Instance(
        before.record,
        owner=OWNER,
        bans=(),
        limits=before.limits,
        now=2,
        new_player_id=lambda: "p_9",
        moderators=before.roles.moderators,
        mutes=before.moderation.mutes.values(),
    )
    assert after.role_of(user(2)) == "moderator"
    after.join(visitor(1), 3)
    with pytest.raises(NotAllowed):
        after.speak("p_9", None, None, None, b"1", 4)
    assert after.next_deadline() == 50


def test_who_is_an_admin_no_longer_stays_inside_without_its_power() -> None:
    instance = household()
    assert instance.administers(user(2), True, 20) == []
    assert instance.administers(user(2), False, 20) == [AdminChanged(user(2), "normal")]
    assert instance.administers(user(2), False, 20) == []
    assert instance.role_of(user(2)) == "normal"
    assert instance.moderate(visitor(3), user(2), "warn", None, None, 21)
    with pytest.raises(NotAllowed):
        instance.moderate(visitor(2), user(5), "kick", None, None, 21)
    assert instance.administers(user(2), True, 22) == [AdminChanged(user(2), "admin")]
    # Who has a higher office, or is not inside, hears nothing.
    assert instance.administers(OWNER, True, 23) == []
    assert instance.administers(user(9), True, 23) == []
    assert instance.role_of(user(9)) == "normal"
    instance.close(None, 24)
    assert instance.administers(user(2), False, 25) == []


def test_a_ban_that_waited_binds_who_is_an_admin_no_longer() -> None:
    instance = room(banned=[Ban("i_1", user(1), None, "spam", OWNER, 0)])
    instance.join(visitor(1, admin=True), 1)
    out = instance.administers(user(1), False, 2)
    assert gone(out) == [(user(1), "banned")]
    with pytest.raises(Banned):
        instance.join(visitor(1), 3)


def test_a_candidate_that_came_as_an_admin_is_judged_anew() -> None:
    instance = room(access="avr:private", capacity=2)
    instance.join(visitor(0), 0)
    instance.candidate(visitor(1, admin=True), 1)
    assert states(instance) == [(user(1), "admitted", None)]
    instance.administers(user(1), False, 2)
    assert states(instance) == []
    with pytest.raises(NotAllowed):
        instance.join(visitor(1), 3)


def test_a_candidate_that_becomes_an_admin_needs_no_invitation_and_others_keep_their_places() -> (
    None
):
    instance = room(access="avr:invite_only", capacity=3)
    instance.join(visitor(0), 0)
    for number in (1, 2):
        instance.candidate(visitor(number), number)
    instance.administers(user(2), True, 3)
    assert states(instance) == [(user(2), "admitted", None), (user(1), "pending", None)]
    instance.administers(user(2), False, 4)
    assert sorted(states(instance)) == [(user(1), "pending", None), (user(2), "pending", None)]


def test_a_candidate_in_line_keeps_its_place_when_it_is_an_admin() -> None:
    instance = room(capacity=1)
    instance.join(visitor(1), 0)
    for number in (2, 3):
        instance.candidate(visitor(number), number)
    instance.administers(user(2), True, 4)
    assert states(instance) == [(user(2), "waiting", 1), (user(3), "waiting", 2)]


def test_a_new_name_is_that_of_all_players_of_a_user() -> None:
    instance = room()
    one, _ = instance.join(visitor(1), 0)
    twin, _ = instance.join(visitor(1, session=1), 1)
    other, _ = instance.join(visitor(2), 2)
    renamed = [replace(player, displayname="Zoe") for player in (one, twin)]
    assert instance.rename(user(1), "Zoe", 3) == [Renamed(player) for player in renamed]
    assert list(instance.players.values()) == [*renamed, other]
    assert instance.seats.of_session(one.session) == renamed[0]
    assert instance.rename(user(1), "Zoe", 4) == []
    assert instance.rename(user(9), "Nobody", 4) == []
    assert instance.leave(one.session, 5)[0] == Left(renamed[0], "left")
