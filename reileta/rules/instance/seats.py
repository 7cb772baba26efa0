"""The players' seats: a seat is a lease.

A seat belongs to a session, not to a user: two sessions of one user are two players. Seats held for
admitted candidates are in `reileta/rules/instance/candidates.py`; `Instance` adds up both.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Player:
    """One session inside an instance; `user` is a `UserIDAt`, `joined_at` in ms."""

    id: str
    user: str
    session: str
    displayname: str
    joined_at: int


class Seats:
    """Occupied seats: players inside, including those in their grace period after losing their
    socket."""

    def __init__(self) -> None:
        self._players: dict[str, Player] = {}  # by player id, longest inside first
        self._sessions: dict[str, Player] = {}
        self._users: dict[str, int] = {}  # sessions inside per user, longest inside first
        self._grace: dict[str, int] = {}  # by session: when its seat is lost, ms
        self.players: Mapping[str, Player] = MappingProxyType(self._players)

    def __len__(self) -> int:
        return len(self._players)

    @property
    def users(self) -> KeysView[str]:
        """The users inside; the one who has been inside longest without a break is first."""
        return self._users.keys()

    @property
    def deadlines(self) -> Iterable[int]:
        return self._grace.values()

    def of_session(self, session: str) -> Player | None:
        return self._sessions.get(session)

    def of_user(self, user: str) -> list[Player]:
        """The players of a user, longest inside first."""
        if user not in self._users:
            return []
        return [player for player in self._players.values() if player.user == user]

    def count_of(self, user: str) -> int:
        """The number of a user's players, including those in their grace period."""
        return self._users.get(user, 0)

    def in_grace(self, session: str) -> bool:
        return session in self._grace

    def grace_left_ms(self, session: str, now: int) -> int:
        """How long the seat of a session in its grace is still kept."""
        return max(0, self._grace.get(session, now) - now)

    def occupy(self, player: Player) -> None:
        self._players[player.id] = player
        self._sessions[player.session] = player
        self._users[player.user] = self._users.get(player.user, 0) + 1

    def replace(self, player: Player) -> None:
        """Puts a player in the place of the one with the same id."""
        self._players[player.id] = player
        self._sessions[player.session] = player

    def start_grace(self, session: str, until: int) -> None:
        """A session lost its last socket; the first time counts, until it is `regained`."""
        if session in self._sessions:
            self._grace.setdefault(session, until)

    def end_grace(self, session: str) -> None:
        self._grace.pop(session, None)

    def clock_was_set(self, by_ms: int) -> None:
        """The wall clock was set: grace periods last as long as before."""
        self._grace = {session: until + by_ms for session, until in self._grace.items()}

    def vacate(self, player: Player) -> bool:
        """Frees a player's seat; returns whether its user has no other player left."""
        del self._players[player.id]
        del self._sessions[player.session]
        self._grace.pop(player.session, None)
        left = self._users[player.user] - 1
        if left:
            self._users[player.user] = left
        else:
            del self._users[player.user]
        return not left

    def overdue(self, now: int) -> list[Player]:
        """The players whose grace period is over, the earliest first."""
        due = [(until, session) for session, until in self._grace.items() if until <= now]
        due.sort(key=lambda each: each[0])
        return [self._sessions[session] for _, session in due]
