"""Fair shares of the event loop between client addresses.

In each round of the event loop, every busy connection takes a step. So an address with 250 busy
connections would make each other connection wait for 250 steps. This module counts the steps of an
address in each round. Steps over its share wait for the next rounds, first come, first served. If
only one address is busy, it loses nothing, because rounds follow each other at once.
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
"""Duration of a step. Longer work counts as several steps."""


class _Rounds(trio.abc.Instrument):
    """Counts the rounds of the event loop."""

    def __init__(self) -> None:
        self.count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


class Turns:
    """Hands out steps. `run` is its task; without it, nothing is counted.

    Bound of the queues: the number of connections and streams that may be open.
    """

    def __init__(self) -> None:
        self._rounds = _Rounds()
        self._round = -1
        """The round that `_taken` belongs to."""
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[tuple[trio.lowlevel.Task, int]]] = {}
        self._wanted = trio.Event()

    async def take(self, key: str, steps: int = 1) -> None:
        """Waits until the address may take that many steps.

        Args:
            key: the address, or its network.
            steps: the cost of the work, at most `SHARE`.
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
        queue = self._waiting.setdefault(key, deque())
        entry = (trio.lowlevel.current_task(), steps)
        queue.append(entry)
        self._wanted.set()

        def abandon(_: object) -> trio.lowlevel.Abort:
            queue.remove(entry)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)

    async def run(self) -> None:
        """Counts the rounds and wakes waiting tasks, until cancelled."""
        trio.lowlevel.add_instrument(self._rounds)
        try:
            while True:
                await self._wanted.wait()
                while self._waiting:
                    await trio.lowlevel.checkpoint()
                    self._round = self._rounds.count
                    self._taken.clear()
                    for key in tuple(self._waiting):
                        self._wake(key)
                self._wanted = trio.Event()
        finally:
            trio.lowlevel.remove_instrument(self._rounds)

    def _wake(self, key: str) -> None:
        queue = self._waiting[key]
        taken = 0
        while queue and taken + queue[0][1] <= SHARE:
            task, steps = queue.popleft()
            taken += steps
            trio.lowlevel.reschedule(task)
        self._taken[key] = taken
        if not queue:
            del self._waiting[key]
