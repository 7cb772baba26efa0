"""Who is what inside an instance, and who may moderate whom (PROTOCOL §6, "Roles")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from reileta.rules.identity import Visitor

Role = Literal["owner", "admin", "master", "moderator", "normal"]
"""From the highest down: each may moderate those below, and nobody of its own rank."""

_RANK: Final[dict[str, int]] = {role: -at for at, role in enumerate(get_args(Role))}


def outranks(role: Role, other: Role) -> bool:
    """Whether a role may moderate another."""
    return _RANK[role] > _RANK[other]


class Roles:
    """The roles of one instance, by user: all sessions of a user share its role.

    The master is the user that has been inside longest without a break, unless the owner handed
    mastership over; then it is that user, until it leaves. A user in its grace is still inside, so
    a short loss of the socket costs nobody the mastership.

    Users are `UserIDAt`s.
    """

    def __init__(self, owner: str, moderators: Iterable[str] = ()) -> None:
        self.owner = owner
        self.master: str | None = None
        self.moderators: dict[str, None] = dict.fromkeys(moderators)  # in the order of their naming
        self._admins: set[str] = set()

    def entered(self, who: Visitor) -> None:
        """Notes what the server says of a user that comes inside."""
        self.administers(who.user, admin=who.administers)

    def administers(self, user: str, *, admin: bool) -> None:
        """Notes what the server says now of a user that is inside."""
        if admin:
            self._admins.add(user)
        else:
            self._admins.discard(user)

    def went(self, user: str) -> None:
        """Forgets a user whose last player is gone; a moderator stays named."""
        self._admins.discard(user)
        if self.master == user:
            self.master = None

    def elect(self, inside: Iterable[str]) -> None:
        """Fills the mastership, if nobody has it, from the users inside, longest first."""
        if self.master is None:
            self.master = next(iter(inside), None)

    def of(self, user: str) -> Role:
        """The highest role of a user; one of whom nothing is known is `normal`."""
        return self._of(user, admin=user in self._admins)

    def of_visitor(self, who: Visitor) -> Role:
        """The highest role of one who asks, inside or not. Whether it is an admin is what the
        server says now: it may have become one, or be one no more, since it came inside."""
        return self._of(who.user, admin=who.administers)

    def _of(self, user: str, *, admin: bool) -> Role:
        if user == self.owner:
            return "owner"
        if admin:
            return "admin"
        if user == self.master:
            return "master"
        return "moderator" if user in self.moderators else "normal"
