"""The rules of one live instance: players, queue, moderation.

`Instance` is pure. Its methods take an event with the time, change the state, and return events
(`reileta/rules/instance/events.py`) for the caller to carry out. The same calls with the same times
and player ids give the same state and the same events. A call that raises has changed nothing.

Expiry takes effect only in `tick`: the caller calls `tick(now)` whenever `next_deadline() <= now`,
before anything else. A player that returns after its grace period but before the next `tick` keeps
its seat: nobody was notified that it left.

All users are `UserIDAt`s, also in bans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reileta.errors import InstanceFull, MessageInvalid, NotAllowed, NotInInstance
from reileta.rules.identity import Visitor
from reileta.rules.instance.administration import Administration
from reileta.rules.instance.events import InstanceEvent, Joined, LeaveReason, Unbanned, Unmuted
from reileta.rules.instance.retained import KEY_LIMIT
from reileta.rules.instance.seats import Player
from reileta.rules.instance.state import InstanceLimits

__all__ = [
    "DROPPED",
    "TO_ALL",
    "TO_LIMIT",
    "Instance",
    "InstanceLimits",
    "Player",
    "Spoken",
    "Visitor",
]

TO_LIMIT: Final = 64
"""Players that one message can be addressed to."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The receivers of a message: everyone else inside (None), these players, or nobody
    (`dropped`)."""

    to: tuple[str, ...] | None
    dropped: bool


TO_ALL: Final = Spoken(None, False)
DROPPED: Final = Spoken((), True)


class Instance(Administration):
    """One live instance.

    The module's docstring explains its use, and `InstanceState` its constructor. Four classes have
    the rules: `InstanceState` the state and shared steps, `Queueing` the queue, `Administration`
    roles and moderation, and this class players, their messages, and time.
    """

    def join(self, who: Visitor, now: int) -> tuple[Player, list[InstanceEvent]]:
        """A session joins, or comes back to the player that it already has inside.

        The first session of a user takes the seat that is held for it. Nobody passes waiting
        candidates, since a seat that becomes free is held for the first of them at once.

        Raises:
            InstanceNotFound: the instance is closed.
            Banned: the user is banned, and neither the owner nor an admin.
            NotAllowed: the access does not let the user in.
            QuotaReached: the user has as many seats here as one user may have.
            InstanceFull: no seat is free.
        """
        self.ensure_open()
        present = self.seats.of_session(who.session)
        if present is not None:
            self.seats.end_grace(who.session)
            self.reschedule()
            return present, []
        held = self.candidates.state_of(who.user) == "admitted"
        self.ensure_not_banned(who, now)
        if not held:
            if not self.may_enter(who.user, who.friends, who.administers):
                raise NotAllowed
            self.ensure_seat_of_user(who.user)
            if self.free <= 0:
                raise InstanceFull
        out: list[InstanceEvent] = []
        self.drop_candidate(who.user, "joined", out)
        player = Player(self.new_player_id(), who.user, who.session, who.displayname, now)
        self.occupy(who, player, now)
        out.append(Joined(player, self.roles.of(player.user)))
        return player, self.apply_consequences(now, out)

    def restore(self, who: Visitor, player: Player, now: int) -> None:
        """Restores a player that was inside before a crash; call it in the order of joining.

        There are no events: for the others, it never left. A seat must be free.
        """
        assert self.free > 0, "restored past the capacity"
        self.occupy(who, player, now)
        self._told_master = self.roles.master
        self.apply_consequences(now, [])

    def disconnect(self, session: str, now: int) -> list[InstanceEvent]:
        """A session lost its last socket: its player keeps the seat for the grace period.

        A session that is not inside is not an error. If called twice, the first time counts.
        """
        if self.limits.grace_ms <= 0:
            return self.leave(session, now, "disconnected")
        self.seats.start_grace(session, now + self.limits.grace_ms)
        self.reschedule()
        return []

    def leave(self, session: str, now: int, reason: LeaveReason = "left") -> list[InstanceEvent]:
        """A session leaves, and its seat is free; a session that is not inside is not an error."""
        player = self.seats.of_session(session)
        if player is None:
            return []
        out: list[InstanceEvent] = []
        self.vacate(player, reason, None, out)
        return self.apply_consequences(now, out)

    def speak(
        self,
        player_id: str,
        key: str | None,
        at: float | None,
        to: tuple[str, ...] | None,
        data: bytes,
        now: int,
    ) -> Spoken:
        """The receivers of a player's message (docs/protocol.md#data-inside-an-instance).

        With `key` and without `to` the message is retained. Receivers in `to` who are not inside
        are ignored, since they may have left a moment ago.

        Raises:
            NotInInstance: the player is not inside.
            NotAllowed: its user is muted.
            MessageInvalid: `key` or `to` is out of range, or too much data would be retained.
        """
        if key is None and to is None and player_id in self.audible:  # nearly every message
            return TO_ALL
        player = self.seats.players.get(player_id)
        if player is None:
            raise NotInInstance
        if player_id not in self.audible and self.moderation.muted(player.user, now):
            raise NotAllowed.field("player", "is muted")
        if key is not None and not 1 <= len(key) <= KEY_LIMIT:
            raise MessageInvalid.field("key", f"must be 1 to {KEY_LIMIT} characters")
        if to is not None and len(to) > TO_LIMIT:
            raise MessageInvalid.field("to", f"must be at most {TO_LIMIT} players")
        if key is not None:
            if self.values.rolls_back(player_id, key, at):
                return DROPPED
            if to is None:
                self.values.keep(player_id, key, at, data)
        if to is None:
            return TO_ALL
        inside = self.seats.players
        return Spoken(tuple(one for one in dict.fromkeys(to) if one in inside), False)

    def tick(self, now: int) -> list[InstanceEvent]:
        """Handles everything that has expired: grace periods, held seats, absent candidates, bans,
        mutes, and the instance itself if it has been empty for too long."""
        if self.closed:
            return []
        out: list[InstanceEvent] = []
        for player in self.seats.overdue(now):
            self.vacate(player, "disconnected", None, out)
        for user in self.candidates.overdue(now):
            self.drop_candidate(user, "expired", out)
        unbanned, unmuted = self.moderation.expire(now)
        out.extend(Unbanned(user, None) for user in unbanned)
        for user in unmuted:
            self.audible.update(one.id for one in self.seats.of_user(user))
            out.append(Unmuted(user, None))
        self.apply_consequences(now, out)
        return out + self.end("empty") if self.ended(now) else out

    def present(self, user: str) -> None:
        """A user has a socket again, so a candidate keeps its place. Can be called for any user."""
        self.candidates.absent(user, None)
        self.reschedule()

    def absent(self, user: str, now: int) -> None:
        """A user has no socket any more: its place in the queue is kept for `queue_grace_ms`."""
        self.candidates.absent(user, now + self.limits.queue_grace_ms)
        self.reschedule()
