"""Nodes with the real rules never host what another one took over, and each broken rule is caught.

`storm.py` plays random failures, `mutants.py` has the broken rules.
"""

from __future__ import annotations

import pytest

from reileta.rules.cluster.lease import Standing
from tests.reileta.rules.cluster.mutants import MUTANTS
from tests.reileta.rules.cluster.storm import Storm
from tests.reileta.rules.cluster.world import CalmWorld, Rules, TwoHosts

SEEDS = 150
_RARE = ("7 keeps revisions", "8 takes gone for buried")
"""Mutants that random failures show in one of some hundred runs: the scenarios below show them."""


@pytest.mark.slow
def test_no_node_acts_once_it_was_taken_over() -> None:
    takeovers = 0
    for seed in range(SEEDS):
        takeovers += Storm(seed, Rules()).run().takeovers
    assert takeovers > SEEDS / 2, "the failures lead to take-overs"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [name for name in MUTANTS if name not in _RARE])
def test_a_broken_rule_leads_to_two_hosts(mutant: str) -> None:
    for seed in range(SEEDS):
        try:
            Storm(seed, MUTANTS[mutant]).run()
        except TwoHosts:
            return
    pytest.fail(f"{SEEDS} runs did not notice")


# Scenarios: each with the rules, and with the mutant that it is for


def nats_counts_anew(rules: Rules, first: int) -> CalmWorld:
    """NATS loses its data and numbers its writes from `first`, while the first node is cut off and
    taken over. Its record is buried with a number that it may have had itself."""
    world = CalmWorld(rules)
    world.run(3_000)
    world.lose_data()
    world.nats.sequence = first
    world.nodes[1].reconnect()
    world.run(6_000, {("c0", "nats"): "lost", ("c0", "database"): "lost"})
    assert world.takeovers == 1
    world.nodes[0].reconnect()
    world.run(1_000, {("c0", "database"): "lost"})
    return world


def test_a_revision_is_worth_nothing_after_a_reconnect() -> None:
    caught = 0
    for first in range(20):
        nats_counts_anew(Rules(), first)
        try:
            nats_counts_anew(MUTANTS["7 keeps revisions"], first)
        except TwoHosts:
            caught += 1
    assert caught


def nats_forgets_a_node_that_lives_by_it(rules: Rules) -> CalmWorld:
    """A node that only NATS confirms: NATS loses its data, and others notice first."""
    world = CalmWorld(rules)
    world.run(3_000)
    world.run(5_000, {("c0", "database"): "lost"})
    assert world.takeovers == 0
    world.lose_data()
    world.nodes[1].reconnect()
    world.run(1_000, {("c0", "database"): "lost", ("c0", "nats"): "lost"})
    return world


def test_a_record_that_is_gone_is_not_a_burial() -> None:
    assert nats_forgets_a_node_that_lives_by_it(Rules()).takeovers == 0
    with pytest.raises(TwoHosts):
        nats_forgets_a_node_that_lives_by_it(MUTANTS["8 takes gone for buried"])


# What the lease is for: who stays, who falls, and when


def test_a_node_that_died_is_taken_over_after_its_silence() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.nodes[0].die()
    world.run(2_900)
    assert world.takeovers == 0
    world.run(900)
    assert world.takeovers == 1


@pytest.mark.parametrize("witness", ["nats", "database"])
def test_while_one_witness_is_away_nobody_falls(witness: str) -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(60_000, {("c0", witness): "lost", ("c1", witness): "lost"})  # type: ignore[dict-item]
    for node in world.nodes:
        assert node.lease.standing(node.now()) is Standing.ACTIVE
    world.nodes[0].die()
    world.run(60_000, {("c1", witness): "lost"})  # type: ignore[dict-item]
    assert world.takeovers == 0, "and nobody is taken over"
    world.run(5_000)
    assert world.takeovers == 1


def test_nats_that_lost_its_data_gets_the_records_again_and_nobody_falls() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.lose_data()
    for node in world.nodes:
        node.reconnect()
    world.run(2_000)
    assert set(world.nats.records) == {"c0.1", "c1.1"}
    world.run(60_000, {("c0", "database"): "lost", ("c1", "database"): "lost"})
    assert world.takeovers == 0
    assert all(node.lease.may_act(node.now()) for node in world.nodes), "NATS counts again"


def test_a_short_pause_costs_nothing() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.nodes[0].paused = True
    world.run(1_900)
    world.resume(world.nodes[0])
    world.run(100)
    assert world.nodes[0].lease.standing(world.nodes[0].now()) is Standing.ACTIVE
    assert world.takeovers == 0


def test_a_long_pause_makes_a_node_silent_before_its_first_word_and_it_falls() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    node = world.nodes[0]
    node.paused = True
    world.run(6_000)
    assert world.takeovers == 1
    assert not node.lease.may_act(node.now())
    world.resume(node)
    world.run(100)
    assert node.lease.standing(node.now()) is Standing.FALLEN


def test_an_own_ghost_makes_nobody_fall() -> None:
    """NATS hangs with a renewal of a node in its socket, and carries it out when it goes on."""
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(4_500, {("c0", "nats"): "late", ("c1", "nats"): "late"})
    world.deliver_late()
    world.run(1_000)
    world.run(60_000, {("c0", "database"): "lost"})
    assert world.nodes[0].lease.standing(world.nodes[0].now()) is Standing.ACTIVE
    assert world.nodes[0].incarnation == 1
    assert world.takeovers == 0


def test_a_ghost_does_not_raise_a_node_that_was_buried() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(6_000, {("c0", "nats"): "late", ("c0", "database"): "lost"})
    assert world.takeovers == 1
    world.deliver_late()
    world.run(1_000, {("c0", "database"): "lost"})
    node = world.nodes[0]
    assert node.lease.standing(node.now()) is Standing.SILENT
    world.run(1_000)
    assert node.lease.standing(node.now()) is Standing.FALLEN


def test_a_node_that_is_heard_by_nobody_is_silent_although_it_hears_all() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(2_100, {("c0", "nats"): "lost", ("c0", "database"): "unanswered"})
    assert world.nodes[0].lease.standing(world.nodes[0].now()) is Standing.SILENT


def test_an_isolated_node_falls_and_then_gives_back() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(3_300, {("c0", "nats"): "lost"})
    assert world.nodes[0].lease.fallen
    assert world.rows["c0.1"].fenced
    assert not world.nodes[1].lease.fallen


def test_nobody_is_isolated_while_nats_answers_no_one() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(20_000, {("c0", "nats"): "lost", ("c1", "nats"): "lost"})
    assert not any(node.lease.fallen for node in world.nodes)


def test_nobody_is_isolated_who_is_not_the_first_that_nats_answers_again() -> None:
    world = CalmWorld(Rules())
    world.run(3_000)
    world.run(4_500, {("c0", "nats"): "lost", ("c1", "nats"): "lost"})
    world.run(2_500, {("c0", "nats"): "lost"})
    world.run(1_000)
    assert not any(node.lease.fallen for node in world.nodes)


def test_another_node_ends_a_take_over_that_its_taker_did_not_live_to_end() -> None:
    world = CalmWorld(Rules(), [(1.0, 0.0), (1.0, 0.0), (1.0, 0.0)])
    world.run(3_000)
    world.nodes[0].die()
    world.run(2_900)
    world.run(600, {("c1", "database"): "lost", ("c2", "database"): "lost"})
    assert world.nats.records["c0.1"].state == "buried"
    assert world.takeovers == 0
    world.nodes[1].die()
    world.run(5_000)
    assert world.rows["c0.1"].fenced
    assert world.rows["c1.1"].fenced
    assert world.nodes[2].lease.may_act(world.nodes[2].now())
