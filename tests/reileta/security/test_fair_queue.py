"""Entries of many networks: they take turns, and none keeps others out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.errors import Overloaded
from reileta.security.fair_queue import FairQueue


def queue_of(limit: int = 6, share: int = 4) -> FairQueue[str]:
    return FairQueue(limit=limit, share=share, retry_after_s=2)


def emptied(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_networks_take_turns_and_each_is_served_in_order() -> None:
    queue = queue_of()
    for network, entry in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")):
        assert queue.push(network, entry) is None
    assert emptied(queue) == ["a1", "b1", "c1", "a2", "a3"]
    with pytest.raises(KeyError):
        queue.pop()


def test_a_network_has_its_share_and_no_more() -> None:
    queue = queue_of()
    for one in range(4):
        queue.push("a", str(one))
    with pytest.raises(Overloaded) as refused:
        queue.push("a", "more")
    assert refused.value.retry_after_s == 2
    assert queue.push("b", "b1") is None


def test_who_has_fewer_takes_the_last_place_of_who_has_most() -> None:
    queue = queue_of()
    for entry in ("a1", "a2", "a3", "a4", "b1", "b2"):
        queue.push(entry[0], entry)
    assert queue.push("c", "c1") == "a4"
    assert queue.push("c", "c2") == "a3"
    for network in "abc":
        with pytest.raises(Overloaded):  # all have two: nobody has to go for a third
            queue.push(network, "more")
    assert queue.push("d", "d1") in {"a2", "b2", "c2"}
    assert len(queue) == 6


def test_one_that_is_taken_out_leaves_its_place() -> None:
    queue = queue_of(limit=2)
    queue.push("a", "a1")
    queue.push("b", "b1")
    queue.remove("a", "a1")
    queue.push("c", "c1")
    assert emptied(queue) == ["b1", "c1"]
    for gone in ("a1", "b1"):
        with pytest.raises(ValueError, match=gone):
            queue.remove(gone[0], gone)


@given(st.lists(st.tuples(st.sampled_from(["push", "pop"]), st.sampled_from("abcdefgh"))))
def test_whatever_comes_it_is_bounded_and_keeps_a_place_for_newcomers(
    steps: list[tuple[str, str]],
) -> None:
    queue = queue_of()
    inside: Counter[str] = Counter()
    for step, network in steps:
        if step == "pop":
            if len(queue):
                inside[queue.pop()] -= 1
            continue
        had = inside[network]
        try:
            displaced = queue.push(network, network)
        except Overloaded:
            assert had >= 4 or (inside.total() >= 6 and max(inside.values()) < had + 2)
            continue
        inside[network] += 1
        if displaced is not None:
            assert inside[displaced] >= inside[network]
            inside[displaced] -= 1
        assert len(queue) == inside.total() <= 6
        assert max(inside.values()) <= 4
