"""Who gets a connection."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.listen.admission import REFUSALS, REFUSALS_PER_ADDRESS, Admission, Verdict

ONE, TWO = "192.0.2.1", "192.0.2.2"


def test_so_many_and_no_more() -> None:
    admission = Admission(2, None)
    first, second = admission.enter(ONE), admission.enter(ONE)
    assert first.verdict is second.verdict is Verdict.ADMITTED
    third = admission.enter(TWO)
    assert third.verdict is Verdict.FULL
    assert (admission.admitted, len(admission)) == (2, 3)
    admission.leave(third)
    admission.leave(first)
    assert admission.enter(TWO).verdict is Verdict.ADMITTED


@pytest.mark.parametrize(
    ("mine", "neighbour", "together"),
    [
        (ONE, TWO, False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", ONE, True),
    ],
)
def test_a_share_for_each_network(mine: str, neighbour: str, together: bool) -> None:
    admission = Admission(10, 1)
    slot = admission.enter(mine)
    assert admission.enter(mine).verdict is Verdict.OVER_SHARE
    expected = Verdict.OVER_SHARE if together else Verdict.ADMITTED
    assert admission.enter(neighbour).verdict is expected
    admission.leave(slot)
    assert admission.enter(mine).verdict is Verdict.ADMITTED


def test_the_share_comes_before_the_whole() -> None:
    """One who has too much learns it, and not that everybody has."""
    admission = Admission(1, 1)
    admission.enter(ONE)
    assert admission.enter(ONE).verdict is Verdict.OVER_SHARE
    assert admission.enter(TWO).verdict is Verdict.FULL


def test_only_so_many_are_told() -> None:
    admission = Admission(1, None)
    admission.enter(ONE)
    told = [admission.enter(TWO).verdict for _ in range(REFUSALS_PER_ADDRESS + 2)]
    assert told == [Verdict.FULL] * REFUSALS_PER_ADDRESS + [Verdict.DROPPED] * 2
    others = [admission.enter(f"198.51.100.{n}").verdict for n in range(REFUSALS)]
    assert others.count(Verdict.FULL) == REFUSALS - REFUSALS_PER_ADDRESS
    assert others[-1] is Verdict.DROPPED


def test_the_dropped_hold_no_place() -> None:
    admission = Admission(1, None)
    admission.enter(ONE)
    slots = [admission.enter(TWO) for _ in range(REFUSALS_PER_ADDRESS)]
    before = len(admission)
    dropped = admission.enter(TWO)
    assert len(admission) == before
    admission.leave(dropped)
    assert len(admission) == before
    admission.leave(slots[0])
    assert admission.enter(TWO).verdict is Verdict.FULL


addresses = st.sampled_from([ONE, TWO, "2001:db8::1", "2001:db8::2", "2001:db8:1::1"])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(0, 5),
    st.none() | st.integers(1, 3),
    st.lists(addresses | st.integers(0, 30), max_size=80),
)
def test_whatever_comes_and_goes_leaves_nothing(
    total: int, share: int | None, steps: list[str | int]
) -> None:
    admission = Admission(total, share)
    slots = []
    for step in steps:
        if isinstance(step, str):
            slots.append(admission.enter(step))
        elif slots:
            admission.leave(slots.pop(step % len(slots)))
        admitted = [slot for slot in slots if slot.verdict is Verdict.ADMITTED]
        assert admission.admitted == len(admitted) <= total
        assert len(admission) == sum(slot.verdict is not Verdict.DROPPED for slot in slots)
        if share is not None:
            for network in {slot.network for slot in admitted}:
                assert sum(slot.network == network for slot in admitted) <= share
    for slot in slots:
        admission.leave(slot)
    assert len(admission) == admission.admitted == 0
    fresh = Admission(total, share)
    for address in (ONE, ONE, ONE, ONE, ONE, ONE, TWO):  # as one that nobody entered
        assert admission.enter(address) == fresh.enter(address)
