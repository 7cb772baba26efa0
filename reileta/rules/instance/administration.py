"""Administration and moderation: actions of owner, admins, master and moderators.

Functions of an `InstanceState`, which `Instance` offers as its methods.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from reileta.errors import (
    InstanceInvalid,
    NotAllowed,
    NotInInstance,
    PermissionDenied,
    PlayerNotFound,
    UserNotFound,
)
from reileta.ids import is_user_at
from reileta.records import UNSET, Ban, InstanceChanges
from reileta.records import Instance as Record
from reileta.rules import tags
from reileta.rules.identity import Visitor
from reileta.rules.instance import access, sanctions
from reileta.rules.instance.events import (
    AdminChanged,
    BannedUser,
    Happening,
    Muted,
    RoleChanged,
    Unbanned,
    Unmuted,
    Updated,
    Warned,
)
from reileta.rules.instance.queueing import reconsider
from reileta.rules.instance.roles import outranks
from reileta.rules.instance.sanctions import Mute
from reileta.rules.instance.state import InstanceState

CAPACITY_LIMIT: Final = 1024


def transfer_master(room: InstanceState, by: Visitor, to: str, now: int) -> list[Happening]:
    """The owner makes a user or player inside the master.

    Raises:
        NotAllowed: `by` is not the owner.
        PlayerNotFound: the target is not inside.
    """
    _ensure_owner(room, by)
    user = _target_user(room, to)
    if user not in room.seats.users:
        raise PlayerNotFound
    room.roles.master = user
    return room.settle(now, [])


def add_moderator(room: InstanceState, by: Visitor, user: str, now: int) -> list[Happening]:
    """The owner appoints a moderator, inside or not, until the owner removes it.

    Raises:
        NotAllowed: `by` is not the owner.
        UserNotFound: `user` is not a `UserIDAt`.
        InstanceInvalid: there are too many moderators.
    """
    _ensure_owner(room, by)
    if not is_user_at(user):
        raise UserNotFound
    if user in room.roles.moderators:
        return []
    if len(room.roles.moderators) >= room.limits.moderators:
        raise InstanceInvalid.field(
            "moderators", f"exceed the limit of {room.limits.moderators} per instance"
        )
    room.roles.moderators[user] = None
    return room.settle(now, [RoleChanged(user, room.roles.of(user), by.user)])


def remove_moderator(room: InstanceState, by: Visitor, user: str, now: int) -> list[Happening]:
    """The owner removes a moderator; a user who is not a moderator is not an error.

    Raises:
        NotAllowed: `by` is not the owner.
    """
    _ensure_owner(room, by)
    if user not in room.roles.moderators:
        return []
    del room.roles.moderators[user]
    return room.settle(now, [RoleChanged(user, room.roles.of(user), by.user)])


def moderate(
    room: InstanceState,
    by: Visitor,
    target: str,
    type_: str,
    reason: str | None,
    until: int | None,
    now: int,
    *,
    admin: bool,
) -> list[Happening]:
    """Kicks, bans, unbans, mutes, unmutes or warns a user, by user or player id.

    `admin`: the server knows that the target is an admin, whether it is inside or not.

    The action applies to the user with all its sessions. A kick also ends its candidacy and
    invitation, but the user can join again if the access allows it. A ban ends them and keeps the
    user out (except for server admins), whether it is inside or not. Unban and unmute of a user who
    is neither are not errors.

    Raises:
        InstanceNotFound: the instance is closed.
        ModerationInvalid: type, reason or `until` is wrong, or there are too many bans or mutes.
        NotInInstance: `by` is not inside, nor owner, admin or moderator.
        NotAllowed: the target's role is not lower than that of `by`.
        PlayerNotFound: a user to kick, mute or warn is not inside, or there is no such player.
        UserNotFound: a user to ban is not a `UserIDAt`.
    """
    room.ensure_open()
    measure = sanctions.check(type_, reason, until, now)
    role = room.roles.of_visitor(by)
    if role == "normal":
        raise NotAllowed if by.user in room.seats.users else NotInInstance
    user = _target_user(room, target)
    of_target = room.roles.of(user)
    if admin and outranks("admin", of_target):
        of_target = "admin"
    if not outranks(role, of_target) or user == by.user:
        raise NotAllowed
    inside = user in room.seats.users
    out: list[Happening] = []
    match measure:
        case "kick":
            if not inside and room.candidates.state_of(user) is None:
                raise PlayerNotFound
            room.expel(user, "kicked", reason, out)
        case "ban":
            if not is_user_at(user):
                raise UserNotFound
            ban = Ban(room.record.id, user, until, reason, by.user, now)
            room.moderation.ban(ban)
            out.append(BannedUser(ban, room.audience.admits(user)))
            if user in room.roles.moderators:  # otherwise it could moderate from outside
                del room.roles.moderators[user]
                out.append(RoleChanged(user, "normal", by.user))
            room.expel(user, "banned", reason, out)
        case "unban":
            if room.moderation.bans.pop(user, None) is not None:
                out.append(Unbanned(user, by.user))
        case "mute":
            if not inside:
                raise PlayerNotFound
            room.moderation.mute(Mute(user, until))
            room.audible.difference_update(one.id for one in room.seats.of_user(user))
            out.append(Muted(user, until, reason, by.user))
        case "unmute":
            if room.moderation.mutes.pop(user, None) is not None:
                room.audible.update(one.id for one in room.seats.of_user(user))
                out.append(Unmuted(user, by.user))
        case "warn":
            if not inside:
                raise PlayerNotFound
            out.append(Warned(user, reason, by.user))
    return room.settle(now, out)


def plan(room: InstanceState, by: Visitor, changes: InstanceChanges) -> Record:
    """The record as `update` would make it now; changes nothing.

    Raises:
        InstanceNotFound: the instance is closed.
        PermissionDenied: `by` may not change it, or may not set one of the tags.
        InstanceInvalid: the capacity is out of range or below the occupied seats; tags exclude
            each other.
        TagUnknown: a tag is unknown.
    """
    room.ensure_open()
    ensure_governs(room, by)
    before = room.record
    capacity = before.capacity if changes.capacity is UNSET else changes.capacity
    if not 1 <= capacity <= CAPACITY_LIMIT:
        raise InstanceInvalid.field("capacity", f"must be 1 to {CAPACITY_LIMIT}")
    if capacity < before.capacity and capacity < room.taken:
        raise InstanceInvalid.field(
            "capacity", f"must be at least {room.taken}, the number of occupied seats"
        )
    return replace(
        before,
        title=before.title if changes.title is UNSET else changes.title,
        description=(before.description if changes.description is UNSET else changes.description),
        capacity=capacity,
        tags=before.tags
        if changes.tags is UNSET
        else tags.INSTANCE_TAGS.settle(changes.tags, admin=by.administers, before=before.tags),
    )


def update(
    room: InstanceState, by: Visitor, changes: InstanceChanges, now: int
) -> tuple[Record, list[Happening]]:
    """The owner or an admin changes the record. More capacity admits waiting candidates at once.

    If the access tag changes, candidates who may no longer enter wait for an invitation, if the new
    tag has invitations, or are refused; players stay. Raises the errors of `plan`.
    """
    before = room.record
    record = plan(room, by, changes)
    if record == before:
        return before, []
    access_changed = room.access != access.access_of(record.tags)
    room.record = replace(record, updated_at=now)
    out: list[Happening] = [Updated(room.record)]
    if access_changed:
        reconsider(room, now, out)
    return room.record, room.settle(now, out)


def reassign_owner(
    room: InstanceState, owner: str, owner_at: str, now: int
) -> tuple[Record, list[Happening]]:
    """The owner's account was deleted: the instance gets a new owner.

    `owner` is the reference for the record, `owner_at` a `UserIDAt`. Candidates who were admitted
    as friends of the former owner wait.
    """
    room.roles.moderators.pop(owner_at, None)
    room.roles.owner = owner_at
    room.record = replace(room.record, owner=owner, updated_at=now)
    out: list[Happening] = [Updated(room.record)]
    reconsider(room, now, out)
    return room.record, room.settle(now, out)


def administers(room: InstanceState, user: str, admin: bool, now: int) -> list[Happening]:
    """The server reports whether a user is an admin, which may be a change.

    Inside, the user's role changes. A user who is no longer an admin stays inside, unless it is
    banned; a candidate is checked again.
    """
    if room.closed:
        return []
    out: list[Happening] = []
    if user in room.seats.users:
        before = room.roles.of(user)
        room.roles.administers(user, admin=admin)
        role = room.roles.of(user)
        if role != before:
            out.append(AdminChanged(user, role))
    news = room.candidates.administers(user, admin=admin)
    ban = room.moderation.bans.get(user)
    if ban is not None and not admin and user != room.owner and room.moderation.banned(user, now):
        room.expel(user, "banned", ban.reason, out)
    elif news:
        reconsider(room, now, out, user=user)
    return room.settle(now, out)


def close(room: InstanceState, by: Visitor | None) -> list[Happening]:
    """The owner, an admin, or the server itself (None) closes the instance.

    Closing it again is not an error.

    Raises:
        PermissionDenied: `by` may not.
    """
    if by is not None:
        ensure_governs(room, by)
    return [] if room.closed else room.end("closed")


def _target_user(room: InstanceState, target: str) -> str:
    """The user of a target, which is a user id or the id of a player inside."""
    player = room.seats.players.get(target)
    if player is not None:
        return player.user
    if target.startswith("p_"):
        raise PlayerNotFound
    return target


def _ensure_owner(room: InstanceState, by: Visitor) -> None:
    room.ensure_open()
    if by.user != room.owner:
        raise NotAllowed


def ensure_governs(room: InstanceState, by: Visitor) -> None:
    """Raises PermissionDenied unless `by` may change and close the instance."""
    if by.user != room.owner and not by.administers:
        raise PermissionDenied
