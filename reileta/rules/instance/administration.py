"""Administration and moderation: actions of owner, admins, master and moderators.

A part of `Instance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

from reileta.errors import (
    GuestNotAllowed,
    InstanceInvalid,
    ModerationInvalid,
    NotAllowed,
    NotInInstance,
    PermissionDenied,
    PlayerNotFound,
    UserNotFound,
)
from reileta.ids import all_of, banned_server, is_user_at, server_of
from reileta.records import UNSET, Ban, InstanceChanges, InstanceRecord
from reileta.rules import tags
from reileta.rules.federation.addresses import covers
from reileta.rules.identity import Visitor
from reileta.rules.instance import access, sanctions
from reileta.rules.instance.admission import Admission
from reileta.rules.instance.events import (
    AdminChanged,
    BannedUser,
    InstanceEvent,
    Muted,
    Renamed,
    RoleChanged,
    Unbanned,
    Unmuted,
    Updated,
    Warned,
)
from reileta.rules.instance.roles import outranks
from reileta.rules.instance.sanctions import ModerationAction, Mute

CAPACITY_LIMIT: Final = 1024


class Administration(Admission):
    """The rules of roles, moderation, changes and the end."""

    def transfer_master(self, by: Visitor, to: str, now: int) -> list[InstanceEvent]:
        """The owner makes a user or player inside the master.

        Raises:
            NotAllowed: `by` is not the owner.
            PlayerNotFound: the target is not inside.
            GuestNotAllowed: it is a guest.
        """
        self._ensure_owner(by)
        user = self._target_user(to)
        if user not in self.seats.users:
            raise PlayerNotFound
        if not self.roles.may_lead(user):
            raise GuestNotAllowed
        self.roles.master = user
        return self.apply_consequences(now, [])

    def add_moderator(
        self, by: Visitor, user: str, now: int, *, guest: bool = False
    ) -> list[InstanceEvent]:
        """The owner appoints a moderator, inside or not, until the owner removes it.

        `guest`: it is a user of another server.

        Raises:
            NotAllowed: `by` is not the owner.
            UserNotFound: `user` is not a `UserIDAt`.
            GuestNotAllowed: it is a guest.
            InstanceInvalid: there are too many moderators.
        """
        self._ensure_owner(by)
        if not is_user_at(user):
            raise UserNotFound
        if guest:
            raise GuestNotAllowed
        if user in self.roles.moderators:
            return []
        if len(self.roles.moderators) >= self.limits.moderators:
            raise InstanceInvalid.field(
                "moderators", f"exceed the limit of {self.limits.moderators} per instance"
            )
        self.roles.moderators[user] = None
        self._prefer(user)
        return self.apply_consequences(now, [RoleChanged(user, self.roles.of(user), by.user)])

    def remove_moderator(self, by: Visitor, user: str, now: int) -> list[InstanceEvent]:
        """The owner removes a moderator; a user who is not a moderator is not an error.

        Raises:
            NotAllowed: `by` is not the owner.
        """
        self._ensure_owner(by)
        if user not in self.roles.moderators:
            return []
        del self.roles.moderators[user]
        self._prefer(user)
        return self.apply_consequences(now, [RoleChanged(user, self.roles.of(user), by.user)])

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
    ) -> list[InstanceEvent]:
        """Kicks, bans, unbans, mutes, unmutes or warns a user, by user or player id; bans or unbans
        a server, by `*@server`.

        `admin`: the server knows that the target is an admin, whether it is inside or not.

        The action applies to the user with all its sessions. A kick also ends its candidacy and
        invitation, but the user can join again if the access allows it. A ban ends them and keeps
        the user out (except for server admins), whether it is inside or not. Unban and unmute of a
        user who is neither are not errors. A ban of a server does to all its users what a ban does
        to one, except to the owner.

        Raises:
            InstanceNotFound: the instance is closed.
            GuestNotAllowed: `by` is a guest, and not the owner.
            ModerationInvalid: type, reason or `until` is wrong; or too many bans or mutes.
            NotInInstance: `by` is not inside, nor owner, admin or moderator.
            NotAllowed: the target's role is not lower than that of `by`.
            PlayerNotFound: a user to kick, mute or warn is not inside, or there is no such player.
            UserNotFound: a user to ban is not a `UserIDAt`.
        """
        self.ensure_open()
        self.ensure_hosts(by)
        action = sanctions.check(type_, reason, until, now)
        role = self.roles.of_visitor(by)
        if role == "normal":
            raise NotAllowed if by.user in self.seats.users else NotInInstance
        server = banned_server(target)
        if server is not None:
            return self._moderate_server(by, server, action, reason, until, now)
        user = self._target_user(target)
        of_target = self.roles.of(user)
        if admin and outranks("admin", of_target):
            of_target = "admin"
        if not outranks(role, of_target) or user == by.user:
            raise NotAllowed
        inside = user in self.seats.users
        out: list[InstanceEvent] = []
        match action:
            case "kick":
                if not inside and self.candidates.state_of(user) is None:
                    raise PlayerNotFound
                self.expel(user, "kicked", reason, out)
            case "ban":
                if not is_user_at(user):
                    raise UserNotFound
                ban = Ban(self.record.id, user, until, reason, by.user, now)
                self.moderation.ban(ban)
                out.append(BannedUser(ban, self.audience.admits(user)))
                if user in self.roles.moderators:  # otherwise it could moderate from outside
                    del self.roles.moderators[user]
                    out.append(RoleChanged(user, "normal", by.user))
                self.expel(user, "banned", reason, out)
            case "unban":
                if self.moderation.unban(user):
                    out.append(Unbanned(user, by.user))
            case "mute":
                if not inside:
                    raise PlayerNotFound
                self.moderation.mute(Mute(user, until, reason=reason, by=by.user, created_at=now))
                self.audible.difference_update(one.id for one in self.seats.of_user(user))
                out.append(Muted(user, until, reason, by.user, now))
            case "unmute":
                if self.moderation.mutes.pop(user, None) is not None:
                    self.audible.update(one.id for one in self.seats.of_user(user))
                    out.append(Unmuted(user, by.user))
            case "warn":
                if not inside:
                    raise PlayerNotFound
                out.append(Warned(user, reason, by.user))
        return self.apply_consequences(now, out)

    def _moderate_server(
        self,
        by: Visitor,
        server: str,
        action: ModerationAction,
        reason: str | None,
        until: int | None,
        now: int,
    ) -> list[InstanceEvent]:
        """Bans or unbans all users of a server, and of those below its host."""
        target = all_of(server)
        out: list[InstanceEvent] = []
        if action == "unban":
            if self.moderation.unban(target):
                out.append(Unbanned(target, by.user))
        elif action == "ban":
            ban = Ban(self.record.id, target, until, reason, by.user, now)
            self.moderation.ban(ban)
            out.append(BannedUser(ban, False))
            self._expel_all(lambda one: covers(server, one), "banned", reason, out)
        else:
            raise ModerationInvalid.field("server", "can only be banned and unbanned")
        return self.apply_consequences(now, out)

    def exclude(self, servers: frozenset[str], now: int) -> list[InstanceEvent]:
        """This server has nothing to do with some others any more: their users leave, with their
        candidacies and invitations."""
        if self.closed:
            return []
        out: list[InstanceEvent] = []
        self._expel_all(lambda one: one in servers, "server-blocked", None, out)
        return self.apply_consequences(now, out)

    def _expel_all(
        self,
        of: Callable[[str], bool],
        reason: Literal["banned", "server-blocked"],
        note: str | None,
        out: list[InstanceEvent],
    ) -> None:
        """Removes all users of the servers that `of` admits; a ban spares the owner."""
        users = (*self.seats.users, *self.candidates.users(), *self.invited)
        for user in dict.fromkeys(users):
            server = server_of(user)
            spared = user == self.owner and reason == "banned"
            if server is not None and not spared and of(server):
                self.expel(user, reason, note, out)

    def plan(self, by: Visitor, changes: InstanceChanges) -> InstanceRecord:
        """The record as `update` would make it now; changes nothing.

        Raises:
            InstanceNotFound: the instance is closed.
            GuestNotAllowed: `by` is a guest, and not the owner.
            PermissionDenied: `by` may not change it, or may not set one of the tags.
            InstanceInvalid: the capacity is out of range or below the occupied seats; tags exclude
                each other.
            TagUnknown: a tag is unknown.
        """
        self.ensure_open()
        self.ensure_governs(by)
        before = self.record
        capacity = before.capacity if changes.capacity is UNSET else changes.capacity
        if not 1 <= capacity <= CAPACITY_LIMIT:
            raise InstanceInvalid.field("capacity", f"must be 1 to {CAPACITY_LIMIT}")
        if capacity < before.capacity and capacity < self.taken:
            raise InstanceInvalid.field(
                "capacity", f"must be at least {self.taken}, the number of occupied seats"
            )
        return replace(
            before,
            title=before.title if changes.title is UNSET else changes.title,
            description=(
                before.description if changes.description is UNSET else changes.description
            ),
            capacity=capacity,
            tags=before.tags
            if changes.tags is UNSET
            else tags.INSTANCE_TAGS.resolve(changes.tags, admin=by.administers, before=before.tags),
        )

    def update(
        self, by: Visitor, changes: InstanceChanges, now: int
    ) -> tuple[InstanceRecord, list[InstanceEvent]]:
        """The owner or an admin changes the record. More capacity admits waiting candidates at
        once.

        If the access tag changes, candidates who may no longer enter wait for an invitation, if the
        new tag has invitations, or are refused; players stay. Raises the errors of `plan`.
        """
        before = self.record
        record = self.plan(by, changes)
        if record == before:
            return before, []
        access_changed = self.access != access.access_of(record.tags) or self.no_guests != (
            tags.NO_GUESTS in record.tags
        )
        self.record = replace(record, updated_at=now)
        out: list[InstanceEvent] = [Updated(self.record)]
        if access_changed:
            self._reconsider(now, out)
        return self.record, self.apply_consequences(now, out)

    def reassign_owner(
        self, owner: str, owner_at: str, now: int
    ) -> tuple[InstanceRecord, list[InstanceEvent]]:
        """The owner's account was deleted: the instance gets a new owner.

        `owner` is the reference for the record, `owner_at` a `UserIDAt`. Candidates who were
        admitted as friends of the former owner wait.
        """
        self.roles.moderators.pop(owner_at, None)
        before, self.roles.owner = self.roles.owner, owner_at
        self._prefer(before)
        self._prefer(owner_at)
        self.record = replace(self.record, owner=owner, updated_at=now)
        out: list[InstanceEvent] = [Updated(self.record)]
        self._reconsider(now, out)
        return self.record, self.apply_consequences(now, out)

    def administers(self, user: str, admin: bool, now: int) -> list[InstanceEvent]:
        """The server reports whether a user is an admin, which may be a change.

        Inside, the user's role changes. A user who is no longer an admin stays inside, unless it is
        banned; a candidate is checked again.
        """
        if self.closed:
            return []
        out: list[InstanceEvent] = []
        if user in self.seats.users:
            before = self.roles.of(user)
            self.roles.administers(user, admin=admin)
            role = self.roles.of(user)
            if role != before:
                out.append(AdminChanged(user, role))
        news = self.candidates.administers(user, admin=admin)
        self._prefer(user)
        ban = self.moderation.bans.get(user)
        if (
            ban is not None
            and not admin
            and user != self.owner
            and self.moderation.banned(user, now)
        ):
            self.expel(user, "banned", ban.reason, out)
        elif news:
            self._reconsider(now, out, user=user)
        return self.apply_consequences(now, out)

    def rename(self, user: str, displayname: str, now: int) -> list[InstanceEvent]:
        """The server reports the display name of a user, which may be a change."""
        out: list[InstanceEvent] = []
        for before in self.seats.of_user(user):
            if before.displayname != displayname:
                player = replace(before, displayname=displayname)
                self.seats.replace(player)
                out.append(Renamed(player))
        return self.apply_consequences(now, out)

    def close(self, by: Visitor | None, now: int) -> list[InstanceEvent]:
        """The owner, an admin, or the server itself (None) closes the instance.

        Closing it again is not an error.

        Raises:
            PermissionDenied: `by` may not.
        """
        if by is not None:
            self.ensure_governs(by)
        return [] if self.closed else self.end("closed")

    def _prefer(self, user: str) -> None:
        """The role of a user changed: its place in the queue follows."""
        one = self.candidates.get(user)
        if one is not None:
            self.candidates.prefer(user, precedes=self.precedes(user, admin=one.admin))

    def _target_user(self, target: str) -> str:
        """The user of a target, which is a user id or the id of a player inside."""
        player = self.seats.players.get(target)
        if player is not None:
            return player.user
        if target.startswith("p_"):
            raise PlayerNotFound
        return target

    def _ensure_owner(self, by: Visitor) -> None:
        self.ensure_open()
        self.ensure_hosts(by)
        if by.user != self.owner:
            raise NotAllowed

    def ensure_governs(self, by: Visitor) -> None:
        """Raises PermissionDenied unless `by` may change and close the instance; GuestNotAllowed if
        it is a guest."""
        self.ensure_hosts(by)
        if by.user != self.owner and not by.administers:
            raise PermissionDenied
