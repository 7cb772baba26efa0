"""Rounds of a task that reads many sockets, and the actors that handle its messages at once.

A message in a mailbox costs an envelope, a wake-up of the actor's task, and a turn of the event
loop. So while a round is open, an idle actor may handle a message in the sender's task
(`Ref.tell_now`), and flushes once, at the end of the round. Nothing in a round waits.

The lists need no limit: each actor is in each of the two at most once.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Rounds:
    """The rounds of one task, one after the other.

    Attributes:
        open: whether a round is open.
        now: when it began, in seconds of Trio's clock.
    """

    __slots__ = ("_due", "_ends", "_order", "now", "open")

    def __init__(self) -> None:
        self.open = False
        self.now = 0.0
        self._ends: list[Callable[[], None]] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def begin(self, now: float) -> None:
        """Opens a round, which also ends what is due by now."""
        self.open, self.now = True, now
        while self._due and self._due[0][0] <= now:
            self._ends.append(heapq.heappop(self._due)[2])

    def join(self, end: Callable[[], None]) -> None:
        """Calls `end` at the end of this round. It must neither wait nor raise."""
        self._ends.append(end)

    def later(self, at: float, end: Callable[[], None]) -> None:
        """Calls `end` at the end of the first round that begins at that time or later."""
        heapq.heappush(self._due, (at, next(self._order), end))

    def end(self) -> float | None:
        """Closes the round. Returns when there must be another one at the latest; None: when
        something comes in."""
        self.open = False
        ends, self._ends = self._ends, []
        for end in ends:
            end()
        return self._due[0][0] if self._due else None
