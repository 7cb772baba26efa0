"""Visibility: who may see a world, an instance or a resource.

Each object has an audience, which is checked before anything else: permission, state, version,
capacity and holder come later. A user outside the audience gets the same answer as for an object
that does not exist. After a change, the audience is checked again before the object is shown.

| object | audience, besides the server's admins |
|---|---|
| public world | everyone |
| private world | its owner, and users it is shared with |
| instance that is not private | everyone who has its id or name |
| private instance | its owner, its moderators, and users inside (the master is one of them) |
| document | its owner, and users it is shared with |

Lists and events show objects unasked, so their audience is smaller: `instance_news`.
`reileta/store/visibility.py` has the same rules in SQL.

An invitation or a friend does not make a private instance visible, because it does not let the user
in. A banned user sees an instance that is not private, and gets the error about the ban.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass
from typing import Final

from reileta.rules.instance.access import PRIVATE, PUBLIC, AccessTag


@dataclass(frozen=True, slots=True)
class Audience:
    """The users who may see an object. `circles` are sets of users; None means everyone.

    All users have one form: either bare ids, or `UserIDAt`s.
    """

    circles: tuple[Collection[str], ...] | None

    def admits(self, user: str | None, *, admin: bool = False) -> bool:
        """Whether a user may see the object.

        Args:
            user: the viewer; None: nobody is logged in.
            admin: whether the user is an admin of this server (a guest never is).
        """
        if self.circles is None or admin:
            return True
        return user is not None and any(user in circle for circle in self.circles)

    def frozen(self) -> Audience:
        """The same users as a copy that does not change with the circles."""
        if self.circles is None:
            return self
        return Audience((frozenset().union(*self.circles),))


EVERYONE: Final = Audience(None)


def is_private(tags: Container[str]) -> bool:
    """Whether these are the tags of a private world."""
    return PRIVATE in tags


def of_world(owner: str, tags: Container[str], shares: Collection[str]) -> Audience:
    """The users who may see a world. `shares`: those it is shared with; used if it is private."""
    return of_owned(owner, shares) if is_private(tags) else EVERYONE


def of_owned(owner: str, shares: Collection[str]) -> Audience:
    """The users who may see, or use, an object that belongs to its owner."""
    return Audience(((owner,), shares))


def of_instance(
    access: AccessTag, *, owner: str, moderators: Collection[str], inside: Collection[str]
) -> Audience:
    """The users who may see an instance by its id or name. `moderators` and `inside` are only used
    if it is private."""
    if access != PRIVATE:
        return EVERYONE
    return Audience(((owner,), moderators, inside))


def instance_news(access: AccessTag, *, owner: str, inside: Collection[str]) -> Audience:
    """The users who find an instance in lists and get its events."""
    return EVERYONE if access == PUBLIC else Audience(((owner,), inside))


def instance_oversight(*, owner: str, master: str | None, moderators: Collection[str]) -> Audience:
    """The users who see the whole queue and moderation of an instance."""
    return Audience(((owner, *moderators) if master is None else (owner, master, *moderators),))
