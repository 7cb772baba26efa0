"""Nodes and their witnesses, under any sequence of faults: never two hosts."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.reileta.rules.cluster.mutants import MUTANTS
from tests.reileta.rules.cluster.world import CalmWorld, Fault, Node, Rules, TwoHosts, Witness

NODES = ("c0", "c1", "c2")
MACHINE = settings(max_examples=150, stateful_step_count=12, deadline=None)

faults = st.sampled_from(["lost", "unanswered", "late", "answered late"])
witnesses = st.sampled_from([("nats",), ("database",), ("nats", "database")])
numbers = st.integers(0, len(NODES) - 1)
times_ms = st.sampled_from([100, 500, 1_900, 3_300, 3_900])


class LeaseMachine(RuleBasedStateMachine):
    """Three nodes, whose clocks are up to 10 % apart."""

    played: ClassVar[Rules] = Rules()

    @initialize(rates=st.tuples(*[st.sampled_from([0.95, 1.0, 1.05])] * len(NODES)))
    def begin(self, rates: tuple[float, ...]) -> None:
        self.world = CalmWorld(self.played, [(rate, rate * 1e5) for rate in rates])
        self.faults: dict[tuple[str, Witness], Fault] = {}
        self.world.run(1_000)

    def node(self, number: int) -> Node:
        return self.world.nodes[number]

    def run(self, ms: int) -> None:
        self.world.run(ms, self.faults)

    @rule(number=numbers, witnesses=witnesses, fault=faults, ms=times_ms)
    def cut(self, number: int, witnesses: tuple[Witness, ...], fault: Fault, ms: int) -> None:
        for witness in witnesses:
            self.faults[self.node(number).name, witness] = fault
        self.run(ms)

    @rule(late=st.booleans(), ms=times_ms)
    def mend(self, late: bool, ms: int) -> None:
        """All links work again; the calls that are late arrive, or never do."""
        self.faults.clear()
        if late:
            self.world.deliver_late()
        self.world.late.clear()
        self.run(ms)

    @rule(number=numbers, ms=times_ms)
    def pause(self, number: int, ms: int) -> None:
        self.node(number).paused = True
        self.run(ms)

    @rule(number=numbers, ms=times_ms)
    def resume(self, number: int, ms: int) -> None:
        if self.node(number).paused:
            self.world.resume(self.node(number))
            self.world.settle(self.faults)
        self.run(ms)

    @rule(noticed=st.sets(numbers), ms=times_ms)
    def lose_data(self, noticed: set[int], ms: int) -> None:
        self.world.lose_data()
        self.reconnect(noticed, ms)

    @rule(noticed=st.sets(numbers), ms=times_ms)
    def reconnect(self, noticed: set[int], ms: int) -> None:
        for number in noticed:
            if not self.node(number).paused:
                self.node(number).reconnect()
        self.run(ms)

    @rule(number=numbers)
    def begin_anew(self, number: int) -> None:
        """A node that has fallen takes a new incarnation."""
        node = self.node(number)
        if node.lease.fallen and not node.paused:
            node.start()

    @invariant()
    def no_fenced_node_may_act(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


TestLeaseMachine = pytest.mark.slow(LeaseMachine.TestCase)
TestLeaseMachine.settings = MACHINE


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutant",
    [
        "3 never silent",
        "8 ignores records",
        "8 ignores rows",
        "8 takes before the owner is silent",
        "9 gives back first",
    ],
)
def test_the_machine_finds_broken_rules(mutant: str) -> None:
    class Broken(LeaseMachine):
        played = MUTANTS[mutant]

    search = settings(MACHINE, max_examples=300, phases=[Phase.generate], print_blob=False)
    with pytest.raises(TwoHosts):
        run_state_machine_as_test(Broken, settings=search)
