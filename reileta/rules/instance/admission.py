"""Admission to an instance: joining, leaving, and the queue.

A part of `Instance`. The queue's entries are in `candidates.py`; who may enter by the access tag is
decided in `access.py`. The owner, the server's admins and moderators wait before all others, and
the limit of candidates does not apply to them: a full instance does not shut them out for long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from reileta.errors import (
    AlreadyCandidate,
    AlreadyConnected,
    Banned,
    GuestNotAllowed,
    InstanceFull,
    NotAllowed,
    NotQueued,
    Overloaded,
    QuotaReached,
    UserNotFound,
)
from reileta.ids import is_user_at
from reileta.rules.identity import Visitor
from reileta.rules.instance import access
from reileta.rules.instance.candidates import Candidate, Candidates, Entry, State
from reileta.rules.instance.events import CandidateChanged, InstanceEvent, Joined, LeaveReason
from reileta.rules.instance.seats import Player
from reileta.rules.instance.state import InstanceState


class Admission(InstanceState):
    """The rules of joining, leaving and the queue."""

    def join(
        self, who: Visitor, now: int, silent: frozenset[str] = frozenset()
    ) -> tuple[Player, list[InstanceEvent]]:
        """A session joins, or comes back to the player that it already has inside.

        The first session of a user takes the seat that is held for it. Nobody passes waiting
        candidates, since a seat that becomes free is held for the first of them at once. Players
        that other sessions of the user have lost give way to a new session, which may take a seat
        of theirs: those in their grace period, and those of the sessions in `silent`, whose clients
        don't answer.

        Raises:
            InstanceNotFound: the instance is closed.
            Banned: the user is banned, and neither the owner nor an admin.
            GuestNotAllowed: the instance has the tag `avr:no_guests`.
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
        lost = self.lost_players(who.user, silent)
        self._ensure_not_banned(who, now)
        self._ensure_guests_allowed(who.user, guest=who.guest)
        if not held:
            if not self.may_enter(who.user, who.friends, who.administers):
                raise NotAllowed
            self._ensure_seat_of_user(who.user, lost=len(lost))
            if self.free + len(lost) <= 0:
                raise InstanceFull
        out: list[InstanceEvent] = []
        self.drop_candidate(who.user, "joined", out)
        player = Player(self.new_player_id(), who.user, who.session, who.displayname, now)
        self.occupy(who, player, now)
        out.append(Joined(player, self.roles.of(player.user)))
        for one in lost:  # only now: the user stays inside, and the master
            self.vacate(one, "disconnected", None, out)
        return player, self.apply_consequences(now, out)

    def may_return(self, who: Visitor, now: int) -> bool:
        """Whether a player that was inside, at another host or before a crash, may have its seat
        again."""
        if self.free <= 0 or self.seats.of_session(who.session) is not None:
            return False
        trusted = who.user == self.owner or who.administers
        return trusted or self.moderation.banned(who.user, now) is None

    def restore(self, who: Visitor, player: Player, now: int) -> None:
        """Restores a player that was inside before a crash; call it in the order of joining.

        There are no events: for the others, it never left. A seat must be free.
        """
        assert self.free > 0, "restored past the capacity"
        self.occupy(who, player, now)
        self._announced_master = self.roles.master
        self.apply_consequences(now, [])

    def disconnect(
        self, session: str, now: int, *, closed: bool = False, grace_ms: int | None = None
    ) -> list[InstanceEvent]:
        """A session lost its last socket: its player keeps the seat for the grace period.

        The period is shorter if the client closed the socket itself (`closed`), unless the instance
        is full: a page that is loaded again must not lose its seat to others, and nobody can tell
        it from one that was closed. `grace_ms`: so much of it is left. A session that is not inside
        is not an error. If called twice, the first time counts.
        """
        if grace_ms is None:
            grace_ms = self.limits.grace_ms
        if closed and (self.free > 0 or self.limits.closed_grace_ms <= 0):
            grace_ms = min(grace_ms, self.limits.closed_grace_ms)
        if grace_ms <= 0:
            return self.leave(session, now, "disconnected")
        self.seats.start_grace(session, now + grace_ms)
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

    # The checks of `join` and `candidate`

    def _ensure_not_banned(self, who: Visitor, now: int) -> None:
        """Checks that the visitor is not banned. Bans don't apply to the owner and the server's
        admins.

        Raises:
            Banned: a ban is in force.
        """
        if who.user == self.owner or who.administers:
            return
        if self.moderation.banned(who.user, now):
            raise Banned

    def _ensure_guests_allowed(self, user: str, *, guest: bool) -> None:
        """Raises GuestNotAllowed if the tags shut a guest out, and it is not the owner."""
        if guest and self.no_guests and user != self.owner:
            raise GuestNotAllowed

    def _ensure_seat_of_user(self, user: str, *, lost: int) -> None:
        """Checks that one more session of a user may occupy a seat, once `lost` players give way.

        A seat held for the user counts once it is occupied, since nobody with a held seat is
        inside.

        Raises:
            QuotaReached: the user has as many seats here as one user may have.
        """
        limit = self.limits.seats_per_user
        if 0 < limit <= self.seats.count_of(user) - lost:
            raise QuotaReached.field(
                "instance",
                f"a user can occupy at most {limit} seats in it: leave with one session first",
            )

    # The queue

    def candidate(
        self,
        who: Visitor,
        now: int,
        *,
        online: bool = True,
        silent: frozenset[str] = frozenset(),
    ) -> tuple[Entry, list[InstanceEvent]]:
        """A user requests entry: it is admitted, waits in the queue, or waits for an invitation.

        Without a socket (`online` false) it is removed after `queue_grace_ms` unless it gets one.
        If all of its players inside are lost, as in `join`, they leave, and the seat is held for
        it.

        Raises:
            InstanceNotFound, Banned, GuestNotAllowed: as for `join`.
            AlreadyConnected: a session of the user is inside.
            AlreadyCandidate: the user has an entry.
            NotAllowed: the user may neither enter nor wait for an invitation.
            Overloaded: there are too many candidates.
        """
        self.ensure_open()
        self._ensure_not_banned(who, now)
        self._ensure_guests_allowed(who.user, guest=who.guest)
        lost = self.lost_players(who.user, silent)
        self._ensure_may_be_new(who.user, lost=len(lost))
        precedes = self.precedes(who.user, admin=who.administers)
        one = Candidate(
            who.user,
            now,
            None if online else now + self.limits.queue_grace_ms,
            friends=who.friends,
            admin=who.administers,
            precedes=precedes,
            guest=who.guest,
        )
        out: list[InstanceEvent] = []
        if self.may_enter(who.user, who.friends, who.administers):
            if not precedes:
                self._ensure_room_in_queue()
            for player in lost:
                self.vacate(player, "disconnected", None, out)
            self.seat_or_queue(one, "asked", now, out, first=bool(lost))
        elif self.access in access.BY_INVITATION:
            self._ensure_room_in_queue()
            self.candidates.put("pending", one)
            out.append(CandidateChanged(one.user, self.entry_of(one.user), "asked"))
        else:
            raise NotAllowed
        self.apply_consequences(now, out)
        return self._current_entry(who.user), out

    def withdraw(self, user: str, now: int) -> list[InstanceEvent]:
        """A user withdraws its entry.

        Raises:
            NotQueued: it has none.
        """
        if self.candidates.state_of(user) is None:
            raise NotQueued
        out: list[InstanceEvent] = []
        self.drop_candidate(user, "withdrawn", out)
        return self.apply_consequences(now, out)

    def admit(
        self, by: Visitor, user: str, now: int, *, online: bool = False, guest: bool = False
    ) -> tuple[Entry, list[InstanceEvent]]:
        """Invites a user, `pending` or without an entry, and gives it a seat or a place in the
        queue. `guest`: it is a user of another server.

        A user who has either keeps it: nobody moves ahead of others. A user without an entry and
        without a socket (`online` false) is removed from the queue like any other.

        The invitation outlives the entry, so that the user can come back, until it is rejected,
        kicked or banned.

        Raises:
            InstanceNotFound: the instance is closed.
            GuestNotAllowed: `by` is a guest and not the owner, or `user` is one whom the tags shut
                out.
            NotAllowed: `by` may not invite, or the access tag has no invitations.
            UserNotFound: `user` is not a `UserIDAt`.
            Banned, AlreadyConnected: `user` is banned, or inside.
            Overloaded: there are too many candidates or invitations.
        """
        self.ensure_open()
        self.ensure_hosts(by)
        if not self.may_invite(by.user, admin=by.administers):
            raise NotAllowed
        if not is_user_at(user):
            raise UserNotFound
        if user in self.seats.users:
            raise AlreadyConnected
        if self.moderation.banned(user, now):
            raise Banned
        self._ensure_guests_allowed(user, guest=guest)
        state = self.candidates.state_of(user)
        precedes = self.precedes(user, admin=False)
        if state is None and not precedes:
            self._ensure_room_in_queue()
        if user not in self.invited and len(self.invited) >= self.limits.invitations:
            raise Overloaded
        leads = by.administers or by.user in (self.owner, self.master)
        if leads or user not in self.invited:
            self.invited[user] = "by-leader" if leads else "by-member"
        out: list[InstanceEvent] = []
        if state is None or state == "pending":
            asked = self.candidates.get(user)
            absent_until = None if online else now + self.limits.queue_grace_ms
            one = asked or Candidate(user, now, absent_until, precedes=precedes, guest=guest)
            self.seat_or_queue(one, "admitted", now, out)
            self.apply_consequences(now, out)
        return self._current_entry(user), out

    def refuse(self, by: Visitor, user: str, now: int) -> list[InstanceEvent]:
        """Removes another user's entry and invitation; on one's own entry, it withdraws.

        Overseers may reject anyone; users who may invite, a pending candidate.

        Raises:
            GuestNotAllowed: `by` is a guest and not the owner.
            NotAllowed: `by` may not.
            NotQueued: the user has neither entry nor invitation.
        """
        if by.user == user:
            return self.withdraw(user, now)
        self.ensure_hosts(by)
        state = self.candidates.state_of(user)
        invites = self.may_invite(by.user, admin=by.administers)
        if not self.oversees(by) and not (invites and state in ("pending", None)):
            raise NotAllowed
        invited = self.invited.pop(user, None)
        if state is None and invited is None:
            raise NotQueued
        out: list[InstanceEvent] = []
        self.drop_candidate(user, "refused", out)
        return self.apply_consequences(now, out)

    def resume(
        self,
        before: Candidates,
        invited: Mapping[str, Literal["by-leader", "by-member"]],
        now: int,
        master: str | None = None,
        told: bool = False,
        again: bool = False,
    ) -> list[InstanceEvent]:
        """Restores the candidates and invitations of a crashed actor, of one at another node, or of
        an earlier run of the server, after its players were restored.

        Candidates whose held seat is no longer free are the first in the queue. `master`: who was
        the master there; None: that is decided anew. `told`: those concerned know the queue.
        `again`: the bans and the access may have changed since, and decide again.
        """
        if master in self.seats.users and self.roles.may_lead(master):
            self.roles.master = self._announced_master = master
        self.invited.update(invited)
        for state, one in before.each():
            if one.user in self.seats.users:
                continue
            place: State | None = state
            if again:
                place = self._state_again(state, one, now)
                one = replace(one, precedes=self.precedes(one.user, admin=one.admin))
            if place == "admitted" and self.free <= 0:
                place = "waiting"
            if place is not None:
                held_until = one.held_until if place == "admitted" else None
                self.candidates.put(place, replace(one, held_until=held_until))
        if told:
            self._announced_queue = self.candidates.version
        return self.apply_consequences(now, [])

    def _state_again(self, state: State, one: Candidate, now: int) -> State | None:
        """Where a candidate is by the present bans and access; None: nowhere."""
        trusted = one.user == self.owner or one.admin
        if not trusted and self.moderation.banned(one.user, now) is not None:
            return None
        if one.guest and self.no_guests and one.user != self.owner:
            return None
        if self.may_enter(one.user, one.friends, one.admin):
            return "waiting" if state == "pending" else state
        return "pending" if self.access in access.BY_INVITATION else None

    def lose_host(self, now: int) -> list[InstanceEvent]:
        """The node on which the instance lives did not come back: all players leave, and nobody
        waits any more. The instance stays."""
        out: list[InstanceEvent] = []
        for one in tuple(self.candidates.all()):
            self.drop_candidate(one.user, "host-lost", out)
        for player in tuple(self.seats.players.values()):
            self.vacate(player, "host-lost", None, out)
        return self.apply_consequences(now, out)

    def present(self, user: str) -> None:
        """A user has a socket again, so a candidate keeps its place. Can be called for any user."""
        self.candidates.absent(user, None)
        self.reschedule()

    def absent(self, user: str, now: int) -> None:
        """A user has no socket any more: its place in the queue is kept for `queue_grace_ms`."""
        self.candidates.absent(user, now + self.limits.queue_grace_ms)
        self.reschedule()

    def _reconsider(self, now: int, out: list[InstanceEvent], *, user: str | None = None) -> None:
        """Checks all candidates again after the access changed, or only `user`."""
        by_invitation = self.access in access.BY_INVITATION
        for one in tuple(self.candidates.all()):
            if user is not None and one.user != user:
                continue
            state = self.candidates.state_of(one.user)
            if one.guest and self.no_guests and one.user != self.owner:
                self.drop_candidate(one.user, "refused", out)
            elif self.may_enter(one.user, one.friends, one.admin):
                if state == "pending":
                    self.seat_or_queue(one, "admitted", now, out)
            elif not by_invitation:
                self.drop_candidate(one.user, "refused", out)
            elif state != "pending":
                self.candidates.put("pending", replace(one, held_until=None))
                out.append(CandidateChanged(one.user, self.entry_of(one.user), "asked"))

    def _current_entry(self, user: str) -> Entry:
        entry = self.candidates.entry_of(user)
        assert entry is not None
        return entry

    def _ensure_may_be_new(self, user: str, *, lost: int) -> None:
        if self.seats.count_of(user) > lost:
            raise AlreadyConnected
        if self.candidates.state_of(user) is not None:
            raise AlreadyCandidate

    def _ensure_room_in_queue(self) -> None:
        if len(self.candidates) >= self.limits.candidates:
            raise Overloaded
