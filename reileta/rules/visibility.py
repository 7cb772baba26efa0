"""Who may see a thing: the one rule for worlds, instances and resources.

Each thing has an audience. A thing is judged by its audience before anything else is: permission,
state, version, capacity and holder come later. To a user outside the audience, the answer is the
same as for a thing that does not exist. After a change, the audience is judged again before the
thing is shown.

| thing | audience, beside the server's admins |
|---|---|
| public world | everyone |
| private world | its owner, and users it is shared with |
| instance that is not private | everyone who has its id or name |
| private instance | its owner, its moderators, and users inside (the master is one of them) |
| document | its owner, and users it is shared with |

Lists and events name things unasked, so they are narrower: `instance_news`. The same rules stand as
SQL in `reileta/store/visibility.py`.

An invitation or a friend gives no sight of a private instance, because it gives no entry. A banned
user sees an instance that is not private, and is told of the ban.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from dataclasses import dataclass
from typing import Final

from reileta.rules.instance.access import PRIVATE, PUBLIC, AccessTag


@dataclass(frozen=True, slots=True)
class Audience:
    """The users who may see a thing. `circles` are sets of users; None means everyone.

    All users stand in one form: either all as bare ids, or all as `UserIDAt`s.
    """

    circles: tuple[Collection[str], ...] | None

    def admits(self, user: str | None, *, admin: bool = False) -> bool:
        """Whether a user may see the thing.

        Args:
            user: who looks; None for somebody who is not logged in.
            admin: whether the user is an admin of this server (a guest never is).
        """
        if self.circles is None or admin:
            return True
        return user is not None and any(user in circle for circle in self.circles)

    def frozen(self) -> Audience:
        """The same users for good, also when the circles change."""
        if self.circles is None:
            return self
        return Audience((frozenset().union(*self.circles),))


EVERYONE: Final = Audience(None)


def is_private(tags: Container[str]) -> bool:
    """Whether these are the tags of a private world."""
    return PRIVATE in tags


def of_world(owner: str, tags: Container[str], shares: Collection[str]) -> Audience:
    """Who may see a world. `shares` are the users it is shared with; they matter if it is
    private."""
    return of_owned(owner, shares) if is_private(tags) else EVERYONE


def of_owned(owner: str, shares: Collection[str]) -> Audience:
    """Who may see, or use, a thing that is its owner's."""
    return Audience(((owner,), shares))


def of_instance(
    access: AccessTag, *, owner: str, moderators: Collection[str], inside: Collection[str]
) -> Audience:
    """Who may see an instance by its id or name. `moderators` and `inside` matter if it is
    private."""
    if access != PRIVATE:
        return EVERYONE
    return Audience(((owner,), moderators, inside))


def instance_news(access: AccessTag, *, owner: str, inside: Collection[str]) -> Audience:
    """Who finds an instance in lists and hears of it in events."""
    return EVERYONE if access == PUBLIC else Audience(((owner,), inside))


def instance_oversight(*, owner: str, master: str | None, moderators: Collection[str]) -> Audience:
    """Who sees all of an instance's queue and moderation."""
    return Audience(((owner, *moderators) if master is None else (owner, master, *moderators),))
