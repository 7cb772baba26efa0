"""Roles inside an instance, and who may moderate whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from reileta.rules.identity import Visitor

Role = Literal["owner", "admin", "master", "moderator", "normal"]
"""From the highest down: each may moderate lower roles, and none may moderate its own."""

_RANK: Final[dict[str, int]] = {role: -at for at, role in enumerate(get_args(Role))}


def outranks(role: Role, other: Role) -> bool:
    """Whether a role may moderate another."""
    return _RANK[role] > _RANK[other]


class Roles:
    """The roles of one instance, by user: all sessions of a user share its role.

    The master is the user who has been inside longest without a break. If the owner transfers the
    role, it is that user, until it leaves. A user in its grace period is still inside, so a short
    loss of the socket does not end the role. Guests have no role in what they don't own: none of
    them is an admin, the master or a moderator.

    Users are `UserIDAt`s.
    """

    def __init__(self, owner: str, moderators: Iterable[str] = ()) -> None:
        self.owner = owner
        self.master: str | None = None
        self.moderators: dict[str, None] = dict.fromkeys(moderators)  # in order of appointment
        self._admins: set[str] = set()
        self._guests: set[str] = set()

    def entered(self, who: Visitor) -> None:
        """A user enters; stores whether it is an admin of the server, or a guest."""
        self.administers(who.user, admin=who.administers)
        if who.guest:
            self._guests.add(who.user)

    def administers(self, user: str, *, admin: bool) -> None:
        """Stores whether a user inside is now an admin of the server."""
        if admin:
            self._admins.add(user)
        else:
            self._admins.discard(user)

    def went(self, user: str) -> None:
        """The last player of a user left; a moderator stays appointed."""
        self._admins.discard(user)
        self._guests.discard(user)
        if self.master == user:
            self.master = None

    def elect(self, inside: Iterable[str]) -> None:
        """If there is no master, makes the user who has been inside longest the master."""
        if self.master is None:
            self.master = next((user for user in inside if self.may_lead(user)), None)

    def may_lead(self, user: str) -> bool:
        """Whether a user inside can be the master."""
        return user not in self._guests or user == self.owner

    def of(self, user: str) -> Role:
        """The highest role of a user; `normal` for an unknown user."""
        return self._of(user, admin=user in self._admins, guest=user in self._guests)

    def of_visitor(self, who: Visitor) -> Role:
        """The highest role of a visitor, inside or not.

        Whether it is an admin comes from the visitor itself, since this may have changed since it
        entered.
        """
        return self._of(who.user, admin=who.administers, guest=who.guest)

    def _of(self, user: str, *, admin: bool, guest: bool) -> Role:
        if user == self.owner:
            return "owner"
        if guest:
            return "normal"
        if admin:
            return "admin"
        if user == self.master:
            return "master"
        return "moderator" if user in self.moderators else "normal"
