"""The turns of those who asked for fewer values.

tests/actors/delivery/test_interest.py has what each receiver gets.
"""

from __future__ import annotations

import pytest

from reileta.rules.instance.interest import (
    OWED_LIMIT_BYTES,
    SLICES,
    Interest,
    Interests,
    Lane,
    Receiver,
    Value,
)

NEAR = frozenset(f"p_{number}" for number in range(4))


def say(interests: Interests, count: int) -> None:
    """Each player says something."""
    keys = [(interests.instance, f"p_{number}", "pose") for number in range(count)]
    interests.take(b"x" * count, range(1, count + 1), keys)


def test_turns_of_near_and_far_players_are_at_the_same_times() -> None:
    interests = Interests("i")
    interests.add("me", Interest(20, NEAR, 1), 100.0)
    interests.add("you", Interest(10, NEAR, 0.3), 100.0137)
    now, found = 100.0137, []
    while now < 104:
        say(interests, 16)
        if interests.turns(now):
            found.append(now)
        next_at = interests.next_at()
        now = max(now + 0.002, next_at or 0.0)
    del found[0]  # that of slices whose place was before the beginning
    assert found == pytest.approx([found[0] + step / 20 for step in range(len(found))])
    assert len(found) >= 79


@pytest.mark.parametrize("late_s", [0.001, 0.01, 0.2])
def test_a_turn_that_is_a_little_late_does_not_delay_the_next_ones(late_s: float) -> None:
    lane = Lane(1.0, 0, 50.0)
    due = lane.due.copy()
    for step in range(1, 4):
        for number in range(SLICES):
            lane.take(number, step, due[number] + step - 1 + late_s)
        assert lane.due == pytest.approx([one + step for one in due])


def test_after_a_pause_each_slice_has_its_place_again_and_values_are_not_too_close() -> None:
    lane = Lane(1.0, 0, 50.0)
    due = lane.due.copy()
    for number in range(SLICES):
        lane.take(number, 1, 73.4)
    for was, now in zip(due, lane.due, strict=True):
        assert (now - was) % 1 == pytest.approx(0, abs=1e-6) or (now - was) % 1 > 1 - 1e-6
        assert 0.75 - 1e-6 <= now - 73.4 < 1.75
    assert len(set(lane.due)) == SLICES


def test_an_early_turn_leaves_the_next_one_where_it_was() -> None:
    lane = Lane(1.0, 0, 50.0)
    due = lane.due.copy()
    lane.take(0, 1, due[0] - 0.5)
    assert lane.due == due
    assert lane.since[0] == 1


def test_nobody_is_near_to_itself() -> None:
    interests = Interests("i")
    mine = interests.add("p_0", Interest(None, NEAR, 1), 0.0)
    assert mine.near == NEAR - {"p_0"}
    say_own = interests.take(b"x", [1], [("i", "p_0", "pose")])
    assert interests.at_once(say_own) == {}
    interests.change(mine, Interest(None, frozenset({"p_0", "p_9"}), 1), 1.0)
    assert mine.near == {"p_9"}


def test_a_crowd_has_its_turns_in_shifts() -> None:
    interests = Interests("i")
    receivers = [
        interests.add(f"r_{number}", Interest(20, NEAR, 1), 100.0) for number in range(500)
    ]
    assert [receivers[number].shift for number in (0, 95, 96, 191, 383, 384, 385)] == [
        *(0, 0, 1, 1, 3, 0, 1)
    ]
    say(interests, 4)
    times = []
    while (at := interests.next_at()) is not None:
        turns = interests.turns(at)
        if turns:
            times.append(at)
            assert sum(len(turn.parts) for turn in turns) <= 2 * 125
    assert len(times) >= 4
    for receiver in receivers[:400]:
        interests.remove(receiver)
    assert interests.add("late", Interest(20, NEAR, 1), 101.0).shift == 0


def test_instances_have_their_turns_at_different_times() -> None:
    dues = set()
    for number in range(20):
        interests = Interests(f"i_{number}")
        interests.add("me", Interest(20, NEAR, 1), 100.0)
        say(interests, 4)
        dues.add(interests.next_at())
    assert len(dues) == 20


def due(interests: Interests, receiver: Receiver, now: float) -> list[bytes]:
    """The frames that are due for the receiver."""
    return [
        value.frame
        for turn in interests.turns(now)
        for one, own, places in turn.parts
        if one is receiver
        for value in (*own, *(turn.values[place] for place in places))
    ]


def test_values_that_are_sent_early_for_their_size_are_followed_by_no_older_ones() -> None:
    interests = Interests("i")
    mine = interests.add("me", Interest(0.1), 0.0)
    pose, hat = ("i", "p_0", "pose"), ("i", "p_0", "hat")
    interests.take(b"123", [1, 2, 3], [pose, hat, ("i", "p_1", "pose")])
    mine.position = interests.last
    large = b"4" * (OWED_LIMIT_BYTES + 1)
    assert not interests.take_private(mine, Value(0, pose, large))
    assert due(interests, mine, 0.01) == [b"2", large]
    interests.take(b"5", [1], [hat])
    assert sorted(due(interests, mine, 20.0)) == [b"3", b"5"]
    assert due(interests, mine, 40.0) == []
