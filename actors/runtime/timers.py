"""Timers: each puts one message into a mailbox.

All timers of a node share one task and one heap. There is no overflow policy: each actor has a
bounded number of timers, one per purpose.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Any, Protocol

import trio

from actors.runtime.trace import NO_TRACE, Traced


class Target(Protocol):
    """The receiver of a timer's message: a `Ref`, or one incarnation of an actor."""

    def signal(self, message: Any, /) -> bool: ...


class Timer:
    """A message that is sent once, at `deadline` (seconds of Trio's clock), unless cancelled."""

    __slots__ = ("_message", "_target", "deadline", "wall")

    def __init__(self, deadline: float, target: Target, message: Any, wall: bool) -> None:
        self.deadline = deadline
        self.wall = wall
        self._target: Target | None = target
        self._message = message

    @property
    def pending(self) -> bool:
        return self._target is not None

    def cancel(self) -> None:
        self._target = None
        self._message = None

    def fire(self) -> None:
        if self._target is not None:
            target, message = self._target, self._message
            self.cancel()
            target.signal(message)


class Timers:
    """The timers of a node. `run` is its task."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._prune_at = 1024
        self._wake = trio.Event()

    def __len__(self) -> int:
        return sum(timer.pending for _, _, timer in self._heap)

    def after(self, delay_s: float, target: Target, message: Any, *, wall: bool = False) -> Timer:
        """Signals `message` to `target` in `delay_s` seconds.

        `wall`: the delay was computed from the wall time, see `fire_wall_timers`.
        """
        # Here and not in `_fire_due`: the first timer may be due in a day.
        if len(self._heap) > self._prune_at:
            self._prune()
        timer = Timer(trio.current_time() + delay_s, target, message, wall)
        heapq.heappush(self._heap, (timer.deadline, next(self._order), timer))
        if self._heap[0][2] is timer:
            self._wake.set()
        return timer

    async def run(self) -> None:
        """Sends the messages that are due, until cancelled."""
        with Traced(NO_TRACE):
            while True:
                self._fire_due()
                deadline = self._heap[0][0] if self._heap else float("inf")
                self._wake = trio.Event()
                with trio.move_on_at(deadline):
                    await self._wake.wait()

    def fire_wall_timers(self) -> None:
        """Fires all timers whose delay was computed from the wall time, which has jumped."""
        for _, _, timer in self._heap.copy():
            if timer.wall:
                timer.fire()

    def _fire_due(self) -> None:
        now = trio.current_time()
        while self._heap and (self._heap[0][0] <= now or not self._heap[0][2].pending):
            heapq.heappop(self._heap)[2].fire()

    def _prune(self) -> None:
        """Drops cancelled timers; the next time is when the heap has twice as many as are left."""
        self._heap = [entry for entry in self._heap if entry[2].pending]
        heapq.heapify(self._heap)
        self._prune_at = max(1024, 2 * len(self._heap))
