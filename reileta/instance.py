"""The rules of one live instance: who is inside, who comes next, who may do what (PROTOCOL §§6, 7).

`Instance` is pure. It is told what happens, with the time, changes itself, and returns what
happened (`reileta/happenings.py`) for its caller to carry out; the same calls with the same times
and player ids give the same state and the same happenings. A call that raises has changed nothing.

Time passes in `tick` alone: the caller calls `tick(now)` whenever `next_deadline() <= now`, before
anything else. A lease that ran out is still good until then, so being late is never unjust: whoever
comes back after its grace, but before anyone was told that it left, has its seat.

All users are `UserIDAt`s, also in the bans that come in and go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from reileta import access, moderation, tags
from reileta.access import AccessTag, Visitor
from reileta.errors import (
    AlreadyCandidate,
    AlreadyConnected,
    Banned,
    InstanceFull,
    InstanceInvalid,
    InstanceNotFound,
    MessageInvalid,
    NotAllowed,
    NotInInstance,
    NotQueued,
    Overloaded,
    PermissionDenied,
    PlayerNotFound,
    UserNotFound,
)
from reileta.happenings import (
    BannedUser,
    CandidateChanged,
    Closed,
    Course,
    Departure,
    Happening,
    Joined,
    Left,
    MasterChanged,
    Muted,
    QueueChanged,
    RoleChanged,
    Unbanned,
    Unmuted,
    Updated,
    Warned,
)
from reileta.ids import At, is_id, is_server_address
from reileta.moderation import Moderation, Mute
from reileta.queue import Candidate, Candidates, Entry
from reileta.records import UNSET, Ban, InstanceChanges
from reileta.records import Instance as Record
from reileta.retained import KEY_LIMIT, Retained, RetainedValues
from reileta.roles import Role, Roles, outranks
from reileta.seats import Player, Seats

TO_LIMIT: Final = 64
"""Players that one message may be addressed to."""
CAPACITY_LIMIT: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """The times and bounds of an instance: ms, bytes and counts.

    Attributes:
        grace_ms: how long a player's seat outlives its last socket; 0: not at all.
        hold_ms: how long a seat is held for an admitted candidate.
        queue_grace_ms: how long a candidate that waits outlives the loss of its socket.
        empty_ms: how long an instance that is not permanent may stand empty.
        retained_keys: keyed values that are kept for a player.
        retained_bytes: what those values and their keys may weigh together.
        candidates: entries of all three states together.
        invitations: users invited in the instance's life.
        moderators, bans, mutes: how many there may be of each.
    """

    grace_ms: int = 10_000
    hold_ms: int = 30_000
    queue_grace_ms: int = 60_000
    empty_ms: int = 60_000
    retained_keys: int = 256
    retained_bytes: int = 256 * 1024
    candidates: int = 1024
    invitations: int = 4096
    moderators: int = 64
    bans: int = 4096
    mutes: int = 4096


@dataclass(frozen=True, slots=True)
class Spoken:
    """Where a message goes: to everyone else inside (None) or to those players; or nowhere."""

    to: tuple[str, ...] | None
    dropped: bool


TO_ALL: Final = Spoken(None, False)
DROPPED: Final = Spoken((), True)


class Instance:
    """One instance; see the module's text for how it is to be used.

    Args:
        record: what outlives the process.
        owner: the owner as a `UserIDAt`.
        bans: those in the store, with `UserIDAt`s.
        now: ms; an instance stands empty from here on.
        new_player_id: makes a `p_…` for each player.
    """

    def __init__(
        self,
        record: Record,
        *,
        owner: str,
        bans: Iterable[Ban],
        limits: Limits,
        now: int,
        new_player_id: Callable[[], str],
    ) -> None:
        self.record = record
        self.limits: Final = limits
        self.closed = False
        self.empty_since: int | None = now
        """Since when nobody is inside and no seat is held, ms; None while one is taken."""
        self._new_player_id = new_player_id
        self._seats = Seats()
        self._roles = Roles(owner)
        self._candidates = Candidates()
        self._invited: dict[str, Literal["by-leader", "by-member"]] = {}
        self._moderation = Moderation(bans, bans_limit=limits.bans, mutes_limit=limits.mutes)
        self._values = RetainedValues(
            keys_limit=limits.retained_keys, bytes_limit=limits.retained_bytes
        )
        self._audible: set[str] = set()  # players inside that are not muted
        self._told_master: str | None = None
        self._told_queue = 0  # version of the candidates that was last told
        self._due: int | None = None
        self._due_known = False

    # What it is like now

    @property
    def owner(self) -> str:
        return self._roles.owner

    @property
    def master(self) -> str | None:
        """The user that is the master; None when nobody is inside."""
        return self._roles.master

    @property
    def access(self) -> AccessTag:
        return access.access_of(self.record.tags)

    @property
    def permanent(self) -> bool:
        return tags.PERMANENT in self.record.tags

    @property
    def players(self) -> Mapping[str, Player]:
        """All inside by player id, those in their grace included; longest inside first."""
        return self._seats.players

    @property
    def connected(self) -> int:
        return len(self._seats)

    @property
    def queued(self) -> int:
        """How many wait in line."""
        return self._candidates.waiting

    @property
    def taken(self) -> int:
        """Seats taken: by players, and for admitted candidates."""
        return len(self._seats) + self._candidates.held

    @property
    def free(self) -> int:
        return self.record.capacity - self.taken

    @property
    def bans(self) -> Mapping[str, Ban]:
        """By user; those that ran out are among them until the next `tick`."""
        return self._moderation.bans

    def player_of(self, session: str) -> Player | None:
        return self._seats.of_session(session)

    def players_of(self, user: str) -> list[Player]:
        return self._seats.of_user(user)

    def in_grace(self, session: str) -> bool:
        """Whether that session's player is inside without a socket."""
        return self._seats.in_grace(session)

    def role_of(self, user: str) -> Role:
        """The role of a user; `normal` for one that is not inside and has no other."""
        return self._roles.of(user)

    def muted(self, user: str, now: int) -> bool:
        return self._moderation.muted(user, now)

    def retained(self) -> Iterable[Retained]:
        """The keyed values of those inside, for one that joins."""
        return self._values

    def entries(self) -> tuple[Entry, ...]:
        """All candidates: the admitted, the line in its order, the pending."""
        return self._candidates.entries()

    def entry_of(self, user: str) -> Entry | None:
        return self._candidates.entry_of(user)

    def oversees(self, who: Visitor) -> bool:
        """Whether one may see all of the queue: owner, admins, master, moderators."""
        return self._roles.of_visitor(who) != "normal"

    def overseers(self) -> list[Player]:
        """The players inside whose users oversee."""
        return [one for one in self.players.values() if self._roles.of(one.user) != "normal"]

    def may_invite(self, user: str, *, admin: bool = False) -> bool:
        """Whether a user may invite, and admit those who are pending."""
        return access.may_invite(
            self.access,
            user=user,
            admin=admin,
            owner=self.owner,
            master=self.master,
            inside=self._seats.users,
        )

    def may_see(self, who: Visitor | None) -> bool:
        """Whether lists show it to one (None: nobody in particular).

        A public instance shows to all; another to the owner, admins, those inside, candidates, and
        those who could join as far as its access goes.
        """
        if self.access == access.PUBLIC:
            return True
        if who is None:
            return False
        return self._candidates.state_of(who.user) is not None or self._may_enter(
            who.user, who.friends, who.administers
        )

    # Coming and going

    def join(self, who: Visitor, now: int) -> tuple[Player, list[Happening]]:
        """A session comes inside, or comes back to the player that it has there.

        A seat that is held for the user is taken by the first of its sessions. Nobody joins past
        those who wait, since a seat that comes free is held for the first of them at once.

        Raises:
            InstanceNotFound: it is closed.
            Banned: the user is, and is neither the owner nor an admin.
            NotAllowed: its access does not let the user in.
            InstanceFull: no seat is free.
        """
        self._ensure_open()
        present = self._seats.of_session(who.session)
        if present is not None:
            self._seats.regain(who.session)
            self._due_known = False
            return present, []
        held = self._candidates.state_of(who.user) == "admitted"
        self._ensure_not_banned(who, now)
        if not held:
            if not self._may_enter(who.user, who.friends, who.administers):
                raise NotAllowed
            if self.free <= 0:
                raise InstanceFull
        out: list[Happening] = []
        self._drop_candidate(who.user, "joined", out)
        player = Player(self._new_player_id(), who.user, who.session, who.displayname, now)
        self._sit(who, player, now)
        out.append(Joined(player, self._roles.of(player.user)))
        return player, self._settle(now, out)

    def restore(self, who: Visitor, player: Player, now: int) -> None:
        """Puts a player back that was inside before a crash, in the order of joining. Nothing
        happens by it: to those inside, it never left. The new `Instance` must have a free seat.
        """
        assert self.free > 0, "restored past the capacity"
        self._sit(who, player, now)
        self._told_master = self._roles.master
        self._settle(now, [])

    def lost(self, session: str, now: int) -> list[Happening]:
        """The last socket of a session went: its player has its grace to come back.

        A session that is not inside is no error, nor is being told twice: the first loss counts.
        """
        if self.limits.grace_ms <= 0:
            return self.leave(session, now, "disconnected")
        self._seats.lose(session, now + self.limits.grace_ms)
        self._due_known = False
        return []

    def leave(self, session: str, now: int, reason: Departure = "left") -> list[Happening]:
        """A session goes, and its seat is free; one that is not inside is no error."""
        player = self._seats.of_session(session)
        if player is None:
            return []
        out: list[Happening] = []
        self._stand(player, reason, None, out)
        return self._settle(now, out)

    # Speaking

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
        if key is None and to is None and player_id in self._audible:  # nearly every message
            return TO_ALL
        player = self._seats.players.get(player_id)
        if player is None:
            raise NotInInstance
        if player_id not in self._audible and self._moderation.muted(player.user, now):
            raise NotAllowed.field("player", "is muted")
        if key is not None and not 1 <= len(key) <= KEY_LIMIT:
            raise MessageInvalid.field("key", f"must be 1 to {KEY_LIMIT} characters")
        if to is not None and len(to) > TO_LIMIT:
            raise MessageInvalid.field("to", f"must be at most {TO_LIMIT} players")
        if key is not None:
            if self._values.rolls_back(player_id, key, at):
                return DROPPED
            if to is None:
                self._values.keep(player_id, key, at, data)
        if to is None:
            return TO_ALL
        inside = self._seats.players
        return Spoken(tuple(one for one in dict.fromkeys(to) if one in inside), False)

    # Candidates

    def candidate(
        self, who: Visitor, now: int, *, online: bool = True
    ) -> tuple[Entry, list[Happening]]:
        """A user asks to come in, and is admitted, put in line, or left to wait for an invitation.

        Without a socket (`online` false) it is forgotten after `queue_grace_ms` unless one comes.

        Raises:
            InstanceNotFound, Banned: as `join` does.
            AlreadyConnected: a session of the user is inside.
            AlreadyCandidate: it has an entry.
            NotAllowed: its access lets the user neither in nor ask for an invitation.
            Overloaded: there are too many candidates.
        """
        self._ensure_open()
        self._ensure_not_banned(who, now)
        self._ensure_may_be_new(who.user)
        one = Candidate(
            who.user,
            now,
            None if online else now + self.limits.queue_grace_ms,
            who.friends,
            who.administers,
        )
        out: list[Happening] = []
        if self._may_enter(who.user, who.friends, who.administers):
            self._ensure_room_in_queue()
            self._place(one, "asked", now, out)
        elif self.access in access.BY_INVITATION:
            self._ensure_room_in_queue()
            self._candidates.put("pending", one)
            out.append(CandidateChanged(one.user, self.entry_of(one.user), "asked"))
        else:
            raise NotAllowed
        self._settle(now, out)
        return self._entry(who.user), out

    def withdraw(self, user: str, now: int) -> list[Happening]:
        """A user takes its entry back.

        Raises:
            NotQueued: it has none.
        """
        if self._candidates.state_of(user) is None:
            raise NotQueued
        out: list[Happening] = []
        self._drop_candidate(user, "withdrawn", out)
        return self._settle(now, out)

    def admit(self, by: Visitor, user: str, now: int) -> tuple[Entry, list[Happening]]:
        """Invites a user, whether it asked (`pending`) or not, and gives it a seat or a place in
        line. One that has either keeps what it has: nobody is put before others.

        The invitation stays good after the entry is gone, so that the user can come back, until it
        is refused, kicked or banned.

        Raises:
            InstanceNotFound: it is closed.
            NotAllowed: `by` may not invite, or this instance takes no invitations.
            UserNotFound: `user` is no `UserIDAt`.
            Banned, AlreadyConnected: `user` is banned, or inside.
            Overloaded: there are too many candidates or invitations.
        """
        self._ensure_open()
        if not self.may_invite(by.user, admin=by.administers):
            raise NotAllowed
        _ensure_user(user)
        if user in self._seats.users:
            raise AlreadyConnected
        if self._moderation.banned(user, now):
            raise Banned
        state = self._candidates.state_of(user)
        if state is None:
            self._ensure_room_in_queue()
        if user not in self._invited and len(self._invited) >= self.limits.invitations:
            raise Overloaded
        leads = by.administers or by.user in (self.owner, self.master)
        if leads or user not in self._invited:
            self._invited[user] = "by-leader" if leads else "by-member"
        out: list[Happening] = []
        if state is None or state == "pending":
            asked = self._candidates.get(user)
            one = asked or Candidate(user, now, now + self.limits.queue_grace_ms)
            self._place(one, "admitted", now, out)
            self._settle(now, out)
        return self._entry(user), out

    def refuse(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """Takes a candidate out, and its invitation back. One who asks for itself withdraws.

        Those who oversee may refuse anyone; those who may invite, a pending one.

        Raises:
            NotAllowed: `by` may not.
            NotQueued: the user has no entry.
        """
        if by.user == user:
            return self.withdraw(user, now)
        state = self._candidates.state_of(user)
        invites = self.may_invite(by.user, admin=by.administers)
        if not self.oversees(by) and not (invites and state in ("pending", None)):
            raise NotAllowed
        if state is None:
            raise NotQueued
        out: list[Happening] = []
        self._invited.pop(user, None)
        self._drop_candidate(user, "refused", out)
        return self._settle(now, out)

    def present(self, user: str) -> None:
        """A user has a socket (again): what it waits for, it keeps."""
        self._candidates.expire(user, None)
        self._due_known = False

    def absent(self, user: str, now: int) -> None:
        """A user's last socket went: its place in line outlives that by `queue_grace_ms`."""
        self._candidates.expire(user, now + self.limits.queue_grace_ms)
        self._due_known = False

    # Roles and moderation

    def hand_over(self, by: Visitor, to: str, now: int) -> list[Happening]:
        """The owner makes someone inside (a user or a player) the master.

        Raises:
            NotAllowed: `by` is not the owner.
            PlayerNotFound: that one is not inside.
        """
        self._ensure_owner(by)
        user = self._target(to)
        if user not in self._seats.users:
            raise PlayerNotFound
        self._roles.master = user
        return self._settle(now, [])

    def name_moderator(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """The owner names a moderator, inside or not; it stays one until dismissed.

        Raises:
            NotAllowed: `by` is not the owner.
            UserNotFound: `user` is no `UserIDAt`.
            InstanceInvalid: there are too many.
        """
        self._ensure_owner(by)
        _ensure_user(user)
        if user in self._roles.moderators:
            return []
        if len(self._roles.moderators) >= self.limits.moderators:
            raise InstanceInvalid.field(
                "moderators", f"no more than {self.limits.moderators} moderators"
            )
        self._roles.moderators[user] = None
        return self._settle(now, [RoleChanged(user, self._roles.of(user))])

    def dismiss_moderator(self, by: Visitor, user: str, now: int) -> list[Happening]:
        """The owner dismisses a moderator; one that is none is no error.

        Raises:
            NotAllowed: `by` is not the owner.
        """
        self._ensure_owner(by)
        if user not in self._roles.moderators:
            return []
        del self._roles.moderators[user]
        return self._settle(now, [RoleChanged(user, self._roles.of(user))])

    def moderate(
        self,
        by: Visitor,
        target: str,
        type_: str,
        reason: str | None,
        until: int | None,
        now: int,
    ) -> list[Happening]:
        """Kicks, bans, unbans, mutes, unmutes or warns a user, given as such or as a player.

        It concerns the user with all its sessions. A kick also ends its candidacy and invitation,
        but leaves it free to join again where anyone may; a ban ends them and keeps it out (server
        admins excepted), inside or not at the time. Unban and unmute of one that is neither are no
        errors.

        Raises:
            InstanceNotFound: it is closed.
            ModerationInvalid: type, reason or `until` is wrong, or there are too many of them.
            NotInInstance: `by` is not inside, nor owner, admin or moderator.
            NotAllowed: the target is not below `by`.
            PlayerNotFound: nobody is inside to be kicked, muted or warned, or no such player.
            UserNotFound: one to be banned is no `UserIDAt`.
        """
        self._ensure_open()
        measure = moderation.check(type_, reason, until, now)
        role = self._roles.of_visitor(by)
        if role == "normal":
            raise NotAllowed if by.user in self._seats.users else NotInInstance
        user = self._target(target)
        if not outranks(role, self._roles.of(user)) or user == by.user:
            raise NotAllowed
        inside = user in self._seats.users
        out: list[Happening] = []
        match measure:
            case "kick":
                if not inside and self._candidates.state_of(user) is None:
                    raise PlayerNotFound
                self._expel(user, "kicked", reason, out)
            case "ban":
                _ensure_user(user)
                ban = Ban(self.record.id, user, until, reason, by.user, now)
                self._moderation.ban(ban)
                out.append(BannedUser(ban))
                self._expel(user, "banned", reason, out)
            case "unban":
                if self._moderation.bans.pop(user, None) is not None:
                    out.append(Unbanned(user, by.user))
            case "mute":
                if not inside:
                    raise PlayerNotFound
                self._moderation.mute(Mute(user, until))
                self._audible.difference_update(one.id for one in self._seats.of_user(user))
                out.append(Muted(user, until, reason, by.user))
            case "unmute":
                if self._moderation.mutes.pop(user, None) is not None:
                    self._audible.update(one.id for one in self._seats.of_user(user))
                    out.append(Unmuted(user, by.user))
            case "warn":
                if not inside:
                    raise PlayerNotFound
                out.append(Warned(user, reason, by.user))
        return self._settle(now, out)

    # The instance itself

    def update(
        self, by: Visitor, changes: InstanceChanges, now: int
    ) -> tuple[Record, list[Happening]]:
        """The owner or an admin changes the record. More capacity lets those in line in at once.

        When the access becomes another, candidates whom it no longer lets in wait for an
        invitation, if it knows any, or are refused; players stay.

        Raises:
            InstanceNotFound: it is closed.
            PermissionDenied: `by` may not, or may not set one of the tags.
            InstanceInvalid: the capacity is out of bounds or below the seats taken; tags exclude
                each other.
            TagUnknown: a tag is not known.
        """
        self._ensure_open()
        self._ensure_governs(by)
        before = self.record
        capacity = before.capacity if changes.capacity is UNSET else changes.capacity
        if not 1 <= capacity <= CAPACITY_LIMIT:
            raise InstanceInvalid.field("capacity", f"must be 1 to {CAPACITY_LIMIT}")
        if capacity < before.capacity and capacity < self.taken:
            raise InstanceInvalid.field(
                "capacity", f"must be at least {self.taken}, the seats that are taken"
            )
        record = replace(
            before,
            title=before.title if changes.title is UNSET else changes.title,
            description=(
                before.description if changes.description is UNSET else changes.description
            ),
            capacity=capacity,
            tags=before.tags
            if changes.tags is UNSET
            else tags.INSTANCE_TAGS.settle(changes.tags, admin=by.administers, before=before.tags),
        )
        if record == before:
            return before, []
        narrowed = self.access != access.access_of(record.tags)
        self.record = replace(record, updated_at=now)
        out: list[Happening] = [Updated(self.record)]
        if narrowed:
            self._reconsider(now, out)
        return self.record, self._settle(now, out)

    def close(self, by: Visitor | None, now: int) -> list[Happening]:
        """Ends the instance: by its owner or an admin, or by the server itself (None).

        Closing it again is no error.

        Raises:
            PermissionDenied: `by` may not.
        """
        if by is not None:
            self._ensure_governs(by)
        return [] if self.closed else self._close("closed")

    # Time

    def tick(self, now: int) -> list[Happening]:
        """Does everything whose time has come: graces, held seats, places of those gone, bans and
        mutes, and the end of an instance that stood empty."""
        if self.closed:
            return []
        out: list[Happening] = []
        for player in self._seats.overdue(now):
            self._stand(player, "disconnected", None, out)
        for user in self._candidates.overdue(now):
            self._drop_candidate(user, "expired", out)
        unbanned, unmuted = self._moderation.lapse(now)
        out.extend(Unbanned(user, None) for user in unbanned)
        for user in unmuted:
            self._audible.update(one.id for one in self._seats.of_user(user))
            out.append(Unmuted(user, None))
        self._settle(now, out)
        return out + self._close("empty") if self.ended(now) else out

    def next_deadline(self) -> int | None:
        """When `tick` must next be called, ms; None: when something else happened."""
        if not self._due_known:
            self._due = self._next_due()
            self._due_known = True
        return self._due

    def ended(self, now: int) -> bool:
        """Whether it is over: closed, or not permanent and empty for `empty_ms`."""
        until = self._empty_until()
        return self.closed or (until is not None and until <= now)

    # Within

    def _empty_until(self) -> int | None:
        if self.empty_since is None or self.permanent:
            return None
        return self.empty_since + self.limits.empty_ms

    def _next_due(self) -> int | None:
        if self.closed:
            return None
        dues = [*self._seats.deadlines, *self._moderation.deadlines]
        dues.extend(one.expires_at for one in self._candidates.all() if one.expires_at is not None)
        empty_until = self._empty_until()
        if empty_until is not None:
            dues.append(empty_until)
        return min(dues, default=None)

    def _settle(self, now: int, out: list[Happening]) -> list[Happening]:
        """What follows from any change: a freed seat is held for the next in line, someone is the
        master, those concerned know the queue. Ends every call that changes something."""
        while self.free > 0 and (one := self._candidates.first_waiting()) is not None:
            self._place(one, "admitted", now, out)
        self._roles.elect(self._seats.users)
        if self._roles.master != self._told_master:
            self._told_master = self._roles.master
            out.append(MasterChanged(self._told_master))
        if self._candidates.version != self._told_queue:
            self._told_queue = self._candidates.version
            out.append(QueueChanged(self.entries()))
        if self.taken:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = now
        self._due_known = False
        return out

    def _may_enter(self, user: str, friends: frozenset[str], admin: bool) -> bool:
        # Who is inside with one session may be there with another.
        return user in self._seats.users or access.may_enter(
            self.access,
            user=user,
            friends=friends,
            admin=admin,
            owner=self.owner,
            master=self.master,
            inside=self._seats.users,
            invited=self._invited.get(user),
        )

    def _sit(self, who: Visitor, player: Player, now: int) -> None:
        self._seats.sit(player)
        self._roles.entered(who)
        self._roles.elect(self._seats.users)
        if not self._moderation.muted(player.user, now):
            self._audible.add(player.id)

    def _stand(
        self, player: Player, reason: Departure, note: str | None, out: list[Happening]
    ) -> None:
        if self._seats.stand(player):
            self._roles.went(player.user)
        self._audible.discard(player.id)
        self._values.forget(player.id)
        out.append(Left(player, reason, note))

    def _place(self, one: Candidate, why: Course, now: int, out: list[Happening]) -> None:
        """Gives a candidate that may enter a seat, or else the end of the line."""
        if self.free > 0:
            until = now + self.limits.hold_ms
            self._candidates.put("admitted", replace(one, expires_at=until))
        else:
            self._candidates.put("waiting", one)
        out.append(CandidateChanged(one.user, self.entry_of(one.user), why))

    def _drop_candidate(self, user: str, why: Course, out: list[Happening]) -> None:
        if self._candidates.remove(user) is not None:
            out.append(CandidateChanged(user, None, why))

    def _expel(
        self,
        user: str,
        reason: Literal["kicked", "banned"],
        note: str | None,
        out: list[Happening],
    ) -> None:
        self._invited.pop(user, None)
        self._drop_candidate(user, reason, out)
        for player in self._seats.of_user(user):
            self._stand(player, reason, note, out)

    def _reconsider(self, now: int, out: list[Happening]) -> None:
        """Judges the candidates anew, after the access became another."""
        by_invitation = self.access in access.BY_INVITATION
        for one in tuple(self._candidates.all()):
            state = self._candidates.state_of(one.user)
            if self._may_enter(one.user, one.friends, one.admin):
                if state == "pending":
                    self._place(one, "admitted", now, out)
            elif not by_invitation:
                self._drop_candidate(one.user, "refused", out)
            elif state != "pending":
                # A held seat's end says nothing of sockets; the place of one without lives on.
                expires_at = now + self.limits.queue_grace_ms if state == "admitted" else None
                self._candidates.put("pending", replace(one, expires_at=expires_at))
                out.append(CandidateChanged(one.user, self.entry_of(one.user), "asked"))

    def _close(self, reason: Literal["closed", "empty"]) -> list[Happening]:
        out: list[Happening] = []
        for one in tuple(self._candidates.all()):
            self._drop_candidate(one.user, "closed", out)
        for player in tuple(self._seats.players.values()):
            self._stand(player, "closed", None, out)
        self.closed = True
        self._due_known = False
        out.append(Closed(reason))
        return out

    def _entry(self, user: str) -> Entry:
        entry = self._candidates.entry_of(user)
        assert entry is not None
        return entry

    def _target(self, target: str) -> str:
        """The user that a target means, which is a user or a player inside."""
        player = self._seats.players.get(target)
        if player is not None:
            return player.user
        if target.startswith("p_"):
            raise PlayerNotFound
        return target

    def _ensure_open(self) -> None:
        if self.closed:
            raise InstanceNotFound

    def _ensure_owner(self, by: Visitor) -> None:
        self._ensure_open()
        if by.user != self.owner:
            raise NotAllowed

    def _ensure_governs(self, by: Visitor) -> None:
        if by.user != self.owner and not by.administers:
            raise PermissionDenied

    def _ensure_not_banned(self, who: Visitor, now: int) -> None:
        if who.user == self.owner or who.administers:
            return
        if self._moderation.banned(who.user, now):
            raise Banned

    def _ensure_may_be_new(self, user: str) -> None:
        if user in self._seats.users:
            raise AlreadyConnected
        if self._candidates.state_of(user) is not None:
            raise AlreadyCandidate

    def _ensure_room_in_queue(self) -> None:
        if len(self._candidates) >= self.limits.candidates:
            raise Overloaded


def _ensure_user(user: str) -> None:
    """What is kept of strangers by name must be names, so that it is bounded."""
    at = At.parse(user)
    if not is_id(at.id, "u") or at.server is None or not is_server_address(at.server):
        raise UserNotFound
