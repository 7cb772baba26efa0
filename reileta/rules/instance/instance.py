"""The rules of one live instance: who is inside, who comes next, who may do what (PROTOCOL §§6, 7).

`Instance` is pure. It is told what happens, with the time, changes itself, and returns what
happened (`reileta/rules/instance/events.py`) for its caller to carry out; the same calls with the
same times and player ids give the same state and the same happenings. A call that raises has
changed nothing.

Time passes in `tick` alone: the caller calls `tick(now)` whenever `next_deadline() <= now`, before
anything else. A lease that ran out is still good until then, so being late is never unjust: whoever
comes back after its grace, but before anyone was told that it left, has its seat.

All users are `UserIDAt`s, also in the bans that come in and go out.
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
"""Players that one message may be addressed to."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Where a message goes: to everyone else inside (None) or to those players; or nowhere."""

    to: tuple[str, ...] | None
    dropped: bool


TO_ALL: Final = Spoken(None, False)
DROPPED: Final = Spoken((), True)


class Instance(InstanceState):
    """One instance; the module's text says how it is to be used, and `InstanceState` how it is
    made.
    """

    def join(self, who: Visitor, now: int) -> tuple[Player, list[Happening]]:
        """A session comes inside, or comes back to the player that it has there.

        A seat that is held for the user is taken by the first of its sessions. Nobody joins past
        those who wait, since a seat that comes free is held for the first of them at once.

        Raises:
            InstanceNotFound: it is closed.
            Banned: the user is, and is neither the owner nor an admin.
            NotAllowed: its access does not let the user in.
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
        """Puts a player back that was inside before a crash, in the order of joining. Nothing
        happens by it: to those inside, it never left. A seat must be free.
        """
        assert self.free > 0, "restored past the capacity"
        self.sit(who, player, now)
        self._told_master = self.roles.master
        self.settle(now, [])

    def lost(self, session: str, now: int) -> list[Happening]:
        """The last socket of a session went: its player has its grace to come back.

        A session that is not inside is no error, nor is being told twice: the first loss counts.
        """
        if self.limits.grace_ms <= 0:
            return self.leave(session, now, "disconnected")
        self.seats.lose(session, now + self.limits.grace_ms)
        self.reschedule()
        return []

    def leave(self, session: str, now: int, reason: Departure = "left") -> list[Happening]:
        """A session goes, and its seat is free; one that is not inside is no error."""
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
        """One message of a player: who gets it (PROTOCOL §7, "Data fan-out").

        With `key` and without `to` it is retained. Those in `to` who are not inside are passed
        over, for they may have left a moment ago.

        Raises:
            NotInInstance: the player is not inside.
            NotAllowed: its user is muted.
            MessageInvalid: `key` or `to` is out of bounds, or too much would be retained.
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
        """Does everything whose time has come: graces, held seats, places of those gone, bans and
        mutes, and the end of an instance that stood empty."""
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
        """`candidacy.ask`: a user asks to come in; `online` says whether it has a socket."""
        return queueing.request_entry(self, who, now, online=online)

    def withdraw(self, user: str, now: int) -> list[Happening]:
        """`candidacy.withdraw`: a user takes its entry back."""
        return queueing.withdraw_entry(self, user, now)

    def admit(
        self, by: Visitor, user: str, now: int, *, online: bool = False
    ) -> tuple[Entry, list[Happening]]:
        """`candidacy.admit`: someone invites a user, or admits one that is pending."""
        return queueing.admit_candidate(self, by, user, now, online=online)

    def refuse(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """`candidacy.refuse`: someone takes another's entry and invitation back."""
        return queueing.reject_candidate(self, by, user, now)

    def resume(
        self,
        before: Candidates,
        invited: Mapping[str, Literal["by-leader", "by-member"]],
        now: int,
    ) -> list[Happening]:
        """`candidacy.resume`: the candidates of before a crash are there again."""
        return queueing.resume(self, before, invited, now)

    def present(self, user: str) -> None:
        """A user has a socket (again): what it waits for, it keeps. Call it for any user."""
        self.candidates.absent(user, None)
        self.reschedule()

    def absent(self, user: str, now: int) -> None:
        """A user's last socket went: its place in line outlives that by `queue_grace_ms`."""
        self.candidates.absent(user, now + self.limits.queue_grace_ms)
        self.reschedule()

    # Roles, moderation, the instance itself: see reileta/rules/instance/administration.py

    def hand_over(self, by: Visitor, to: str, now: int) -> list[Happening]:
        """`governance.hand_over`: the owner makes someone inside the master."""
        return administration.transfer_master(self, by, to, now)

    def name_moderator(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """`governance.name_moderator`: the owner names a moderator, inside or not."""
        return administration.add_moderator(self, by, user, now)

    def dismiss_moderator(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """`governance.dismiss_moderator`: the owner takes that back."""
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
        """`governance.moderate`: kick, ban, unban, mute, unmute or warn a user or a player."""
        return administration.moderate(self, by, target, type_, reason, until, now, admin=admin)

    def ensure_governs(self, by: Visitor) -> None:
        """`governance.ensure_governs`: only the owner and admins may change and close it."""
        administration.ensure_governs(self, by)

    def plan(self, by: Visitor, changes: InstanceChanges) -> Record:
        """`governance.plan`: what `update` would make of the record."""
        return administration.plan(self, by, changes)

    def update(
        self, by: Visitor, changes: InstanceChanges, now: int
    ) -> tuple[Record, list[Happening]]:
        """`governance.update`: the owner or an admin changes the record."""
        return administration.update(self, by, changes, now)

    def inherit(self, owner: str, owner_at: str, now: int) -> tuple[Record, list[Happening]]:
        """`governance.inherit`: the owner's account was deleted, and another owns it."""
        return administration.reassign_owner(self, owner, owner_at, now)

    def administers(self, user: str, admin: bool, now: int) -> list[Happening]:
        """`governance.administers`: whether a user is an admin of the server, from now on."""
        return administration.administers(self, user, admin, now)

    def close(self, by: Visitor | None, now: int) -> list[Happening]:
        """`governance.close`: the owner, an admin or the server (None) ends it."""
        return administration.close(self, by)
