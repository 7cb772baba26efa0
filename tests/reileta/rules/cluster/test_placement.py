"""The choice of a host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.cluster.placement import Candidate, Place, host_of

VACANT = Place("i_1", None, 3)
IDLE = Candidate("c_a", hosts=True, instances=0, capacity=10, load=0.1, lag_ms=0)


def node(name: str, load: float = 0.1) -> Candidate:
    return replace(IDLE, node=name, load=load)


def always(*numbers: int) -> Callable[[int], int]:
    left = list(numbers)

    def below(limit: int) -> int:
        number = left.pop(0)
        assert number < limit
        return number

    return below


def test_an_instance_that_has_a_host_stays_there() -> None:
    place = Place("i_1", "c_z", 3)
    assert host_of(place, [node("c_a")], "c_a", always(), silent=["c_z"]) == "c_z"


def test_a_node_hosts_what_its_own_players_ask_for_while_its_load_is_low() -> None:
    nodes = [node("c_a", 0.0), node("c_b", 0.59)]
    assert host_of(VACANT, nodes, "c_b", always()) == "c_b"


def test_else_the_less_loaded_of_two_random_nodes_gets_it() -> None:
    nodes = [node("c_a", 0.0), node("c_b", 0.6), node("c_c", 0.7), node("c_d", 0.9)]
    assert host_of(VACANT, nodes, "c_b", always(2, 2)) == "c_c"
    assert host_of(VACANT, nodes, "c_b", always(3, 0)) == "c_a"
    assert host_of(VACANT, nodes, None, always(1, 1)) == "c_b"


@pytest.mark.parametrize(
    "unable",
    [
        replace(IDLE, hosts=False),
        replace(IDLE, instances=10),
        replace(IDLE, lag_ms=50),
    ],
)
def test_a_node_that_takes_no_more_is_not_chosen(unable: Candidate) -> None:
    assert host_of(VACANT, [unable, node("c_b")], "c_a", always(0)) == "c_b"


@pytest.mark.parametrize("unable", [replace(IDLE, hosts=False), replace(IDLE, instances=10)])
def test_without_a_node_that_has_room_none_is_chosen(unable: Candidate) -> None:
    assert host_of(VACANT, [unable], "c_a", always()) is None


def test_if_all_nodes_are_late_one_is_chosen_all_the_same() -> None:
    late = [replace(IDLE, lag_ms=500), replace(IDLE, node="c_b", instances=10)]
    assert host_of(VACANT, late, "c_a", always()) == "c_a"


def test_a_node_that_did_not_answer_is_the_last_choice() -> None:
    nodes = [node("c_a"), node("c_b")]
    assert host_of(VACANT, nodes, "c_a", always(0), silent=["c_a"]) == "c_b"
    assert host_of(VACANT, nodes, "c_a", always(), silent=["c_a", "c_b"]) == "c_a"


@given(
    loads=st.lists(st.floats(0, 2), max_size=6),
    numbers=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    asker=st.sampled_from([None, "c_0", "c_5"]),
)
def test_some_able_node_is_chosen_if_there_is_one(
    loads: list[float], numbers: tuple[int, int], asker: str | None
) -> None:
    nodes = [node(f"c_{number}", load) for number, load in enumerate(loads)]
    left = list(numbers)
    chosen = host_of(VACANT, nodes, asker, lambda limit: left.pop() % limit)
    assert (chosen in {one.node for one in nodes}) if nodes else chosen is None


def test_the_process_with_the_link_hosts_what_lives_on_the_node() -> None:
    place = replace(VACANT, linked="c_z")
    gateway = replace(IDLE, node="c_z", hosts=False, instances=10, load=1.0, lag_ms=500)
    assert host_of(place, [node("c_a"), gateway], "c_a", always()) == "c_z"


@pytest.mark.parametrize(
    ("others", "silent"),
    [([], []), ([node("c_z")], ["c_z"]), ([replace(node("c_z"), up=False, hosts=False)], [])],
)
def test_without_its_process_any_other_hosts_it(others: list[Candidate], silent: list[str]) -> None:
    place = replace(VACANT, linked="c_z")
    assert host_of(place, [node("c_a"), *others], "c_a", always(), silent) == "c_a"
