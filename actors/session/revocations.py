"""Tokens and sessions that ended a moment ago, and users that were deleted.

Closes a race: a client may authenticate just before its token is revoked, and attach its socket
just after. Revocation only closes sockets that are attached already, so revoked ids are remembered
for 60 s and checked when a socket attaches, or when a user asks for a seat.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock

REMEMBERED_MS: Final = 60_000


class RevocationList:
    """Token hashes, and ids of sessions and users. Bounded by how many can end in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[bytes | str, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._until

    def add(self, id_: bytes | str) -> None:
        """Remembers a token, session or user that has just ended."""
        self._until.pop(id_, None)
        self._until[id_] = self._clock.steady_ms() + REMEMBERED_MS

    def forget(self) -> None:
        """Forgets old revocations; the oldest come first."""
        now = self._clock.steady_ms()
        for id_, until in tuple(self._until.items()):
            if until > now:
                break
            del self._until[id_]
