"""Turns: one address can't keep the others waiting, however many connections it has.

Each connection with something to do takes a step on the event loop before anybody gets a second
one. So an address with 250 busy connections would make all others wait for 250 steps. Here the
steps of an address are counted in each round of the loop; those over its share wait for the next
rounds, in the order in which they came. An address that is alone loses nothing: rounds follow each
other at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

import trio

SHARE: Final = 4
"""Steps of one address in a round."""
STEP_S: Final = 0.0005
"""Seconds that a step takes, or it counts as several."""


class _Rounds(trio.abc.Instrument):
    """Counts the rounds of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


class Turns:
    """Hands out steps. `run` is its task; without it, nothing is counted.

    The waiting lines are bounded by the connections and streams that may be open.
    """

    def __init__(self) -> None:
        self._rounds = _Rounds()
        self._round = -1
        """The round that `_taken` is of."""
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[trio.lowlevel.Task, int]]] = {}
        self._wanted = trio.Event()

    async def take(self, key: str, steps: int = 1) -> None:
        """Returns when the address may take so many steps; at once, when its share allows.

        Args:
            key: the address, or its network.
            steps: what the work weighs, at most `SHARE`.
        """
        if self._round != self._rounds.count:
            self._round = self._rounds.count
            self._taken.clear()
        taken = self._taken.get(key, 0) + steps
        if taken <= SHARE and key not in self._waiting:
            self._taken[key] = taken
            return
        await self._wait(key, steps)

    @contextmanager
    def charged(self, key: str) -> Iterator[None]:
        """Charges the address for work that took longer than a step, within one round."""
        round_, began_s = self._rounds.count, perf_counter()
        yield
        if round_ == self._rounds.count == self._round:
            steps = int((perf_counter() - began_s) / STEP_S)
            if steps:
                self._taken[key] = self._taken.get(key, 0) + steps

    async def _wait(self, key: str, steps: int) -> None:
        line = self._waiting.setdefault(key, deque())
        entry = (trio.lowlevel.current_task(), steps)
        line.append(entry)
        self._wanted.set()

        def abandon(_: object) -> trio.lowlevel.Abort:
            line.remove(entry)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)

    async def run(self) -> None:
        """Counts the rounds, and calls up those that wait. Until cancelled."""
        trio.lowlevel.add_instrument(self._rounds)
        try:
            while True:
                await self._wanted.wait()
                while self._waiting:
                    await trio.lowlevel.checkpoint()
                    self._round = self._rounds.count
                    self._taken.clear()
                    for key in tuple(self._waiting):
                        self._call_up(key)
                self._wanted = trio.Event()
        finally:
            trio.lowlevel.remove_instrument(self._rounds)

    def _call_up(self, key: str) -> None:
        line = self._waiting[key]
        taken = 0
        while line and taken + line[0][1] <= SHARE:
            task, steps = line.popleft()
            taken += steps
            trio.lowlevel.reschedule(task)
        self._taken[key] = taken
        if not line:
            del self._waiting[key]
