"""Users that changed a moment ago.

Closes a race: a request may authenticate just before its user changes, and start its session just
after. A change only reaches sessions that run already, so changed users are remembered for 60 s and
looked up when a session starts.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock
from reileta.records import User

REMEMBERED_MS: Final = 60_000


class RecentUserChanges:
    """Changed users by id. Bounded by how many users can change in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._users: dict[str, tuple[User, int]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def add(self, user: User) -> None:
        """Remembers a user that has just changed."""
        self._users.pop(user.id, None)
        self._users[user.id] = user, self._clock.steady_ms() + REMEMBERED_MS

    def of(self, user: User) -> User:
        """The newer of this user and the remembered one."""
        changed = self._users.get(user.id)
        return changed[0] if changed and changed[0].updated_at >= user.updated_at else user

    def forget(self) -> None:
        """Forgets old changes; the oldest come first."""
        now = self._clock.steady_ms()
        for id_, (_, until) in tuple(self._users.items()):
            if until > now:
                break
            del self._users[id_]
