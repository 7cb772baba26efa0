"""Candidates and the queue: a test for each sentence in docs/protocol.md."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reileta.errors import (
    AlreadyCandidate,
    AlreadyConnected,
    Banned,
    InstanceFull,
    NotAllowed,
    NotQueued,
    Overloaded,
    QuotaReached,
    UserNotFound,
)
from reileta.records import Ban, InstanceChanges
from reileta.rules.instance.candidates import Candidates, Entry
from reileta.rules.instance.events import CandidateChanged, QueueChanged
from reileta.rules.instance.instance import Instance
from tests.reileta.instances import OWNER, filled, gone, room, states, user, visitor


def test_admitted_holds_a_seat_that_join_takes() -> None:
    instance = room(capacity=2)
    filled(instance, 1)
    entry, out = instance.candidate(visitor(2), 10)
    assert entry == Entry(user(2), "admitted", None, 10, 10 + 30_000)
    assert out == [CandidateChanged(user(2), entry, "asked"), QueueChanged(0)]
    with pytest.raises(InstanceFull):
        instance.join(visitor(3), 20)
    player, out = instance.join(visitor(2), 30)
    assert out[0] == CandidateChanged(user(2), None, "joined")
    assert instance.entries() == ()
    assert instance.players[player.id].user == user(2)


def test_a_held_seat_runs_out_and_the_next_in_line_is_admitted() -> None:
    instance = room(capacity=1)
    instance.candidate(visitor(1), 0)
    instance.candidate(visitor(2), 1)
    instance.candidate(visitor(3), 2)
    assert instance.tick(29_999) == []
    out = instance.tick(30_000)
    assert out[0] == CandidateChanged(user(1), None, "expired")
    assert instance.entry_of(user(2)) == Entry(user(2), "admitted", None, 1, 60_000)
    assert instance.entry_of(user(3)) == Entry(user(3), "waiting", 1, 2, None)


def test_waiting_is_first_come_first_served_with_positions_from_one() -> None:
    instance = room(capacity=1)
    filled(instance, 1)
    for number in (4, 2, 3):
        instance.candidate(visitor(number), 10)
    assert states(instance) == [
        (user(4), "waiting", 1),
        (user(2), "waiting", 2),
        (user(3), "waiting", 3),
    ]
    with pytest.raises(InstanceFull):  # one that waits joins no sooner by asking
        instance.join(visitor(4), 11)
    instance.leave(visitor(1).session, 12)
    assert states(instance) == [
        (user(4), "admitted", None),
        (user(2), "waiting", 1),
        (user(3), "waiting", 2),
    ]


def test_a_stranger_does_not_jump_the_queue() -> None:
    instance = room(capacity=1)
    filled(instance, 1)
    instance.candidate(visitor(2), 10)
    instance.leave(visitor(1).session, 11)
    for stranger in (visitor(3), visitor(0), visitor(5, admin=True), visitor(1)):
        with pytest.raises(InstanceFull):
            instance.join(stranger, 12)
    assert instance.join(visitor(2), 13)[0].user == user(2)


def test_pending_asks_for_an_invitation_that_admits() -> None:
    instance = room(access="avr:invite_only")
    entry, _ = instance.candidate(visitor(1), 5)
    assert entry == Entry(user(1), "pending", None, 5, None)
    with pytest.raises(NotAllowed):
        instance.join(visitor(1), 6)
    with pytest.raises(NotAllowed):
        instance.admit(visitor(2), user(1), 6)
    entry, out = instance.admit(visitor(0), user(1), 7)
    assert entry == Entry(user(1), "admitted", None, 5, 7 + 30_000)
    assert out[0] == CandidateChanged(user(1), entry, "admitted")
    instance.join(visitor(1), 8)


def test_an_invitation_reaches_one_who_never_asked() -> None:
    instance = room(access="avr:invite_plus", capacity=1)
    entry, _ = instance.admit(visitor(0), user(1), 0)
    assert entry.state == "admitted"
    instance.join(visitor(1), 1)
    entry, _ = instance.admit(visitor(1), user(2), 2)  # by one inside
    assert entry == Entry(user(2), "waiting", 1, 2, 60_002)
    instance.present(user(2))
    assert instance.entry_of(user(2)) == Entry(user(2), "waiting", 1, 2, None)


def test_an_invitation_outlives_the_entry() -> None:
    instance = room(access="avr:invite_only")
    instance.admit(visitor(0), user(1), 0)
    instance.tick(30_000)
    assert instance.entries() == ()
    instance.join(visitor(1), 30_001)
    instance.leave(visitor(1).session, 30_002)
    instance.join(visitor(1), 30_003)


def test_an_invitation_puts_nobody_before_others() -> None:
    instance = room(access="avr:invite_plus", capacity=1)
    for number in (1, 2, 3):
        instance.admit(visitor(0), user(number), number)
    before = instance.entries()
    assert instance.admit(visitor(0), user(3), 9) == (before[2], [])
    assert instance.admit(visitor(0), user(1), 9) == (before[0], [])
    assert instance.entries() == before


def test_a_members_invitation_is_not_the_owners() -> None:
    instance = room(access="avr:invite_plus", empty_ms=10**9)
    filled(instance, 0)
    instance.admit(visitor(0), user(1), 0)
    instance.join(visitor(1), 1)
    instance.admit(visitor(1), user(2), 2)
    instance.update(visitor(0), InstanceChanges(tags=frozenset({"avr:invite_only"})), 3)
    entry = instance.entry_of(user(2))
    assert entry is not None
    assert entry.state == "pending"
    instance.admit(visitor(0), user(2), 4)
    instance.join(visitor(2), 5)


def test_refusing() -> None:
    instance = room(access="avr:invite_only")
    instance.candidate(visitor(1), 0)
    with pytest.raises(NotAllowed):
        instance.refuse(visitor(2), user(1), 1)
    out = instance.refuse(visitor(0), user(1), 1)
    assert out == [CandidateChanged(user(1), None, "refused"), QueueChanged(0)]
    with pytest.raises(NotQueued):
        instance.refuse(visitor(0), user(1), 2)
    instance.admit(visitor(0), user(1), 3)
    instance.tick(40_000)
    assert instance.refuse(visitor(0), user(1), 40_001) == []  # the invitation alone
    with pytest.raises(NotAllowed):
        instance.join(visitor(1), 40_002)


def test_refusing_one_with_a_seat_is_for_those_who_oversee() -> None:
    instance = room(access="avr:invite_plus")
    for number in (1, 2, 3):
        instance.admit(visitor(0), user(number), 0)
    instance.join(visitor(1), 1)
    instance.join(visitor(2), 1)
    instance.candidate(visitor(4), 2)
    with pytest.raises(NotAllowed):
        instance.refuse(visitor(2), user(3), 3)
    instance.refuse(visitor(2), user(4), 3)  # pending
    instance.add_moderator(visitor(0), user(2), 3)
    instance.refuse(visitor(2), user(3), 3)
    assert instance.entries() == ()


def test_withdrawing_frees_the_seat_for_the_next() -> None:
    instance = room(capacity=1)
    instance.candidate(visitor(1), 0)
    instance.candidate(visitor(2), 1)
    instance.refuse(visitor(1), user(1), 2)  # of oneself: the same as withdrawing
    assert states(instance) == [(user(2), "admitted", None)]
    instance.withdraw(user(2), 3)
    with pytest.raises(NotQueued):
        instance.withdraw(user(2), 3)


def test_a_waiting_entry_survives_the_loss_of_its_socket_for_a_while() -> None:
    instance = room(capacity=1)
    filled(instance, 1)
    instance.candidate(visitor(2), 0)
    instance.candidate(visitor(3), 0, online=False)
    instance.absent(user(2), 10)
    instance.present(user(2))
    instance.absent(user(2), 1000)
    assert instance.tick(59_999) == []
    assert instance.tick(60_000)[0] == CandidateChanged(user(3), None, "expired")
    assert states(instance) == [(user(2), "waiting", 1)]
    assert instance.tick(61_000)[0] == CandidateChanged(user(2), None, "expired")


def test_nobody_is_a_candidate_twice_or_from_inside() -> None:
    instance = room(access="avr:invite_plus")
    instance.candidate(visitor(1), 0)
    with pytest.raises(AlreadyCandidate):
        instance.candidate(visitor(1, session=1), 1)
    filled(instance, 0)
    with pytest.raises(AlreadyConnected):
        instance.candidate(visitor(0, session=1), 2)
    with pytest.raises(AlreadyConnected):
        instance.admit(visitor(0), OWNER, 2)


def test_who_can_be_no_candidate() -> None:
    for access in ("avr:friends_plus", "avr:friends_only", "avr:private"):
        with pytest.raises(NotAllowed):
            room(access=access).candidate(visitor(1), 0)
        with pytest.raises(NotAllowed):
            room(access=access).admit(visitor(0), user(1), 0)
    instance = room(access="avr:invite_only")
    instance.moderate(visitor(0), user(1), "ban", None, None, 0)
    with pytest.raises(Banned):
        instance.candidate(visitor(1), 1)
    with pytest.raises(Banned):
        instance.admit(visitor(0), user(1), 1)
    with pytest.raises(UserNotFound):
        instance.admit(visitor(0), "x" * 10_000, 1)


def test_candidates_and_invitations_are_bounded() -> None:
    instance = room(access="avr:invite_only", candidates=2, invitations=3)
    instance.candidate(visitor(1), 0)
    instance.candidate(visitor(2), 0)
    with pytest.raises(Overloaded):
        instance.candidate(visitor(3), 0)
    with pytest.raises(Overloaded):
        instance.admit(visitor(0), user(3), 0)
    for number in (1, 2):
        instance.admit(visitor(0), user(number), 0)
    instance.tick(30_000)
    instance.admit(visitor(0), user(3), 30_000)
    with pytest.raises(Overloaded):
        instance.admit(visitor(0), user(4), 30_000)
    instance.admit(visitor(0), user(1), 30_000)  # invited before


def test_a_new_access_judges_the_candidates_anew() -> None:
    instance = room(access="avr:public", capacity=2)
    filled(instance, 1)
    instance.candidate(visitor(2, friends=[0]), 0)
    instance.candidate(visitor(3), 1)
    instance.candidate(visitor(4, friends=[0]), 2)
    _, out = instance.update(visitor(0), changes("avr:friends_only"), 3)
    assert CandidateChanged(user(3), None, "refused") in out
    assert states(instance) == [(user(2), "admitted", None), (user(4), "waiting", 1)]
    instance.update(visitor(0), changes("avr:invite_only"), 4)
    assert states(instance) == [(user(2), "pending", None), (user(4), "pending", None)]
    assert instance.free == 1
    _, out = instance.update(visitor(0), changes("avr:public"), 5)
    assert states(instance) == [(user(2), "admitted", None), (user(4), "waiting", 1)]
    assert gone(out) == []


def test_the_pending_come_after_those_in_line() -> None:
    instance = room(access="avr:invite_plus", capacity=1)
    filled(instance, 0)
    instance.candidate(visitor(1), 1)
    instance.admit(visitor(0), user(2), 2)
    new = InstanceChanges(tags=frozenset({"avr:public"}), capacity=2)
    instance.update(visitor(0), new, 3)
    assert states(instance) == [(user(2), "admitted", None), (user(1), "waiting", 1)]


def changes(access: str) -> InstanceChanges:
    return InstanceChanges(tags=frozenset({access}))


def test_the_candidates_of_before_a_crash_are_there_again() -> None:
    before = room(access="avr:invite_plus", capacity=2)
    for number in (1, 2, 3):
        before.admit(visitor(0), user(number), number)
    before.candidate(visitor(4), 4)
    assert [state for _, state, _ in states(before)] == [
        "admitted",
        "admitted",
        "waiting",
        "pending",
    ]
    after = room(access="avr:invite_plus", capacity=2)
    seated, _ = before.join(visitor(1), 5)
    after.restore(visitor(1), seated, 6)
    assert after.resume(before.candidates, before.invited, 6) == [QueueChanged(1)]
    assert states(after) == states(before)
    assert after.invited == before.invited
    narrow = room(access="avr:invite_plus", capacity=1)
    narrow.restore(visitor(1), seated, 6)
    narrow.resume(before.candidates, before.invited, 6)
    assert states(narrow)[:2] == [(user(2), "waiting", 1), (user(3), "waiting", 2)]


def ban(number: int) -> Ban:
    return Ban("i_1", user(number), None, None, OWNER, 0)


def test_the_bans_and_the_access_decide_again_after_a_restart() -> None:
    before = room(access="avr:invite_plus", capacity=2)
    filled(before, 0)
    for number in (1, 2, 3):
        before.admit(visitor(0), user(number), number)
    for number, guest in ((4, False), (5, True)):
        before.candidate(visitor(number, guest=guest), number)
    line = [(user(1), "admitted", None), (user(2), "waiting", 1), (user(3), "waiting", 2)]
    assert states(before) == [*line, (user(4), "pending", None), (user(5), "pending", None)]

    def after(*tags: str, access: str, **more: Any) -> list[tuple[str, str, int | None]]:
        again = room(*tags, access=access, **{"capacity": 2, **more})
        seat = before.seats.of_session("s_0.0")
        assert seat is not None
        again.restore(visitor(0), seat, 9)
        again.resume(before.candidates, before.invited, 9, again=True)
        return states(again)

    assert after(access="avr:invite_plus") == states(before)
    assert after(access="avr:private") == []
    assert after("avr:no_guests", access="avr:public") == [*line, (user(4), "waiting", 3)]
    # A seat that was held for a banned user is the next one's.
    assert after(access="avr:invite_plus", banned=[ban(1)])[:2] == [
        (user(2), "admitted", None),
        (user(3), "waiting", 1),
    ]
    # A seat that is gone.
    assert after(access="avr:public", capacity=1)[:2] == [
        (user(1), "waiting", 1),
        (user(2), "waiting", 2),
    ]


def test_the_role_of_a_candidate_may_have_changed_over_a_restart() -> None:
    before = room(capacity=1)
    filled(before, 1)
    before.candidate(visitor(2), 2)
    before.candidate(visitor(3, admin=True), 3)
    assert [one for one, _, _ in states(before)] == [user(3), user(2)]
    again, line = room(capacity=1), Candidates()
    filled(again, 1)
    for state, one in before.candidates.each():
        line.put(state, replace(one, admin=one.user == user(2)))
    again.resume(line, {}, 9, again=True)
    assert [one for one, _, _ in states(again)] == [user(2), user(3)]


# Precedence --------------------------------------------------------------------------------------


def full() -> Instance:
    """Full with 1; 2 and 3 wait."""
    instance = room(capacity=1)
    filled(instance, 1)
    for number in (2, 3):
        instance.candidate(visitor(number), number)
    return instance


def line(instance: Instance) -> list[str]:
    """Those who wait, in order."""
    return [one.user for one in instance.entries() if one.state == "waiting"]


def test_owner_admins_and_moderators_wait_before_all_others() -> None:
    instance = full()
    instance.add_moderator(visitor(0), user(6), 4)
    entry, out = instance.candidate(visitor(6), 5)
    assert entry.position == 1
    assert QueueChanged(3) in out
    instance.candidate(visitor(5, admin=True), 6)
    instance.candidate(visitor(0), 7)
    instance.candidate(visitor(4), 8)
    assert line(instance) == [user(6), user(5), OWNER, user(2), user(3), user(4)]
    assert [instance.entry_of(one).position for one in line(instance)] == [1, 2, 3, 4, 5, 6]  # type: ignore[union-attr]
    instance.leave(visitor(1).session, 9)
    assert states(instance)[0] == (user(6), "admitted", None)


def test_an_overseer_makes_room_for_itself_from_outside() -> None:
    instance = full()
    instance.candidate(visitor(0), 5)
    instance.moderate(visitor(0), user(1), "kick", None, None, 6)
    assert instance.join(visitor(0), 7)[0].user == OWNER


def test_the_place_in_the_queue_follows_the_role() -> None:
    instance = full()
    instance.candidate(visitor(4), 5)
    out = instance.add_moderator(visitor(0), user(4), 6)
    assert QueueChanged(3) in out
    assert line(instance) == [user(4), user(2), user(3)]
    instance.administers(user(3), True, 7)
    assert line(instance) == [user(4), user(3), user(2)]
    instance.remove_moderator(visitor(0), user(4), 8)
    assert line(instance) == [user(3), user(2), user(4)]
    instance.administers(user(3), False, 9)
    assert line(instance) == [user(2), user(3), user(4)], "each by its time"
    instance.reassign_owner(user(3).partition("@")[0], user(3), 10)
    assert line(instance) == [user(3), user(2), user(4)]
    instance.candidate(visitor(0), 11)
    assert line(instance)[-1] == OWNER, "it was the owner"


def test_a_long_queue_does_not_shut_them_out() -> None:
    instance = room(capacity=1, candidates=2)
    filled(instance, 1)
    for number in (2, 3):
        instance.candidate(visitor(number), number)
    instance.add_moderator(visitor(0), user(6), 4)
    for one in (visitor(0), visitor(5, admin=True), visitor(6)):
        instance.candidate(one, 5)
    with pytest.raises(Overloaded):
        instance.candidate(visitor(4), 6)


def test_precedence_outlives_a_crash() -> None:
    instance = full()
    instance.candidate(visitor(0), 5)
    again = room(capacity=1)
    filled(again, 1)
    again.resume(instance.candidates, {}, 6)
    assert line(again) == [OWNER, user(2), user(3)]


def test_a_user_has_so_many_seats_with_a_held_one_and_precedence() -> None:
    instance = room(capacity=8, seats_per_user=2)
    instance.candidate(visitor(0), 0)
    for session in (0, 1):
        instance.join(visitor(0, session), session)
    with pytest.raises(QuotaReached):
        instance.join(visitor(0, 2), 3)
    with pytest.raises(AlreadyConnected):
        instance.candidate(visitor(0, 2), 4)
