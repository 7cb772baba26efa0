from __future__ import annotations

from reileta.errors import InstanceNotFound
from reileta.rules.instance.events import CandidateChanged, MasterChanged, QueueChanged
from reileta.rules.instance.state import InstanceLimits
from reileta.settings import Settings
from tests.reileta.instances import filled, room, states, user, visitor


def test_seats_are_counted_with_those_that_are_held() -> None:
    instance = room(capacity=3)
    filled(instance, 1)
    instance.candidate(visitor(2), 5)
    assert (instance.taken, instance.free, instance.connected, instance.queued) == (2, 1, 1, 0)
    filled(instance, 3)
    instance.candidate(visitor(4), 5)
    assert (instance.taken, instance.free, instance.connected, instance.queued) == (3, 0, 2, 1)


def test_a_queue_is_told_once_a_call_and_only_when_it_is_another() -> None:
    instance = room(capacity=2)
    one, two = filled(instance, 1, 2)
    for number in (3, 4, 5):
        instance.candidate(visitor(number), 10)
    out = instance.disconnect(one.session, 20) + instance.disconnect(two.session, 20)
    assert out == []
    out = instance.tick(20 + instance.limits.grace_ms)
    assert [each.waiting for each in out if isinstance(each, QueueChanged)] == [1]
    assert [each.user for each in out if isinstance(each, CandidateChanged)] == [user(3), user(4)]
    assert states(instance) == [
        (user(3), "admitted", None),
        (user(4), "admitted", None),
        (user(5), "waiting", 1),
    ]
    assert not any(isinstance(each, QueueChanged) for each in instance.tick(40_000))


def test_the_next_deadline_is_the_earliest_of_all() -> None:
    instance = room(capacity=3, grace_ms=10, hold_ms=30, queue_grace_ms=60, empty_ms=100, now=5)
    assert instance.next_deadline() == 105
    filled(instance, 1, 2, now=6)
    assert instance.next_deadline() is None
    instance.moderate(visitor(0), user(2), "mute", None, 500, 10)
    assert instance.next_deadline() == 500
    instance.moderate(visitor(0), user(9), "ban", None, 400, 10)
    assert instance.next_deadline() == 400
    instance.candidate(visitor(3), 20)
    assert instance.next_deadline() == 50
    instance.candidate(visitor(4), 20)
    instance.absent(user(4), 21)
    assert instance.next_deadline() == 50
    instance.join(visitor(3), 22)
    assert instance.next_deadline() == 81
    instance.present(user(4))
    assert instance.next_deadline() == 400
    instance.disconnect(visitor(1).session, 30)
    assert instance.next_deadline() == 40
    instance.join(visitor(1), 31)
    assert instance.next_deadline() == 400


def test_a_permanent_instance_has_no_end() -> None:
    instance = room("avr:permanent", empty_ms=100)
    assert instance.next_deadline() is None
    assert instance.tick(10**12) == []
    assert not instance.ended(10**12)


def test_who_oversees() -> None:
    instance = room()
    one, two, three = filled(instance, 1, 2, 3)
    instance.add_moderator(visitor(0), user(3), 5)
    assert instance.overseers() == [one, three]
    assert not instance.oversees(visitor(2))
    assert instance.oversees(visitor(0))
    assert instance.oversees(visitor(9, admin=True))
    assert instance.players_of(user(2)) == [two]


def test_the_master_is_told_when_it_is_another() -> None:
    instance = room()
    _, out = instance.join(visitor(1), 0)
    assert out[-1] == MasterChanged(user(1), None)
    _, out = instance.join(visitor(2), 1)
    assert not any(isinstance(each, MasterChanged) for each in out)
    assert instance.leave(visitor(1).session, 2)[-1] == MasterChanged(user(2), user(1))
    assert instance.leave(visitor(2).session, 3)[-1] == MasterChanged(None, user(2))


def test_a_closed_instance_is_not_found() -> None:
    instance = room()
    instance.close(None, 0)
    refused = 0
    for call in (
        lambda: instance.join(visitor(1), 1),
        lambda: instance.candidate(visitor(1), 1),
        lambda: instance.admit(visitor(0), user(1), 1),
        lambda: instance.moderate(visitor(0), user(1), "ban", None, None, 1),
        lambda: instance.transfer_master(visitor(0), user(1), 1),
    ):
        try:
            call()
        except InstanceNotFound:
            refused += 1
    assert refused == 5
    assert instance.next_deadline() is None
    assert instance.ended(0)
    assert instance.tick(10**9) == []


def test_the_limits_are_those_of_the_settings() -> None:
    limits = InstanceLimits.from_settings(
        Settings(
            seat_grace_s=1.5,
            hold_s=2,
            queue_grace_s=3,
            empty_instance_s=4,
            retained_keys_per_player=5,
            retained_bytes_per_player=6000,
            candidates_per_instance=7,
            seats_per_user=8,
        )
    )
    assert (limits.grace_ms, limits.hold_ms) == (1500, 2000)
    assert (limits.queue_grace_ms, limits.empty_ms) == (3000, 4000)
    assert (limits.retained_keys, limits.retained_bytes, limits.candidates) == (5, 6000, 7)
    assert limits.seats_per_user == 8


def test_the_settings_defaults_are_the_rules_defaults() -> None:
    off = InstanceLimits.from_settings(Settings(rate_limits="off"))
    assert off == InstanceLimits(seats_per_user=0)
    assert InstanceLimits.from_settings(Settings()) == InstanceLimits(seats_per_user=4)


def test_an_instance_made_ahead_of_the_clock_lives_as_long_as_others() -> None:
    """The clock was set back between its making and its start, or afterwards."""
    started = room(now=-10_000, empty_ms=60, unused_ms=600)  # its record is from time 0
    started.entered = False
    assert started.next_deadline() == -10_000 + 600
    later = room(now=10, empty_ms=60, unused_ms=600)
    later.entered = False
    later.clock_was_set(-10_000)
    assert later.next_deadline() == 600 - 10_000
    assert not later.ended(599 - 10_000)
    assert later.ended(600 - 10_000)


def test_nothing_of_the_end_is_told_after_it() -> None:
    """A message can still be handled when its instance has closed."""
    instance = room(capacity=1)
    filled(instance, 1)
    instance.candidate(visitor(2), 5)
    instance.close(None, 10)
    assert instance.master is None
    assert instance.rename(user(1), "Zoe", 11) == []
    assert instance.administers(user(1), True, 12) == []
