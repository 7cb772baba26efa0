"""Seats, roles and the data that players send."""

from __future__ import annotations

import pytest

from reileta.errors import (
    AlreadyConnected,
    InstanceFull,
    MessageInvalid,
    NotInInstance,
    QuotaReached,
)
from reileta.rules.instance.events import Closed, Joined, Left, MasterChanged
from reileta.rules.instance.instance import DROPPED, TO_ALL, Spoken
from reileta.rules.instance.retained import Retained
from tests.reileta.instances import filled, gone, room, states, user, visitor


def test_joining_is_seen_and_the_first_inside_is_the_master() -> None:
    instance = room()
    player, out = instance.join(visitor(1), 5)
    assert (player.id, player.user, player.joined_at) == ("p_1", user(1), 5)
    assert out == [Joined(player, "master"), MasterChanged(user(1), None)]
    second, out = instance.join(visitor(2), 6)
    assert out == [Joined(second, "normal")]
    third, out = instance.join(visitor(0), 7)
    assert out == [Joined(third, "owner")]
    assert list(instance.players) == ["p_1", "p_2", "p_3"]


def test_the_same_session_is_the_same_player() -> None:
    instance = room(capacity=1)
    player, _ = instance.join(visitor(1), 0)
    assert instance.join(visitor(1), 5) == (player, [])
    with pytest.raises(InstanceFull):
        instance.join(visitor(1, session=1), 6)


def test_a_lost_socket_keeps_its_seat_for_the_grace_and_nobody_sees_it() -> None:
    instance = room(capacity=1)
    (player,) = filled(instance, 1)
    assert instance.disconnect(player.session, 100) == []
    assert instance.in_grace(player.session)
    assert instance.next_deadline() == 10_100
    with pytest.raises(InstanceFull):
        instance.join(visitor(2), 200)
    assert instance.tick(10_099) == []
    assert instance.join(visitor(1), 10_099) == (player, [])
    assert not instance.in_grace(player.session)
    assert instance.tick(20_000) == []
    assert instance.seats.of_session(player.session) == player


def test_a_seat_is_free_when_the_grace_is_over() -> None:
    instance = room(capacity=1)
    (player,) = filled(instance, 1)
    instance.disconnect(player.session, 100)
    instance.disconnect(player.session, 5000)  # told twice: the first counts
    out = instance.tick(10_100)
    assert out == [Left(player, "disconnected"), MasterChanged(None, user(1))]
    again, _ = instance.join(visitor(1), 10_101)
    assert again.id != player.id


def test_without_grace_a_lost_socket_leaves_at_once() -> None:
    instance = room(grace_ms=0)
    (player,) = filled(instance, 1)
    assert gone(instance.disconnect(player.session, 5)) == [(user(1), "disconnected")]


def test_leaving_twice_or_from_outside_is_nothing() -> None:
    instance = room()
    (player,) = filled(instance, 1)
    assert gone(instance.leave(player.session, 5)) == [(user(1), "left")]
    assert instance.leave(player.session, 6) == []
    assert instance.disconnect(player.session, 6) == []
    assert instance.next_deadline() == 5 + instance.limits.empty_ms


def test_the_next_longest_inside_becomes_master() -> None:
    instance = room()
    one, two, _ = filled(instance, 1, 2, 3)
    instance.disconnect(one.session, 5)
    assert instance.master == user(1)  # its grace is unseen
    instance.tick(10_005)
    assert instance.master == user(2)
    instance.join(visitor(1), 10_006)
    assert instance.leave(two.session, 10_007)[-1] == MasterChanged(user(3), user(2))


def test_a_master_with_two_sessions_stays_while_one_is_inside() -> None:
    instance = room()
    one, _ = filled(instance, 1, 2)
    again, _ = instance.join(visitor(1, session=1), 5)
    assert instance.role_of(user(1)) == "master"
    assert instance.leave(one.session, 6) == [Left(one, "left")]
    assert instance.master == user(1)
    assert instance.leave(again.session, 7)[-1] == MasterChanged(user(2), user(1))


def test_an_empty_instance_ends_after_a_while() -> None:
    instance = room(now=100)
    assert (instance.empty_since, instance.next_deadline()) == (100, 60_100)
    (player,) = filled(instance, 1, now=200)
    assert (instance.empty_since, instance.ended(10**9)) == (None, False)
    instance.leave(player.session, 500)
    assert instance.empty_since == 500
    assert instance.tick(60_499) == []
    assert not instance.ended(60_499)
    assert instance.ended(60_500)
    assert instance.tick(60_500) == [Closed("empty")]
    assert instance.closed
    assert instance.next_deadline() is None


def test_a_held_seat_keeps_an_instance_from_being_empty() -> None:
    instance = room()
    instance.candidate(visitor(1), 59_000)
    assert instance.empty_since is None
    instance.tick(89_000)
    assert instance.empty_since == 89_000


def test_players_come_back_after_a_crash_as_they_were() -> None:
    before = room()
    some = filled(before, 1, 2)
    after = room(now=50)
    for player, who in zip(some, (visitor(1), visitor(2, admin=True)), strict=True):
        after.restore(who, player, 50)
    assert after.players == before.players
    assert (after.master, after.role_of(user(2))) == (user(1), "admin")
    assert after.empty_since is None
    assert after.join(visitor(1), 51) == (some[0], [])
    assert after.tick(60) == []


def test_a_message_reaches_all() -> None:
    instance = room()
    one, _ = filled(instance, 1, 2)
    assert instance.speak(one.id, None, None, None, b"1", 5) is TO_ALL
    assert instance.speak(one.id, None, 3, None, b"1", 5) is TO_ALL
    assert list(instance.retained()) == []


def test_who_is_not_inside_says_nothing() -> None:
    instance = room()
    (one,) = filled(instance, 1)
    instance.leave(one.session, 5)
    for key, to in ((None, None), ("k", None), (None, (one.id,))):
        with pytest.raises(NotInInstance):
            instance.speak(one.id, key, None, to, b"1", 6)


def test_a_message_to_some_reaches_those_inside_once() -> None:
    instance = room()
    one, two, three = filled(instance, 1, 2, 3)
    to = (three.id, "p_9", two.id, three.id)
    assert instance.speak(one.id, "k", None, to, b"1", 5) == Spoken((three.id, two.id), False)
    assert list(instance.retained()) == []
    assert instance.speak(one.id, None, None, (), b"1", 5) == Spoken((), False)


def test_keyed_values_are_retained_and_never_rolled_back() -> None:
    instance = room()
    one, two = filled(instance, 1, 2)
    assert instance.speak(one.id, "pose", 10, None, b"ten", 5) is TO_ALL
    assert instance.speak(one.id, "pose", 9.5, None, b"old", 6) is DROPPED
    assert instance.speak(one.id, "pose", 9, (two.id,), b"old", 6) is DROPPED
    assert instance.speak(two.id, "pose", 1, None, b"one", 7) is TO_ALL
    assert list(instance.retained()) == [
        Retained(one.id, "pose", 10, b"ten"),
        Retained(two.id, "pose", 1, b"one"),
    ]
    instance.disconnect(one.session, 8)
    assert len(list(instance.retained())) == 2
    instance.leave(one.session, 9)
    assert list(instance.retained()) == [Retained(two.id, "pose", 1, b"one")]


@pytest.mark.parametrize(
    ("key", "to", "field"),
    [("", None, "key"), ("k" * 65, None, "key"), (None, ("p_1",) * 65, "to")],
)
def test_what_is_out_of_bounds_names_its_field(
    key: str | None, to: tuple[str, ...] | None, field: str
) -> None:
    instance = room()
    (one,) = filled(instance, 1)
    with pytest.raises(MessageInvalid) as caught:
        instance.speak(one.id, key, None, to, b"1", 5)
    assert [detail.field for detail in caught.value.details] == [field]
    assert instance.speak(one.id, "k" * 64, None, ("p_1",) * 64, b"1", 5).to == (one.id,)


def test_what_is_retained_is_bounded() -> None:
    instance = room(retained_keys=1, retained_bytes=8)
    (one,) = filled(instance, 1)
    instance.speak(one.id, "a", None, None, b"1", 5)
    with pytest.raises(MessageInvalid):
        instance.speak(one.id, "b", None, None, b"1", 5)
    with pytest.raises(MessageInvalid):
        instance.speak(one.id, "a", None, None, b"12345678", 5)


def test_one_user_has_so_many_seats_and_no_more() -> None:
    instance = room(capacity=8, seats_per_user=2)
    first, _ = instance.join(visitor(1, session=0), 0)
    instance.join(visitor(1, session=1), 1)
    before = list(instance.players)
    with pytest.raises(QuotaReached, match="instance: a user can occupy at most 2 seats"):
        instance.join(visitor(1, session=2), 2)
    assert list(instance.players) == before
    instance.disconnect(first.session, 3)
    assert instance.join(visitor(1, session=0), 5)[0] == first, "coming back takes no further seat"
    filled(instance, 2, 3, now=6)
    instance.leave(first.session, 8)
    instance.join(visitor(1, session=2), 9)
    for owner in (visitor(0), visitor(7, admin=True)):
        instance.join(owner, 10)


def test_a_held_seat_counts_among_those_of_its_user() -> None:
    instance = room(capacity=2, seats_per_user=1)
    instance.candidate(visitor(1), 0)
    instance.join(visitor(1, session=1), 1)
    with pytest.raises(QuotaReached):
        instance.join(visitor(1, session=2), 2)


def test_the_quota_is_judged_after_the_access_and_before_the_capacity() -> None:
    instance = room(capacity=1, seats_per_user=1)
    instance.join(visitor(1), 0)
    with pytest.raises(QuotaReached):
        instance.join(visitor(1, session=1), 1)


def test_without_the_quota_one_user_may_have_every_seat() -> None:
    instance = room(capacity=8)
    for session in range(8):
        instance.join(visitor(1, session=session), session)


# One's own lost players -------------------------------------------------------------------------


@pytest.mark.parametrize(("closed", "grace_ms"), [(False, 10_000), (True, 1_500)])
def test_a_socket_that_the_client_closed_keeps_its_seat_for_less_long(
    closed: bool, grace_ms: int
) -> None:
    instance = room()
    player, _ = instance.join(visitor(1), 0)
    assert instance.disconnect(player.session, 5, closed=closed) == []
    assert instance.next_deadline() == 5 + grace_ms
    assert gone(instance.tick(4 + grace_ms)) == []
    assert gone(instance.tick(5 + grace_ms)) == [(user(1), "disconnected")]


def test_a_closed_socket_never_keeps_its_seat_for_longer_than_a_lost_one() -> None:
    instance = room(grace_ms=100)
    player, _ = instance.join(visitor(1), 0)
    instance.disconnect(player.session, 5, closed=True)
    assert instance.next_deadline() == 105
    instance = room(closed_grace_ms=0)
    player, _ = instance.join(visitor(1), 0)
    assert gone(instance.disconnect(player.session, 5, closed=True)) == [(user(1), "disconnected")]


def test_a_closed_socket_of_a_full_instance_keeps_its_seat_as_long_as_a_lost_one() -> None:
    instance = room(capacity=2)
    first, _ = instance.join(visitor(1), 0)
    second, _ = instance.join(visitor(2), 1)
    instance.candidate(visitor(3), 2)
    instance.disconnect(first.session, 5, closed=True)
    assert gone(instance.tick(10_004)) == []
    assert instance.join(visitor(1), 10_004)[0] == first, "the page was loaded again"
    instance.disconnect(first.session, 20_000, closed=True)
    assert gone(instance.tick(30_000)) == [(user(1), "disconnected")]
    assert states(instance) == [(user(3), "admitted", None)]
    # A seat that is held for a candidate is not free.
    instance.disconnect(second.session, 40_000, closed=True)
    assert instance.seats.grace_left_ms(second.session, 40_000) == 10_000
    assert gone(instance.leave(second.session, 40_001)) == [(user(2), "left")]


def test_without_a_grace_of_closed_sockets_a_full_instance_holds_no_seat_either() -> None:
    instance = room(capacity=1, closed_grace_ms=0)
    player, _ = instance.join(visitor(1), 0)
    assert gone(instance.disconnect(player.session, 5, closed=True)) == [(user(1), "disconnected")]


@pytest.mark.parametrize("lost", ["in its grace", "silent"])
def test_a_lost_player_gives_way_to_a_new_session_of_its_user(lost: str) -> None:
    instance = room(capacity=2, seats_per_user=1)
    one, _ = instance.join(visitor(1), 0)
    filled(instance, 2, now=1)
    instance.candidate(visitor(3), 2)  # the seat does not pass to the first in the queue
    with pytest.raises(QuotaReached):
        instance.join(visitor(1, session=1), 3)
    silent = frozenset[str]()
    if lost == "silent":
        silent = frozenset({one.session})
    else:
        instance.disconnect(one.session, 3)
    new, out = instance.join(visitor(1, session=1), 4, silent)
    assert out == [Joined(new, "master"), Left(one, "disconnected")]
    assert instance.master == user(1), "the user was inside all the time"
    assert states(instance) == [(user(3), "waiting", 1)]


def test_a_player_that_is_there_gives_way_to_nobody() -> None:
    instance = room(capacity=1)
    instance.join(visitor(1), 0)
    with pytest.raises(InstanceFull):
        instance.join(visitor(1, session=1), 1, frozenset({"s_2.0"}))
    instance.disconnect("s_1.0", 2)
    with pytest.raises(InstanceFull):
        instance.join(visitor(2), 3, frozenset({"s_1.0"}))


def test_a_user_whose_players_are_lost_may_ask_for_its_own_seat() -> None:
    instance = room(capacity=2)
    one, _ = instance.join(visitor(1), 0)
    two, _ = instance.join(visitor(1, session=1), 1)
    instance.candidate(visitor(2), 2)
    instance.disconnect(one.session, 3)
    with pytest.raises(AlreadyConnected):
        instance.candidate(visitor(1, session=2), 4)
    entry, out = instance.candidate(visitor(1, session=2), 5, silent=frozenset({two.session}))
    assert entry.state == "admitted"
    assert gone(out) == [(user(1), "disconnected")] * 2
    assert states(instance) == [(user(1), "admitted", None), (user(2), "admitted", None)]
