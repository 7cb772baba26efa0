"""Those who want to come in: candidates and their queue (PROTOCOL §6, "Candidates and queue").

A candidate is a user, and is in one of three places: `admitted` (a seat is held for it), `waiting`
(in line, first come, first served), or `pending` (it needs an invitation).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

State = Literal["admitted", "waiting", "pending"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate as others see it (PROTOCOL §6): `position` counts from 1, times are ms."""

    user: str
    state: State
    position: int | None
    since: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is kept of a candidate; `friends` and `admin` serve when the access tag changes.

    Attributes:
        absent_until: when it is forgotten for want of a socket, ms; None while it has one. Without
            force while a seat is held.
        held_until: when its held seat is given up, ms; None while none is held.
    """

    user: str
    since: int
    absent_until: int | None
    held_until: int | None = None
    friends: frozenset[str] = frozenset()
    admin: bool = False

    @property
    def expires_at(self) -> int | None:
        return self.absent_until if self.held_until is None else self.held_until


class Candidates:
    """The candidates of one instance. Who may be put where is `Instance`'s to decide."""

    def __init__(self) -> None:
        self._in: Final[dict[State, dict[str, Candidate]]] = {
            "admitted": {},
            "waiting": {},
            "pending": {},
        }
        self.version = 0
        """Counts the changes, so that a caller can tell whether the queue is as it last said."""

    def __len__(self) -> int:
        return sum(map(len, self._in.values()))

    @property
    def held(self) -> int:
        """The seats held for admitted candidates."""
        return len(self._in["admitted"])

    def state_of(self, user: str) -> State | None:
        return next((state for state, some in self._in.items() if user in some), None)

    def get(self, user: str) -> Candidate | None:
        return next((some[user] for some in self._in.values() if user in some), None)

    @property
    def waiting(self) -> int:
        return len(self._in["waiting"])

    def first_waiting(self) -> Candidate | None:
        return next(iter(self._in["waiting"].values()), None)

    def put(self, state: State, candidate: Candidate) -> None:
        """Puts a candidate at the end of a state's line, out of any other."""
        self.remove(candidate.user)
        self._in[state][candidate.user] = candidate
        self.version += 1

    def remove(self, user: str) -> State | None:
        """Takes a candidate out; the state it was in, or None."""
        for state, some in self._in.items():
            if some.pop(user, None) is not None:
                self.version += 1
                return state
        return None

    def absent(self, user: str, until: int | None) -> None:
        """Notes that a candidate has no socket, and is forgotten then; or (None) that it has."""
        for some in self._in.values():
            if user in some:
                some[user] = replace(some[user], absent_until=until)

    def administers(self, user: str, *, admin: bool) -> bool:
        """Notes what the server says now of a candidate; whether that is news."""
        for some in self._in.values():
            one = some.get(user)
            if one is not None and one.admin != admin:
                some[user] = replace(one, admin=admin)
                return True
        return False

    def overdue(self, now: int) -> list[str]:
        """The users whose time has come, the earliest first."""
        due = [
            (one.expires_at, one.user)
            for one in self.all()
            if one.expires_at is not None and one.expires_at <= now
        ]
        due.sort(key=lambda each: each[0])
        return [user for _, user in due]

    def positions(self) -> dict[str, int]:
        """Everyone in line with its position, in the order of the line."""
        return {user: place for place, user in enumerate(self._in["waiting"], 1)}

    def users(self) -> Iterator[str]:
        """All users: the admitted, the line in its order, the pending."""
        for some in self._in.values():
            yield from some

    def each(self) -> Iterator[tuple[State, Candidate]]:
        """All with their states, in the same order."""
        for state, some in self._in.items():
            for one in some.values():
                yield state, one

    def all(self) -> Iterator[Candidate]:
        for some in self._in.values():
            yield from some.values()

    def entries(self) -> tuple[Entry, ...]:
        """All: the admitted, the line in its order, then those who need an invitation."""
        return tuple(
            _entry(one, state, place if state == "waiting" else None)
            for state, some in self._in.items()
            for place, one in enumerate(some.values(), 1)
        )

    def entry_of(self, user: str) -> Entry | None:
        for state, some in self._in.items():
            one = some.get(user)
            if one is not None:
                return _entry(one, state, self._place(user) if state == "waiting" else None)
        return None

    def entry(self, user: str, positions: Mapping[str, int]) -> Entry | None:
        """`entry_of` for many users: `positions` are those of now."""
        for state, some in self._in.items():
            one = some.get(user)
            if one is not None:
                return _entry(one, state, positions.get(user))
        return None

    def _place(self, user: str) -> int:
        line = self._in["waiting"]
        if next(reversed(line)) == user:  # who has just come
            return len(line)
        return 1 + next(place for place, other in enumerate(line) if other == user)


def _entry(one: Candidate, state: State, position: int | None) -> Entry:
    return Entry(one.user, state, position, one.since, one.expires_at)
