"""Which sockets watch which resources, and which sessions wait for which.

A table that the resources of a node share. The manager adds an entry before it asks a resource's
actor, and the actor removes it when the watch or the wait has ended. So the manager can bound them,
and knows whom to notify when a socket or a session goes.
"""

from __future__ import annotations

from actors.delivery.sink import Sink
from reileta.errors import QuotaReached
from reileta.rules.resource.waiting_line import LINES_PER_SESSION
from reileta.rules.resource.watchers import WATCHES_PER_SESSION


class Interests:
    """The watches and waits of a node, by socket and by session."""

    def __init__(self) -> None:
        self._watches: dict[Sink, dict[int, None]] = {}
        self._sessions: dict[Sink, str] = {}
        self._counts: dict[str, int] = {}
        self._waits: dict[str, dict[int, None]] = {}

    # Watches -----------------------------------------------------------------------------------

    def add_watch(self, sink: Sink, session: str, number: int) -> bool:
        """Adds a watch of a session's socket; returns whether it is new. Raises QuotaReached."""
        watches = self._watches.get(sink, {})
        if number in watches:
            return False
        if self._counts.get(session, 0) >= WATCHES_PER_SESSION:
            raise QuotaReached.field("watches", f"at most {WATCHES_PER_SESSION} for a session")
        self._watches.setdefault(sink, watches)[number] = None
        self._sessions[sink] = session
        self._counts[session] = self._counts.get(session, 0) + 1
        return True

    def remove_watch(self, sink: Sink, number: int) -> bool:
        """Removes a watch; returns whether there was one."""
        watches = self._watches.get(sink, {})
        if number not in watches:
            return False
        del watches[number]
        session = self._sessions[sink]
        self._counts[session] -= 1
        if not self._counts[session]:
            del self._counts[session]
        if not watches:
            del self._watches[sink], self._sessions[sink]
        return True

    def watches(self, sink: Sink, number: int) -> bool:
        """Whether the socket watches the resource."""
        return number in self._watches.get(sink, ())

    def watched(self, sink: Sink) -> tuple[int, ...]:
        """The resources that the socket watches."""
        return tuple(self._watches.get(sink, ()))

    # Waits -------------------------------------------------------------------------------------

    def add_wait(self, session: str, number: int) -> bool:
        """Adds a wait; returns whether it is new. Raises QuotaReached."""
        waits = self._waits.get(session, {})
        if number in waits:
            return False
        if len(waits) >= LINES_PER_SESSION:
            raise QuotaReached.field("queues", f"at most {LINES_PER_SESSION} for a session")
        self._waits.setdefault(session, waits)[number] = None
        return True

    def remove_wait(self, session: str, number: int) -> None:
        """Removes a wait, if there is one."""
        waits = self._waits.get(session, {})
        waits.pop(number, None)
        if not waits:
            self._waits.pop(session, None)

    def awaited(self, session: str) -> tuple[int, ...]:
        """The resources for which the session waits."""
        return tuple(self._waits.get(session, ()))

    def debug_counts(self) -> dict[str, int]:
        """The sizes of all tables, for tests that look for leaks."""
        return {
            "watching sockets": len(self._watches),
            "watching sessions": len(self._counts),
            "waiting sessions": len(self._waits),
        }
