"""The state of an instance, and the steps that its rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from reileta.errors import GuestNotAllowed, InstanceNotFound
from reileta.records import Ban, InstanceRecord
from reileta.rules import tags, visibility
from reileta.rules.identity import Visitor
from reileta.rules.instance import access
from reileta.rules.instance.access import AccessTag
from reileta.rules.instance.candidates import Candidate, Candidates, Entry
from reileta.rules.instance.events import (
    CandidateChanged,
    CandidateReason,
    Closed,
    InstanceEvent,
    LeaveReason,
    Left,
    MasterChanged,
    QueueChanged,
)
from reileta.rules.instance.retained import Retained, RetainedValues
from reileta.rules.instance.roles import Role, Roles
from reileta.rules.instance.sanctions import Mute, Sanctions
from reileta.rules.instance.seats import Player, Seats
from reileta.rules.visibility import Audience
from reileta.settings import Settings


@dataclass(frozen=True, slots=True)
class InstanceLimits:
    """Times and limits of an instance: ms, bytes and counts.

    Attributes:
        grace_ms: how long a player keeps its seat without a socket; 0: not at all.
        closed_grace_ms: the same, after the client closed its last socket itself, and a seat is
            free; 0: also if none is.
        hold_ms: how long a seat is held for an admitted candidate.
        queue_grace_ms: how long a waiting candidate is kept without a socket.
        empty_ms: how long an instance that is not permanent can be empty.
        unused_ms: how long after its making one stays that no player has entered.
        retained_keys: retained values per player.
        retained_bytes: size of one player's retained values with their keys.
        retained_total_bytes: the same for all players together.
        candidates: entries of all three states together.
        invitations: users invited during the instance's life.
        moderators, bans, mutes: the largest number of each.
        seats_per_user: seats of one user's sessions, including held ones; 0: any number.
    """

    grace_ms: int = 10_000
    hold_ms: int = 30_000
    queue_grace_ms: int = 60_000
    empty_ms: int = 60_000
    unused_ms: int = 600_000
    retained_keys: int = 64
    retained_bytes: int = 64 * 1024
    retained_total_bytes: int = 8 * 1024 * 1024
    candidates: int = 4096
    invitations: int = 4096
    moderators: int = 64
    bans: int = 4096
    mutes: int = 4096
    seats_per_user: int = 0
    closed_grace_ms: int = 1500

    @classmethod
    def from_settings(cls, settings: Settings) -> InstanceLimits:
        """The limits that the server's settings name; the others are the defaults."""
        return cls(
            grace_ms=int(settings.seat_grace_s * 1000),
            closed_grace_ms=int(settings.closed_seat_grace_s * 1000),
            hold_ms=int(settings.hold_s * 1000),
            queue_grace_ms=int(settings.queue_grace_s * 1000),
            empty_ms=int(settings.empty_instance_s * 1000),
            unused_ms=int(settings.unused_instance_s * 1000),
            retained_keys=settings.retained_keys_per_player,
            retained_bytes=settings.retained_bytes_per_player,
            candidates=settings.candidates_per_instance,
            seats_per_user=settings.seats_per_user if settings.rate_limits == "on" else 0,
        )


class InstanceState:
    """The state of one instance, queries on it, and the steps that all rules share.

    `Admission`, `Administration` and `Instance` add the rules. A rule first checks everything and
    raises, then changes the state, and ends with `apply_consequences`.

    Args:
        record: the stored record.
        owner: the owner as a `UserIDAt`.
        bans, mutes, moderators: the stored ones, with `UserIDAt`s.
        now: ms; the instance is empty from here on.
        new_player_id: makes a `p_…` for each player.
    """

    def __init__(
        self,
        record: InstanceRecord,
        *,
        owner: str,
        bans: Iterable[Ban],
        limits: InstanceLimits,
        now: int,
        new_player_id: Callable[[], str],
        moderators: Iterable[str] = (),
        mutes: Iterable[Mute] = (),
    ) -> None:
        self.record = record
        self.limits: Final = limits
        self.closed = False
        self.empty_since: int | None = now
        """Since when nobody is inside and no seat is held, ms; None while a seat is occupied or
        held."""
        self._made_at = min(record.created_at, now)
        self.entered = record.entered
        """Whether a player has ever been inside."""
        self.new_player_id = new_player_id
        self.seats = Seats()
        self.roles = Roles(owner, moderators)
        self.candidates = Candidates()
        self.invited: dict[str, Literal["by-leader", "by-member"]] = {}
        self.moderation = Sanctions(bans, mutes, bans_limit=limits.bans, mutes_limit=limits.mutes)
        self.values = RetainedValues(
            keys_limit=limits.retained_keys,
            bytes_limit=limits.retained_bytes,
            total_limit=limits.retained_total_bytes,
        )
        self.audible: set[str] = set()  # players inside that are not muted
        self._announced_master: str | None = None
        self._announced_queue = 0  # version of the candidates at the last QueueChanged
        self._due: int | None = None
        self._due_known = False

    @property
    def owner(self) -> str:
        return self.roles.owner

    @property
    def master(self) -> str | None:
        """The user who is the master; None when nobody is inside."""
        return self.roles.master

    @property
    def access(self) -> AccessTag:
        return access.access_of(self.record.tags)

    @property
    def permanent(self) -> bool:
        return tags.PERMANENT in self.record.tags

    @property
    def no_guests(self) -> bool:
        """Whether users of other servers can't enter."""
        return tags.NO_GUESTS in self.record.tags

    @property
    def players(self) -> Mapping[str, Player]:
        """All players inside by id, including those in their grace period; longest inside first."""
        return self.seats.players

    @property
    def connected(self) -> int:
        return len(self.seats)

    @property
    def queued(self) -> int:
        """The number of waiting candidates."""
        return self.candidates.waiting

    @property
    def taken(self) -> int:
        """Occupied seats: of players, and held for admitted candidates."""
        return len(self.seats) + self.candidates.held

    @property
    def free(self) -> int:
        return self.record.capacity - self.taken

    @property
    def mutes(self) -> Mapping[str, Mute]:
        """Mutes by user; expired ones stay until the next `tick`."""
        return self.moderation.mutes

    @property
    def bans(self) -> Mapping[str, Ban]:
        """Bans by user; expired ones stay until the next `tick`."""
        return self.moderation.bans

    def players_of(self, user: str) -> list[Player]:
        return self.seats.of_user(user)

    def in_grace(self, session: str) -> bool:
        """Whether that session's player is inside without a socket."""
        return self.seats.in_grace(session)

    def role_of(self, user: str) -> Role:
        """The role of a user; `normal` for a user who is not inside and has no other role."""
        return self.roles.of(user)

    def lost_players(self, user: str, silent: frozenset[str]) -> list[Player]:
        """The players of a user that give way to its new session: those in their grace period, and
        those of the sessions in `silent`."""
        players = self.seats.of_user(user)
        return [one for one in players if one.session in silent or self.seats.in_grace(one.session)]

    def muted(self, user: str, now: int) -> bool:
        return self.moderation.muted(user, now)

    def retained(self) -> Iterable[Retained]:
        """The retained values of the players inside, for a player who joins."""
        return self.values

    def entries(self) -> tuple[Entry, ...]:
        """The entries of all candidates: admitted, waiting in order, pending."""
        return self.candidates.entries()

    def entry_of(self, user: str) -> Entry | None:
        return self.candidates.entry_of(user)

    def precedes(self, user: str, *, admin: bool) -> bool:
        """Whether a user goes first in the queue: the owner, admins and moderators."""
        return admin or user == self.owner or user in self.roles.moderators

    def oversees(self, who: Visitor) -> bool:
        """Whether a visitor may see the whole queue: owner, admins, master, moderators."""
        return self.roles.of_visitor(who) != "normal"

    def overseers(self) -> list[Player]:
        """The players inside whose users are overseers."""
        return [one for one in self.players.values() if self.roles.of(one.user) != "normal"]

    def may_invite(self, user: str, *, admin: bool = False) -> bool:
        """Whether a user may invite, and admit pending candidates."""
        return access.may_invite(
            self.access,
            user=user,
            admin=admin,
            owner=self.owner,
            master=self.master,
            inside=self.seats.users,
        )

    @property
    def audience(self) -> Audience:
        """The users who may see the instance; changes with the state."""
        return visibility.of_instance(
            self.access,
            owner=self.owner,
            moderators=self.roles.moderators,
            inside=self.seats.users,
        )

    @property
    def news_audience(self) -> Audience:
        """The users who find it in lists and get its events."""
        return visibility.instance_news(self.access, owner=self.owner, inside=self.seats.users)

    @property
    def oversight(self) -> Audience:
        """The users who see its whole queue and moderation."""
        return visibility.instance_oversight(
            owner=self.owner, master=self.master, moderators=self.roles.moderators
        )

    def ensure_visible(self, who: Visitor | None) -> None:
        """Must be called before any other check. `who` None: nobody is logged in.

        Raises:
            InstanceNotFound: the visitor may not see the instance.
        """
        user, admin = (None, False) if who is None else (who.user, who.administers)
        if not self.audience.admits(user, admin=admin):
            raise InstanceNotFound

    def ended(self, now: int) -> bool:
        """Whether the instance is over: closed, or not permanent and empty for too long."""
        until = self._empty_until()
        return self.closed or (until is not None and until <= now)

    def next_deadline(self) -> int | None:
        """When `tick` must be called next, ms; None: not before something else happens."""
        if not self._due_known:
            self._due = self._next_due()
            self._due_known = True
        return self._due

    def _empty_until(self) -> int | None:
        if self.empty_since is None or self.permanent:
            return None
        until = self.empty_since + self.limits.empty_ms
        if self.entered:
            return until
        return max(until, self._made_at + self.limits.unused_ms)

    def _next_due(self) -> int | None:
        if self.closed:
            return None
        dues = [*self.seats.deadlines, *self.moderation.deadlines]
        dues.extend(one.expires_at for one in self.candidates.all() if one.expires_at is not None)
        empty_until = self._empty_until()
        if empty_until is not None:
            dues.append(empty_until)
        return min(dues, default=None)

    # The steps of the rules

    def reschedule(self) -> None:
        """A deadline may have changed."""
        self._due_known = False

    def apply_consequences(self, now: int, out: list[InstanceEvent]) -> list[InstanceEvent]:
        """Applies the consequences of a change and appends their events. Every rule ends with it.

        A free seat is held for the first waiting candidate, a master is elected, and changes of
        master and queue become events.
        """
        while self.free > 0 and (one := self.candidates.first_waiting()) is not None:
            self._hold(one, now)
            out.append(CandidateChanged(one.user, self.entry_of(one.user), "admitted"))
        self.roles.elect(self.seats.users)
        if self.roles.master != self._announced_master:
            before, self._announced_master = self._announced_master, self.roles.master
            out.append(MasterChanged(self._announced_master, before))
        if self.candidates.version != self._announced_queue:
            self._announced_queue = self.candidates.version
            out.append(QueueChanged(self.candidates.waiting))
        if self.taken:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = now
        self.reschedule()
        return out

    def may_enter(self, user: str, friends: frozenset[str], admin: bool) -> bool:
        """Whether the access lets a user in, regardless of seats and bans.

        A user who is inside with one session may enter with another.
        """
        return user in self.seats.users or access.may_enter(
            self.access,
            user=user,
            friends=friends,
            admin=admin,
            owner=self.owner,
            master=self.master,
            inside=self.seats.users,
            invited=self.invited.get(user),
        )

    def occupy(self, who: Visitor, player: Player, now: int) -> None:
        """Gives a free seat to a player."""
        self.entered = True
        self.seats.occupy(player)
        self.roles.entered(who)
        self.roles.elect(self.seats.users)
        if not self.moderation.muted(player.user, now):
            self.audible.add(player.id)

    def vacate(
        self, player: Player, reason: LeaveReason, note: str | None, out: list[InstanceEvent]
    ) -> None:
        """Takes a player's seat, and deletes its data."""
        if self.seats.vacate(player):
            self.roles.went(player.user)
        self.audible.discard(player.id)
        self.values.forget(player.id)
        out.append(Left(player, reason, note))

    def seat_or_queue(
        self,
        one: Candidate,
        why: CandidateReason,
        now: int,
        out: list[InstanceEvent],
        *,
        first: bool = False,
    ) -> None:
        """Gives a candidate who may enter a seat, or else the last place in the queue.

        `first`: the free seat was the candidate's own, so those who wait don't get it.
        """
        if self.free > 0 and (first or not self.candidates.waiting):
            self._hold(one, now)
        else:
            self.candidates.put("waiting", one)
        out.append(CandidateChanged(one.user, self.entry_of(one.user), why))

    def _hold(self, one: Candidate, now: int) -> None:
        until = now + self.limits.hold_ms
        self.candidates.put("admitted", replace(one, held_until=until))

    def drop_candidate(self, user: str, why: CandidateReason, out: list[InstanceEvent]) -> None:
        """Removes a user's entry, if it has one."""
        if self.candidates.remove(user) is not None:
            out.append(CandidateChanged(user, None, why))

    def expel(
        self,
        user: str,
        reason: Literal["kicked", "banned", "server-blocked"],
        note: str | None,
        out: list[InstanceEvent],
    ) -> None:
        """Removes a user's players, candidacy and invitation."""
        self.invited.pop(user, None)
        self.drop_candidate(user, reason, out)
        for player in self.seats.of_user(user):
            self.vacate(player, reason, note, out)

    def end(self, reason: Literal["closed", "empty"]) -> list[InstanceEvent]:
        """Closes the instance, and removes all players and candidates."""
        out: list[InstanceEvent] = []
        for one in tuple(self.candidates.all()):
            self.drop_candidate(one.user, "closed", out)
        for player in tuple(self.seats.players.values()):
            self.vacate(player, "closed", None, out)
        self.closed = True
        # `Closed` says it all: what is still called afterwards announces nothing of the end.
        self._announced_master = None
        self._announced_queue = self.candidates.version
        self.reschedule()
        out.append(Closed(reason))
        return out

    def ensure_hosts(self, by: Visitor) -> None:
        """Checks that a visitor may do what only hosts may, as far as it depends on its server.

        Raises:
            GuestNotAllowed: it is a guest, and not the owner.
        """
        if by.guest and by.user != self.owner:
            raise GuestNotAllowed

    def ensure_open(self) -> None:
        """Checks that the instance is open.

        Raises:
            InstanceNotFound: it is closed.
        """
        if self.closed:
            raise InstanceNotFound
