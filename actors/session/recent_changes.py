"""Users that were changed a moment ago, as they are now.

Who was authenticated before a change, and has its session started after it, would have the user as
it was, and whoever is told of changes is not there yet. So changed users are remembered for longer
than a start can be under way.
"""

from __future__ import annotations

from typing import Final

from reileta.clock import Clock
from reileta.records import User

REMEMBERED_MS: Final = 60_000


class RecentUserChanges:
    """Users by their ids. Bounded by what can be changed in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._users: dict[str, tuple[User, int]] = {}

    def __len__(self) -> int:
        return len(self._users)

    def add(self, user: User) -> None:
        """The user has just been changed, to this."""
        self._users.pop(user.id, None)
        self._users[user.id] = user, self._clock.now_ms() + REMEMBERED_MS

    def of(self, user: User) -> User:
        """The user as it was changed last, or as it is given, if that is newer."""
        changed = self._users.get(user.id)
        return changed[0] if changed and changed[0].updated_at >= user.updated_at else user

    def forget(self) -> None:
        """Lets go of what was changed long enough ago; the oldest stand first."""
        now = self._clock.now_ms()
        for id_, (_, until) in tuple(self._users.items()):
            if until > now:
                break
            del self._users[id_]
