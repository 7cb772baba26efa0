"""Candidates: users who want to enter an instance, and their queue.

A candidate is a user in one of three states: `admitted` (a seat is held for it), `waiting` (in the
queue, first come, first served), or `pending` (it needs an invitation). Candidates with precedence
(owner, admins and moderators) wait before all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

State = Literal["admitted", "waiting", "pending"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate as clients see it: `position` counts from 1, times are ms."""

    user: str
    state: State
    position: int | None
    since: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate; `friends` and `admin` are needed when the access tag changes.

    Attributes:
        absent_until: when it is removed for lack of a socket, ms; None while it has one. Ignored
            while a seat is held.
        held_until: when its held seat is released, ms; None while none is held.
        precedes: whether it waits before those that do not precede.
        guest: whether it is a user of another server.
    """

    user: str
    since: int
    absent_until: int | None
    held_until: int | None = None
    friends: frozenset[str] = frozenset()
    admin: bool = False
    precedes: bool = False
    guest: bool = False

    @property
    def expires_at(self) -> int | None:
        return self.absent_until if self.held_until is None else self.held_until


class Candidates:
    """The candidates of one instance. `Instance` decides their states."""

    def __init__(self) -> None:
        self._in: Final[dict[State, dict[str, Candidate]]] = {
            "admitted": {},
            "waiting": {},
            "pending": {},
        }
        self.version = 0
        """Counts changes, so that a caller can tell whether the queue has changed since it last
        looked."""

    def __len__(self) -> int:
        return sum(map(len, self._in.values()))

    @property
    def held(self) -> int:
        """Number of seats held for admitted candidates."""
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
        """Moves a candidate to the end of a state's list; one with precedence that waits, to the
        end of those with precedence."""
        self.remove(candidate.user)
        self._in[state][candidate.user] = candidate
        self.version += 1
        if state == "waiting" and candidate.precedes:
            self._sort()

    def prefer(self, user: str, *, precedes: bool) -> bool:
        """Gives a candidate precedence, or takes it; returns whether that is a change.

        A candidate that waits is moved behind the others with precedence, or else to where it
        stands by its time among those without.
        """
        for state, some in self._in.items():
            one = some.get(user)
            if one is not None and one.precedes != precedes:
                some[user] = replace(one, precedes=precedes)
                if state == "waiting":
                    if not precedes:
                        self._place_by_time(user)
                    self._sort()
                    self.version += 1
                return True
        return False

    def _sort(self) -> None:
        """Brings those with precedence to the front; otherwise the order stays. They are few."""
        line = self._in["waiting"]
        first = {user: one for user, one in line.items() if one.precedes}
        self._in["waiting"] = first | line

    def _place_by_time(self, user: str) -> None:
        """Moves a waiting candidate before the first one without precedence that came later."""
        line = self._in["waiting"]
        moved = line.pop(user)
        placed: dict[str, Candidate] = {}
        for other, one in line.items():
            if user not in placed and not one.precedes and one.since > moved.since:
                placed[user] = moved
            placed[other] = one
        placed.setdefault(user, moved)
        self._in["waiting"] = placed

    def remove(self, user: str) -> State | None:
        """Removes a candidate; returns the state it was in, or None."""
        for state, some in self._in.items():
            if some.pop(user, None) is not None:
                self.version += 1
                return state
        return None

    def absent(self, user: str, until: int | None) -> None:
        """A candidate has no socket and is removed at `until`; None: it has a socket."""
        for some in self._in.values():
            if user in some:
                some[user] = replace(some[user], absent_until=until)

    def clock_was_set(self, by_ms: int) -> None:
        """The wall clock was set: held seats and places last as long as before."""
        for some in self._in.values():
            for user, one in some.items():
                some[user] = replace(
                    one,
                    absent_until=_moved(one.absent_until, by_ms),
                    held_until=_moved(one.held_until, by_ms),
                )

    def administers(self, user: str, *, admin: bool) -> bool:
        """Stores whether a candidate is an admin of the server; returns whether that is a
        change."""
        for some in self._in.values():
            one = some.get(user)
            if one is not None and one.admin != admin:
                some[user] = replace(one, admin=admin)
                return True
        return False

    def overdue(self, now: int) -> list[str]:
        """The users whose time is over, the earliest first."""
        due = [
            (one.expires_at, one.user)
            for one in self.all()
            if one.expires_at is not None and one.expires_at <= now
        ]
        due.sort(key=lambda each: each[0])
        return [user for _, user in due]

    def positions(self) -> dict[str, int]:
        """Each waiting user and its position, in the order of the queue."""
        return {user: place for place, user in enumerate(self._in["waiting"], 1)}

    def users(self) -> Iterator[str]:
        """All users: admitted, waiting in order, pending."""
        for some in self._in.values():
            yield from some

    def each(self) -> Iterator[tuple[State, Candidate]]:
        """All candidates with their states, in the same order."""
        for state, some in self._in.items():
            for one in some.values():
                yield state, one

    def all(self) -> Iterator[Candidate]:
        for some in self._in.values():
            yield from some.values()

    def entries(self) -> tuple[Entry, ...]:
        """The entries of all: admitted, waiting in order, pending."""
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
        """`entry_of` for many users: `positions` are the current ones."""
        for state, some in self._in.items():
            one = some.get(user)
            if one is not None:
                return _entry(one, state, positions.get(user))
        return None

    def _place(self, user: str) -> int:
        line = self._in["waiting"]
        if next(reversed(line)) == user:  # the newest
            return len(line)
        return 1 + next(place for place, other in enumerate(line) if other == user)


def _moved(time: int | None, by_ms: int) -> int | None:
    return None if time is None else time + by_ms


def _entry(one: Candidate, state: State, position: int | None) -> Entry:
    return Entry(one.user, state, position, one.since, one.expires_at)
