"""The rules of one live instance: players, queue, moderation.

`Instance` is pure. Its methods take an event with the time, change the state, and return events
(`reileta/rules/instance/events.py`) for the caller to carry out. The same calls with the same times
and player ids give the same state and the same events. A call that raises has changed nothing.

Expiry takes effect only in `tick`: the caller calls `tick(now)` whenever `next_deadline() <= now`,
before anything else. A player that returns after its grace period but before the next `tick` keeps
its seat: nobody had been told that it left.

All users are `UserIDAt`s, also in bans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from reileta.errors import InstanceFull, MessageInvalid, NotAllowed, NotInInstance
from reileta.records import Instance as Record
from reileta.records import InstanceChanges
from reileta.rules.identity import Visitor
from reileta.rules.instance import administration, queueing
from reileta.rules.instance.candidates import Candidates, Entry
from reileta.rules.instance.events import Departure, Happening, Joined, Unbanned, Unmuted
from reileta.rules.instance.retained import KEY_LIMIT
from reileta.rules.instance.seats import Player
from reileta.rules.instance.state import InstanceLimits, InstanceState

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


class Instance(InstanceState):
    """One live instance. The module's docstring explains its use, and `InstanceState` its
    constructor."""

    def join(self, who: Visitor, now: int) -> tuple[Player, list[Happening]]:
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
            self.seats.regain(who.session)
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
        out: list[Happening] = []
        self.drop_candidate(who.user, "joined", out)
        player = Player(self.new_player_id(), who.user, who.session, who.displayname, now)
        self.sit(who, player, now)
        out.append(Joined(player, self.roles.of(player.user)))
        return player, self.settle(now, out)

    def restore(self, who: Visitor, player: Player, now: int) -> None:
        """Restores a player that was inside before a crash; call it in the order of joining.

        There are no events: for the others, it never left. A seat must be free.
        """
        assert self.free > 0, "restored past the capacity"
        self.sit(who, player, now)
        self._told_master = self.roles.master
        self.settle(now, [])

    def lost(self, session: str, now: int) -> list[Happening]:
        """A session lost its last socket: its player keeps the seat for the grace period.

        A session that is not inside is not an error. If called twice, the first time counts.
        """
        if self.limits.grace_ms <= 0:
            return self.leave(session, now, "disconnected")
        self.seats.lose(session, now + self.limits.grace_ms)
        self.reschedule()
        return []

    def leave(self, session: str, now: int, reason: Departure = "left") -> list[Happening]:
        """A session leaves, and its seat is free; a session that is not inside is not an error."""
        player = self.seats.of_session(session)
        if player is None:
            return []
        out: list[Happening] = []
        self.stand(player, reason, None, out)
        return self.settle(now, out)

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

    def tick(self, now: int) -> list[Happening]:
        """Handles everything that has expired: grace periods, held seats, absent candidates, bans,
        mutes, and the instance itself if it has been empty for too long."""
        if self.closed:
            return []
        out: list[Happening] = []
        for player in self.seats.overdue(now):
            self.stand(player, "disconnected", None, out)
        for user in self.candidates.overdue(now):
            self.drop_candidate(user, "expired", out)
        unbanned, unmuted = self.moderation.lapse(now)
        out.extend(Unbanned(user, None) for user in unbanned)
        for user in unmuted:
            self.audible.update(one.id for one in self.seats.of_user(user))
            out.append(Unmuted(user, None))
        self.settle(now, out)
        return out + self.end("empty") if self.ended(now) else out

    # Candidates: see reileta/rules/instance/queueing.py

    def candidate(
        self, who: Visitor, now: int, *, online: bool = True
    ) -> tuple[Entry, list[Happening]]:
        """`queueing.request_entry`: a user asks to enter; `online`: it has a socket."""
        return queueing.request_entry(self, who, now, online=online)

    def withdraw(self, user: str, now: int) -> list[Happening]:
        """`queueing.withdraw_entry`: a user withdraws its request."""
        return queueing.withdraw_entry(self, user, now)

    def admit(
        self, by: Visitor, user: str, now: int, *, online: bool = False
    ) -> tuple[Entry, list[Happening]]:
        """`queueing.admit_candidate`: a user invites another, or admits a pending candidate."""
        return queueing.admit_candidate(self, by, user, now, online=online)

    def refuse(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """`queueing.reject_candidate`: a user removes another's entry and invitation."""
        return queueing.reject_candidate(self, by, user, now)

    def resume(
        self,
        before: Candidates,
        invited: Mapping[str, Literal["by-leader", "by-member"]],
        now: int,
    ) -> list[Happening]:
        """`queueing.resume`: restores the candidates from before a crash."""
        return queueing.resume(self, before, invited, now)

    def present(self, user: str) -> None:
        """A user has a socket again, so a candidate keeps its place. Can be called for any user."""
        self.candidates.absent(user, None)
        self.reschedule()

    def absent(self, user: str, now: int) -> None:
        """A user has no socket any more: its place in the queue is kept for `queue_grace_ms`."""
        self.candidates.absent(user, now + self.limits.queue_grace_ms)
        self.reschedule()

    # Roles, moderation, the instance itself: see reileta/rules/instance/administration.py

    def hand_over(self, by: Visitor, to: str, now: int) -> list[Happening]:
        """`administration.transfer_master`: the owner makes someone inside the master."""
        return administration.transfer_master(self, by, to, now)

    def name_moderator(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """`administration.add_moderator`: the owner appoints a moderator, inside or not."""
        return administration.add_moderator(self, by, user, now)

    def dismiss_moderator(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """`administration.remove_moderator`: the owner removes a moderator."""
        return administration.remove_moderator(self, by, user, now)

    def moderate(
        self,
        by: Visitor,
        target: str,
        type_: str,
        reason: str | None,
        until: int | None,
        now: int,
        *,
        admin: bool = False,
    ) -> list[Happening]:
        """`administration.moderate`: kick, ban, unban, mute, unmute or warn a user or a player."""
        return administration.moderate(self, by, target, type_, reason, until, now, admin=admin)

    def ensure_governs(self, by: Visitor) -> None:
        """`administration.ensure_governs`: only the owner and admins may change and close it."""
        administration.ensure_governs(self, by)

    def plan(self, by: Visitor, changes: InstanceChanges) -> Record:
        """`administration.plan`: the record as `update` would make it."""
        return administration.plan(self, by, changes)

    def update(
        self, by: Visitor, changes: InstanceChanges, now: int
    ) -> tuple[Record, list[Happening]]:
        """`administration.update`: the owner or an admin changes the record."""
        return administration.update(self, by, changes, now)

    def inherit(self, owner: str, owner_at: str, now: int) -> tuple[Record, list[Happening]]:
        """`administration.reassign_owner`: the owner's account was deleted."""
        return administration.reassign_owner(self, owner, owner_at, now)

    def administers(self, user: str, admin: bool, now: int) -> list[Happening]:
        """`administration.administers`: whether a user is an admin of the server, from now on."""
        return administration.administers(self, user, admin, now)

    def close(self, by: Visitor | None, now: int) -> list[Happening]:
        """`administration.close`: the owner, an admin or the server (None) closes it."""
        return administration.close(self, by)
