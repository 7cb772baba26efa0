"""Sessions on two nodes over one real database, under any sequence of events.

Sockets come and go, tokens die, actors crash, nodes stop and are killed, the database answers late,
or not at all. Whatever happens: a resource never has two holders, a session never two resources,
and only who has it writes; what was acknowledged is in the database, each change once; and all
sockets of a session see the same. When all has come to rest, nobody waits for anything.
"""

from __future__ import annotations

import random
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
from reileta.store import Store
from tests.actors.play import NODES, Course, Play
from tests.actors.turns import Verdict
from tests.conftest import ManualClock

MACHINE = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)


class Order:
    """In place of Trio's chance: which of the tasks that are ready runs first, by a seed alone."""

    seed = 0

    def shuffle(self, batch: list[Any]) -> None:
        if len(batch) > 1:
            random.Random(self.seed).shuffle(batch)


nodes = st.sampled_from(NODES)
sessions = st.integers(0, 2)
tokens = st.integers(0, 1)
which = st.integers(0, 5)
documents = st.integers(0, 1)
hurried = st.sampled_from([False, False, True])
verdicts = st.sampled_from(["answered", "failed", "unanswered"])
courses = st.sampled_from([None, None, None, "held", "failed", "unanswered"])
values = st.none() | st.integers(0, 3) | st.just({"c": 1}) | st.just("large")
patches = st.dictionaries(st.sampled_from("ab"), values, max_size=2)


class SessionsMachine(RuleBasedStateMachine):
    """`play` starts one, in Trio's thread. What is `hurried` waits for nothing that comes of it."""

    def __init__(self, play: Callable[[], Play], order: Order) -> None:
        super().__init__()
        self._play = play()
        self._order = order
        self._hurried: list[Callable[[], Awaitable[None]]] = []
        self._sound = True

    def do(self, act: Callable[..., Awaitable[None]], *args: Any, hurried: bool = False) -> None:
        self._hurried.append(partial(act, *args))
        if not hurried:
            acts, self._hurried = self._hurried, []
            self._sound = False
            trio.from_thread.run(self._play.step, acts)
            self._sound = True

    def teardown(self) -> None:
        try:
            if self._sound:
                self.do(self._play.finish)
        finally:
            trio.from_thread.run(self._play.close)

    @initialize(acquired=st.booleans(), seed=st.integers(0, 9))
    def begin(self, acquired: bool, seed: int) -> None:
        self._order.seed = seed
        for node, session in ((0, 0), (1, 0), (0, 1), (1, 2)):
            self.do(self._play.connect, node, session, node, "line")
        if acquired:
            self.do(self._play.acquire, 0, 0, 0)

    @rule(
        node=nodes,
        session=sessions,
        token=tokens,
        face=st.sampled_from(["line", "line", "ws"]),
        course=courses,
        hurried=hurried,
    )
    def connect(
        self, node: int, session: int, token: int, face: str, course: Course, hurried: bool
    ) -> None:
        self.do(self._play.set_course, node, course, hurried=True)
        self.do(self._play.connect, node, session, token, face, hurried=hurried)

    @rule(which=which, hurried=hurried)
    def disconnect(self, which: int, hurried: bool) -> None:
        self.do(self._play.disconnect, which, hurried=hurried)

    @rule(said=st.lists(st.tuples(which, patches), min_size=1, max_size=4), course=courses)
    def patch(self, said: list[tuple[int, dict[str, Json]]], course: Course) -> None:
        for which, patch in said:
            self.do(self._play.patch, which, patch, course, hurried=True)
        self.do(self._play.nothing)

    @rule(node=nodes, session=sessions, document=documents, course=courses, hurried=hurried)
    def acquire(
        self, node: int, session: int, document: int, course: Course, hurried: bool
    ) -> None:
        self.do(self._play.set_course, node, course, hurried=True)
        self.do(self._play.acquire, node, session, document, hurried=hurried)

    @rule(
        kind=st.sampled_from(["write", "write", "release"]),
        node=nodes,
        session=sessions,
        document=documents,
        course=courses,
        hurried=hurried,
    )
    def use(
        self, kind: str, node: int, session: int, document: int, course: Course, hurried: bool
    ) -> None:
        self.do(self._play.set_course, node, course, hurried=True)
        self.do(self._play.use, kind, node, session, document, hurried=hurried)

    @rule(
        kind=st.sampled_from(["kill", "end", "crash"]),
        which=which,
        elsewhere=st.booleans(),
        hurried=hurried,
    )
    def harm(self, kind: str, which: int, elsewhere: bool, hurried: bool) -> None:
        self.do(getattr(self._play, kind), which, elsewhere, hurried=hurried)

    @rule(session=sessions)
    def log_in(self, session: int) -> None:
        self.do(self._play.log_in, session)

    @rule(node=nodes, killed=st.booleans())
    def restart(self, node: int, killed: bool) -> None:
        self.do(self._play.restart, node, killed)

    @rule(which=which, verdict=verdicts, hurried=hurried)
    def let_go(self, which: int, verdict: Verdict, hurried: bool) -> None:
        """Of a call that is held; if there is none, of one whose asker is gone."""
        self.do(self._play.let_go, which, verdict, hurried=hurried)

    @rule(seconds=st.sampled_from([0, 0.1, 1, 11, 31, 61, 90]))
    def wait(self, seconds: float) -> None:
        """For so long, or until all has come to rest."""
        self.do(self._play.wait if seconds else self._play.rest, *([seconds] if seconds else []))


@pytest.mark.slow
async def test_sessions_keep_their_promises_whatever_happens(
    store: Store, clock: ManualClock, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trio varies which of the tasks that are ready goes first; here that is the machine's to say.
    order = Order()
    monkeypatch.setattr("trio._core._run._r", order)
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:

            def play() -> Play:
                play = Play(store, clock, mock_clock, logs)
                return trio.from_thread.run(nursery.start, play.run)  # type: ignore[no-any-return]

            machine: Any = partial(SessionsMachine, play, order)
            run = partial(run_state_machine_as_test, machine)
            result = await trio.to_thread.run_sync(partial(outcome.capture, run, settings=MACHINE))
    result.unwrap()  # here, where it is no part of a group
