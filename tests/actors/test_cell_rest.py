"""A drain that asks for rest: what comes meanwhile shares the next one."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from actors.runtime.actor import Actor, Spec
from actors.runtime.supervisor import Supervisor
from actors.runtime.timers import Timers
from tests.actors.probe import Note


class Resting(Actor[Note]):
    """Writes each drain down, with the time, and rests for a second."""

    def __init__(self, drains: list[tuple[float, list[str]]]) -> None:
        self._drains = drains
        self._seen: list[str] = []

    async def receive(self, message: Note) -> None:
        self._seen.append(message.word)

    async def flush(self) -> None:
        self._drains.append((trio.current_time(), self._seen))
        self._seen = []
        self.context.rest(1.0)


async def test_the_next_drain_waits_and_takes_all_that_came_meanwhile(
    autojump_clock: MockClock,
) -> None:
    drains: list[tuple[float, list[str]]] = []
    async with Supervisor.open("root", Timers()) as supervisor:
        spec: Spec[Note] = Spec("resting", lambda: Resting(drains))
        ref = await supervisor.start(spec)
        begun = trio.current_time()
        ref.tell(Note("one"))
        await trio.sleep(0.5)
        ref.tell(Note("two"))
        ref.tell(Note("three"))
        await trio.sleep(2)
    assert [(round(at - begun, 3), seen) for at, seen in drains] == [
        (0, ["one"]),
        (1, ["two", "three"]),
    ]


async def test_a_resting_actor_is_drained_all_the_same(autojump_clock: MockClock) -> None:
    drains: list[tuple[float, list[str]]] = []
    async with Supervisor.open("root", Timers()) as supervisor:
        spec: Spec[Note] = Spec("resting", lambda: Resting(drains))
        ref = await supervisor.start(spec)
        ref.tell(Note("one"))
        await trio.sleep(0.1)
        ref.tell(Note("two"))
        ref.drain()
        await ref.wait_stopped()
    assert [seen for _, seen in drains] == [["one"], ["two"]]
