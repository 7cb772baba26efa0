"""Queueing: how users request entry, are admitted, and are rejected.

Functions of an `InstanceState`, which `Instance` offers as its methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from reileta.errors import (
    AlreadyCandidate,
    AlreadyConnected,
    Banned,
    NotAllowed,
    NotQueued,
    Overloaded,
    UserNotFound,
)
from reileta.ids import is_user_at
from reileta.rules.identity import Visitor
from reileta.rules.instance import access
from reileta.rules.instance.candidates import Candidate, Candidates, Entry
from reileta.rules.instance.events import CandidateChanged, Happening
from reileta.rules.instance.state import InstanceState


def request_entry(
    room: InstanceState, who: Visitor, now: int, *, online: bool
) -> tuple[Entry, list[Happening]]:
    """A user requests entry: it is admitted, waits in the queue, or waits for an invitation.

    Without a socket (`online` false) it is removed after `queue_grace_ms` unless it gets one.

    Raises:
        InstanceNotFound, Banned: as for `join`.
        AlreadyConnected: a session of the user is inside.
        AlreadyCandidate: the user has an entry.
        NotAllowed: the user may neither enter nor wait for an invitation.
        Overloaded: there are too many candidates.
    """
    room.ensure_open()
    room.ensure_not_banned(who, now)
    _ensure_may_be_new(room, who.user)
    one = Candidate(
        who.user,
        now,
        None if online else now + room.limits.queue_grace_ms,
        friends=who.friends,
        admin=who.administers,
    )
    out: list[Happening] = []
    if room.may_enter(who.user, who.friends, who.administers):
        _ensure_room_in_queue(room)
        room.place(one, "asked", now, out)
    elif room.access in access.BY_INVITATION:
        _ensure_room_in_queue(room)
        room.candidates.put("pending", one)
        out.append(CandidateChanged(one.user, room.entry_of(one.user), "asked"))
    else:
        raise NotAllowed
    room.settle(now, out)
    return _entry(room, who.user), out


def withdraw_entry(room: InstanceState, user: str, now: int) -> list[Happening]:
    """A user withdraws its entry.

    Raises:
        NotQueued: it has none.
    """
    if room.candidates.state_of(user) is None:
        raise NotQueued
    out: list[Happening] = []
    room.drop_candidate(user, "withdrawn", out)
    return room.settle(now, out)


def admit_candidate(
    room: InstanceState, by: Visitor, user: str, now: int, *, online: bool
) -> tuple[Entry, list[Happening]]:
    """Invites a user, `pending` or without an entry, and gives it a seat or a place in the queue.

    A user who has either keeps it: nobody moves ahead of others. A user without an entry and
    without a socket (`online` false) is removed from the queue like any other.

    The invitation outlives the entry, so that the user can come back, until it is rejected, kicked
    or banned.

    Raises:
        InstanceNotFound: the instance is closed.
        NotAllowed: `by` may not invite, or the access tag has no invitations.
        UserNotFound: `user` is not a `UserIDAt`.
        Banned, AlreadyConnected: `user` is banned, or inside.
        Overloaded: there are too many candidates or invitations.
    """
    room.ensure_open()
    if not room.may_invite(by.user, admin=by.administers):
        raise NotAllowed
    if not is_user_at(user):
        raise UserNotFound
    if user in room.seats.users:
        raise AlreadyConnected
    if room.moderation.banned(user, now):
        raise Banned
    state = room.candidates.state_of(user)
    if state is None:
        _ensure_room_in_queue(room)
    if user not in room.invited and len(room.invited) >= room.limits.invitations:
        raise Overloaded
    leads = by.administers or by.user in (room.owner, room.master)
    if leads or user not in room.invited:
        room.invited[user] = "by-leader" if leads else "by-member"
    out: list[Happening] = []
    if state is None or state == "pending":
        asked = room.candidates.get(user)
        absent_until = None if online else now + room.limits.queue_grace_ms
        one = asked or Candidate(user, now, absent_until)
        room.place(one, "admitted", now, out)
        room.settle(now, out)
    return _entry(room, user), out


def reject_candidate(room: InstanceState, by: Visitor, user: str, now: int) -> list[Happening]:
    """Removes another user's entry and invitation; on one's own entry, it withdraws.

    Overseers may reject anyone; users who may invite, a pending candidate.

    Raises:
        NotAllowed: `by` may not.
        NotQueued: the user has neither entry nor invitation.
    """
    if by.user == user:
        return withdraw_entry(room, user, now)
    state = room.candidates.state_of(user)
    invites = room.may_invite(by.user, admin=by.administers)
    if not room.oversees(by) and not (invites and state in ("pending", None)):
        raise NotAllowed
    invited = room.invited.pop(user, None)
    if state is None and invited is None:
        raise NotQueued
    out: list[Happening] = []
    room.drop_candidate(user, "refused", out)
    return room.settle(now, out)


def resume(
    room: InstanceState,
    before: Candidates,
    invited: Mapping[str, Literal["by-leader", "by-member"]],
    now: int,
) -> list[Happening]:
    """Restores the candidates and invitations of a crashed actor, after its players were restored.

    Candidates whose held seat is no longer free are the first in the queue.
    """
    room.invited.update(invited)
    for state, one in before.each():
        if one.user in room.seats.users:
            continue
        if state == "admitted" and room.free <= 0:
            room.candidates.put("waiting", replace(one, held_until=None))
        else:
            room.candidates.put(state, one)
    return room.settle(now, [])


def reconsider(
    room: InstanceState, now: int, out: list[Happening], *, user: str | None = None
) -> None:
    """Checks all candidates again after the access tag changed, or only `user`."""
    by_invitation = room.access in access.BY_INVITATION
    for one in tuple(room.candidates.all()):
        if user is not None and one.user != user:
            continue
        state = room.candidates.state_of(one.user)
        if room.may_enter(one.user, one.friends, one.admin):
            if state == "pending":
                room.place(one, "admitted", now, out)
        elif not by_invitation:
            room.drop_candidate(one.user, "refused", out)
        elif state != "pending":
            room.candidates.put("pending", replace(one, held_until=None))
            out.append(CandidateChanged(one.user, room.entry_of(one.user), "asked"))


def _entry(room: InstanceState, user: str) -> Entry:
    entry = room.candidates.entry_of(user)
    assert entry is not None
    return entry


def _ensure_may_be_new(room: InstanceState, user: str) -> None:
    if user in room.seats.users:
        raise AlreadyConnected
    if room.candidates.state_of(user) is not None:
        raise AlreadyCandidate


def _ensure_room_in_queue(room: InstanceState) -> None:
    if len(room.candidates) >= room.limits.candidates:
        raise Overloaded
