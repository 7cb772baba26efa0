"""Credentials and sessions that ended a moment ago.

Who is authenticated before the end, and attached after it, would have a socket that nobody closes:
the end is told to the sockets that are there. So what ended is remembered for longer than an attach
can be under way.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock

REMEMBERED_MS: Final = 60_000


class RevocationList:
    """Hashes of credentials, and session ids. Bounded by what can be ended in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[bytes | str, int] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, one: bytes | str) -> bool:
        return one in self._until

    def add(self, one: bytes | str) -> None:
        """It has just ended."""
        self._until.pop(one, None)
        self._until[one] = self._clock.now_ms() + REMEMBERED_MS

    def forget(self) -> None:
        """Lets go of what nobody can come with any more; the oldest stand first."""
        now = self._clock.now_ms()
        for one, until in tuple(self._until.items()):
            if until > now:
                break
            del self._until[one]
