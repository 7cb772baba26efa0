"""The line of sessions that wait for a resource.

First come, first served. When the resource is free, it is offered to the first session for a
bounded time: until then nobody else can acquire it. The line gives nobody the resource: `acquire`
takes an offer, by the rules of `reileta/rules/resource/resource.py`. So an offer can't break the
rule that a session holds at most one resource, and a resource is held by at most one session.

Overflow policy: `LINE_LIMIT` sessions wait in a line, and a session waits in at most
`LINES_PER_SESSION` lines; one more is refused with QuotaReached.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from reileta.errors import NotQueued, QuotaReached
from reileta.rules.identity import Claimant

LINE_LIMIT: Final = 256
"""How many sessions may wait for one resource."""
LINES_PER_SESSION: Final = 16
"""For how many resources one session may wait."""


class LeaveReason(enum.StrEnum):
    """Why a session no longer waits."""

    ACQUIRED = "acquired"
    """It has the resource."""
    WITHDRAWN = "withdrawn"
    """It asked to leave the line."""
    EXPIRED = "expired"
    """It did not take its offer in time."""
    AWAY = "away"
    """It has been without a WebSocket for too long."""
    HOLDS = "holds"
    """It has acquired another resource."""
    REFUSED = "refused"
    """Its user may no longer acquire the resource."""
    ENDED = "ended"
    """The session ended."""
    DELETED = "deleted"
    """The resource was deleted."""
    FAILED = "failed"
    """The server failed, and has lost the line."""


@dataclass(frozen=True, slots=True)
class Place:
    """A session's place in the line: 1 is the first; `offered_until` (ms) if it has the offer."""

    position: int
    offered_until: int | None = None


@dataclass(frozen=True, slots=True)
class PlaceChanged:
    """A session has another place than it was last told."""

    session: str
    place: Place


@dataclass(frozen=True, slots=True)
class LeftLine:
    """A session no longer waits."""

    session: str
    reason: LeaveReason


@dataclass(slots=True)
class _Waiter:
    who: Claimant
    absent_since: int | None
    told: Place | None = None


class WaitingLine:
    """The sessions that wait for one resource. Times are in ms.

    Args:
        offer_ms: how long an offer is valid.
        grace_ms: how long a session without a WebSocket keeps its place.
    """

    def __init__(self, *, offer_ms: int, grace_ms: int) -> None:
        self._offer_ms = offer_ms
        self._grace_ms = grace_ms
        self._waiters: dict[str, _Waiter] = {}
        self._offered_until: int | None = None
        """The end of the offer to the first session; None: the resource is not offered."""

    def __len__(self) -> int:
        return len(self._waiters)

    def __contains__(self, session: str) -> bool:
        return session in self._waiters

    @property
    def sessions(self) -> tuple[str, ...]:
        """The sessions that wait, the first first."""
        return tuple(self._waiters)

    @property
    def first(self) -> Claimant | None:
        """The session that gets the next offer, or has it."""
        return next((waiter.who for waiter in self._waiters.values()), None)

    @property
    def offered(self) -> Claimant | None:
        """The session that has the offer."""
        return None if self._offered_until is None else self.first

    def admits(self, session: str) -> bool:
        """Whether the session may acquire the resource if it is free."""
        if not self._waiters:
            return True
        offered = self.offered
        return offered is not None and offered.session == session

    def place(self, session: str) -> Place:
        """The session's place. Raises NotQueued."""
        for number, one in enumerate(self._waiters, start=1):
            if one == session:
                return Place(number, self._offered_until if number == 1 else None)
        raise NotQueued

    # Sessions come and go ----------------------------------------------------------------------

    def join(self, who: Claimant, now: int, *, present: bool) -> None:
        """The session waits from now on; one that waits already keeps its place.

        `present`: whether it has a WebSocket. Raises QuotaReached: the line is full.
        """
        waiter = self._waiters.get(who.session)
        if waiter is not None:
            waiter.who = who
            return
        if len(self._waiters) >= LINE_LIMIT:
            raise QuotaReached.field("queue", f"has at most {LINE_LIMIT} sessions")
        self._waiters[who.session] = _Waiter(who, None if present else now)

    def leave(self, session: str, reason: LeaveReason) -> list[LeftLine]:
        """The session no longer waits; its offer ends."""
        if session not in self._waiters:
            return []
        first = self.first
        assert first is not None
        if first.session == session:
            self._offered_until = None
        del self._waiters[session]
        return [LeftLine(session, reason)]

    def dissolve(self, reason: LeaveReason) -> list[LeftLine]:
        """All sessions leave."""
        left = [LeftLine(session, reason) for session in self._waiters]
        self._waiters.clear()
        self._offered_until = None
        return left

    def ensure_allowed(self, may: Callable[[Claimant], bool]) -> list[LeftLine]:
        """Sessions whose users may no longer acquire the resource leave."""
        refused = [name for name, waiter in self._waiters.items() if not may(waiter.who)]
        return [left for name in refused for left in self.leave(name, LeaveReason.REFUSED)]

    def set_admin(self, user: str, *, admin: bool) -> bool:
        """The user may have become an admin, or may have ceased to be one; whether it waits."""
        waits = False
        for waiter in self._waiters.values():
            if waiter.who.user == user:
                waiter.who = replace(waiter.who, admin=admin)
                waits = True
        return waits

    def present(self, session: str) -> None:
        """The session has a WebSocket again."""
        waiter = self._waiters.get(session)
        if waiter is not None:
            waiter.absent_since = None
            waiter.told = None  # the new socket knows nothing

    def absent(self, session: str, now: int) -> None:
        """The session has lost its last WebSocket."""
        waiter = self._waiters.get(session)
        if waiter is not None and waiter.absent_since is None:
            waiter.absent_since = now

    # Offers ------------------------------------------------------------------------------------

    def offer(self, now: int) -> None:
        """The resource is free: it is offered to the first session, if it is not already."""
        if self._waiters and self._offered_until is None:
            self._offered_until = now + self._offer_ms

    def taken(self, session: str) -> list[LeftLine]:
        """A session has the resource: the offer ends, and that session leaves the line."""
        left = self.leave(session, LeaveReason.ACQUIRED)
        self._offered_until = None
        return left

    def tick(self, now: int) -> list[LeftLine]:
        """The time has come to `now`: an offer runs out, and sessions that are away leave."""
        left: list[LeftLine] = []
        if self._offered_until is not None and self._offered_until <= now:
            first = self.first
            assert first is not None
            left += self.leave(first.session, LeaveReason.EXPIRED)
        for session, waiter in list(self._waiters.items()):
            if waiter.absent_since is not None and waiter.absent_since + self._grace_ms <= now:
                left += self.leave(session, LeaveReason.AWAY)
        return left

    @property
    def next_deadline(self) -> int | None:
        """When `tick` has something to do next; None: never."""
        times = [
            waiter.absent_since + self._grace_ms
            for waiter in self._waiters.values()
            if waiter.absent_since is not None
        ]
        if self._offered_until is not None:
            times.append(self._offered_until)
        return min(times, default=None)

    # What the sessions are told ----------------------------------------------------------------

    def changes(self) -> list[PlaceChanged]:
        """The places that changed since the last call."""
        changed: list[PlaceChanged] = []
        for number, (session, waiter) in enumerate(self._waiters.items(), start=1):
            place = Place(number, self._offered_until if number == 1 else None)
            if place != waiter.told:
                waiter.told = place
                changed.append(PlaceChanged(session, place))
        return changed
