"""Pauses of less than a millisecond, for the task that reads the sockets.

To wait for a timer, and to let the event loop take a turn for it, costs as much as several
messages. So where no other task has anything to do, a pause keeps the thread. It is not longer than
a fan-out to a hundred sockets, which keeps it, too.
"""

from __future__ import annotations

from time import perf_counter, sleep
from typing import Final

from trio.lowlevel import checkpoint

QUIET_S: Final = 0.000_06
"""If two turns of the event loop take longer, other tasks had something to do. Two, because those
that a turn wakes may run only after this task."""
LOOK_S: Final = 0.002
"""Where all is quiet, this task looks so often whether others have something to do."""
ACTIVE_S: Final = 0.02
"""For so long after they had, it looks in each pause."""
SHORTEST_S: Final = 0.000_05
"""A shorter sleep is not worth its system call."""


class Pauses:
    """The pauses of one task, one after the other."""

    __slots__ = ("_active_until", "_look_at")

    def __init__(self) -> None:
        self._look_at = self._active_until = 0.0

    async def take(self, seconds: float) -> None:
        """Lets other tasks run until none has anything to do, and sleeps for the rest of the
        pause. If there is always something, it ends with the turn in which it is over."""
        now_s = perf_counter()
        until_s = now_s + seconds
        while now_s >= self._look_at:
            began_s = now_s
            await checkpoint()
            await checkpoint()
            now_s = perf_counter()
            if now_s - began_s >= QUIET_S:
                self._active_until = now_s + ACTIVE_S
                if now_s >= until_s:
                    return
            elif now_s >= self._active_until:
                self._look_at = now_s + LOOK_S
            else:
                break
        if until_s - now_s > SHORTEST_S:
            sleep(until_s - now_s)  # noqa: ASYNC251  # the module says why
