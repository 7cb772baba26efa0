"""What an actor writes into the database: one write at a time, in the order of its decisions.

Two writes at once would go over two connections, and the older one might come last. Overflow
policy: a write that somebody asked for is refused (`ensure_room`) once `LIMIT` wait; what the actor
notes for itself is one write at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import outcome

from reileta.errors import Overloaded

Work: TypeAlias = Callable[[], Awaitable[object]]
Then: TypeAlias = Callable[[outcome.Outcome[object]], None]

LIMIT: Final = 64


class SerialJobs:
    """Writes that wait. `begin` has one done beside the actor, who then calls `written`."""

    def __init__(self, begin: Callable[[Work], None]) -> None:
        self._begin = begin
        self._waiting: deque[tuple[Work, Then]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def ensure_room(self) -> None:
        """Raises:
        Overloaded: too much waits to be written already.
        """
        if len(self._waiting) >= LIMIT:
            raise Overloaded

    def write(self, work: Work, then: Then) -> None:
        """Does the work after all that was to be written before; `then` gets its outcome."""
        self._waiting.append((work, then))
        if len(self._waiting) == 1:
            self._begin(work)

    def written(self, result: outcome.Outcome[object]) -> None:
        """The write that was begun has this outcome."""
        _, then = self._waiting.popleft()
        if self._waiting:
            self._begin(self._waiting[0][0])
        then(result)
