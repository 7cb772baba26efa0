"""Sessions on two nodes over one real database, under any sequence of events: see README.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import outcome
import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from structlog.testing import capture_logs
from trio.testing import MockClock

from reileta.rules.resource.json_values import Json
from reileta.settings import Settings
from reileta.store import open_store
from tests.conftest import ManualClock
from tests.simulation.call_scheduler import Verdict
from tests.simulation.database import open_blocking
from tests.simulation.invariants import Api
from tests.simulation.simulation import NODES, Fault, Simulation

Trace = list[tuple[int, str]]

EXAMPLES = settings(max_examples=25, stateful_step_count=30, deadline=None)

nodes = st.sampled_from(NODES)
sessions = st.integers(0, 2)
tokens = st.integers(0, 1)
which = st.integers(0, 5)
documents = st.integers(0, 1)
at_once = st.sampled_from([False, False, True])
verdicts = st.sampled_from(["answered", "failed", "unanswered"])
faults = st.sampled_from([None, None, None, "held", "failed", "unanswered"])
values = st.none() | st.integers(0, 3) | st.just({"c": 1}) | st.just("large")
patches = st.dictionaries(st.sampled_from("ab"), values, max_size=2)


class SessionsMachine(RuleBasedStateMachine):
    """Chooses the events of one simulation, from Hypothesis' thread.

    `start` starts a simulation in Trio's thread. An event that happens `at_once` does not wait for
    the consequences of the one before it to end, nor does the next one wait for its own.
    """

    def __init__(self, start: Callable[[], Simulation], traces: list[Trace]) -> None:
        super().__init__()
        self._simulation = start()
        self._traces = traces
        self._events: list[Callable[[], Awaitable[None]]] = []
        self._sound = True

    def do(self, event: Callable[..., Awaitable[None]], *args: Any, at_once: bool = False) -> None:
        self._events.append(partial(event, *args))
        if not at_once:
            events, self._events = self._events, []
            self._sound = False
            trio.from_thread.run(self._simulation.step, events)
            self._sound = True

    def teardown(self) -> None:
        try:
            if self._sound:
                self.do(self._simulation.finish)
        finally:
            trio.from_thread.run(self._simulation.close)
            self._traces.append(self._simulation.scheduler.trace)

    @initialize(acquired=st.booleans(), schedule=st.random_module())
    def begin(self, acquired: bool, schedule: object) -> None:
        """`schedule` seeds the order in which Trio runs the tasks that are ready."""
        for node, session in ((0, 0), (1, 0), (0, 1), (1, 2)):
            self.do(self._simulation.connect, node, session, node, "session")
        if acquired:
            self.do(self._simulation.acquire, 0, 0, 0)

    @rule(
        node=nodes,
        session=sessions,
        token=tokens,
        api=st.sampled_from(["session", "session", "registry"]),
        fault=faults,
        at_once=at_once,
    )
    def connect(
        self, node: int, session: int, token: int, api: Api, fault: Fault, at_once: bool
    ) -> None:
        self.do(self._simulation.set_fault, node, fault, at_once=True)
        self.do(self._simulation.connect, node, session, token, api, at_once=at_once)

    @rule(which=which, at_once=at_once)
    def disconnect(self, which: int, at_once: bool) -> None:
        self.do(self._simulation.disconnect, which, at_once=at_once)

    @rule(changes=st.lists(st.tuples(which, patches), min_size=1, max_size=4), fault=faults)
    def patch(self, changes: list[tuple[int, dict[str, Json]]], fault: Fault) -> None:
        for which, patch in changes:
            self.do(self._simulation.patch, which, patch, fault, at_once=True)
        self.do(self._simulation.nothing)

    @rule(node=nodes, session=sessions, document=documents, fault=faults, at_once=at_once)
    def acquire(self, node: int, session: int, document: int, fault: Fault, at_once: bool) -> None:
        self.do(self._simulation.set_fault, node, fault, at_once=True)
        self.do(self._simulation.acquire, node, session, document, at_once=at_once)

    @rule(
        kind=st.sampled_from(["write", "write", "release"]),
        node=nodes,
        session=sessions,
        document=documents,
        fault=faults,
        at_once=at_once,
    )
    def use(
        self, kind: str, node: int, session: int, document: int, fault: Fault, at_once: bool
    ) -> None:
        self.do(self._simulation.set_fault, node, fault, at_once=True)
        self.do(self._simulation.use, kind, node, session, document, at_once=at_once)

    @rule(
        kind=st.sampled_from(["kill", "end", "crash"]),
        which=which,
        elsewhere=st.booleans(),
        at_once=at_once,
    )
    def harm(self, kind: str, which: int, elsewhere: bool, at_once: bool) -> None:
        self.do(getattr(self._simulation, kind), which, elsewhere, at_once=at_once)

    @rule(which=which, document=documents, watches=st.sampled_from([True, True, False]))
    def watch(self, which: int, document: int, watches: bool) -> None:
        self.do(self._simulation.watch, which, document, watches)

    @rule(
        node=nodes,
        session=sessions,
        document=documents,
        waits=st.sampled_from([True, True, False]),
        fault=faults,
        at_once=at_once,
    )
    def queue(
        self, node: int, session: int, document: int, waits: bool, fault: Fault, at_once: bool
    ) -> None:
        self.do(self._simulation.set_fault, node, fault, at_once=True)
        self.do(self._simulation.queue, node, session, document, waits, at_once=at_once)

    @rule(node=nodes, document=documents, at_once=at_once)
    def crash_document(self, node: int, document: int, at_once: bool) -> None:
        self.do(self._simulation.crash_document, node, document, at_once=at_once)

    @rule(session=sessions)
    def log_in(self, session: int) -> None:
        self.do(self._simulation.log_in, session)

    @rule(node=nodes, killed=st.booleans())
    def restart(self, node: int, killed: bool) -> None:
        self.do(self._simulation.restart, node, killed)

    @rule(which=which, verdict=verdicts, at_once=at_once)
    def release(self, which: int, verdict: Verdict, at_once: bool) -> None:
        self.do(self._simulation.release, which, verdict, at_once=at_once)

    @rule(seconds=st.sampled_from([0, 0.125, 1, 11, 31, 61, 90]))
    def wait(self, seconds: float) -> None:
        """For so long; for 0, until all faults have ended."""
        if seconds:
            self.do(self._simulation.wait, seconds)
        else:
            self.do(self._simulation.rest)


@pytest.mark.slow
def test_sessions_keep_their_promises_whatever_happens(
    database_url: str, pytestconfig: pytest.Config
) -> None:
    """The same events in each run, unless `--hypothesis-seed` chooses others."""
    seed = pytestconfig.getoption("--hypothesis-seed")
    simulate(settings(EXAMPLES, derandomize=seed is None), database_url)


@pytest.mark.slow
def test_a_simulation_takes_the_same_course_each_time(database_url: str) -> None:
    few = settings(EXAMPLES, max_examples=3, stateful_step_count=20, derandomize=True)
    first = simulate(few, database_url)
    assert sum(map(len, first)) > 100
    assert simulate(few, database_url) == first


def simulate(settings: settings, url: str) -> list[Trace]:
    """Runs the machine with these settings; the database calls of each of its simulations."""
    mock = MockClock()
    result, traces = trio.run(_simulate, settings, url, mock, clock=mock)
    result.unwrap()  # here, so that its error is not wrapped in a group
    return traces


async def _simulate(
    settings: settings, url: str, mock: MockClock
) -> tuple[outcome.Outcome[None], list[Trace]]:
    clock = ManualClock()
    traces: list[Trace] = []
    with capture_logs() as logs:
        async with (
            open_store(Settings(database=url), clock) as store,
            open_blocking(store, url, clock) as blocking,
            trio.open_nursery() as nursery,
        ):

            def start() -> Simulation:
                simulation = Simulation(blocking, clock, mock, logs)
                started: Simulation = trio.from_thread.run(nursery.start, simulation.run)
                return started

            machine: Any = partial(SessionsMachine, start, traces)
            run = partial(run_state_machine_as_test, machine, settings=settings)
            result = await trio.to_thread.run_sync(partial(outcome.capture, run))
    return result, traces
