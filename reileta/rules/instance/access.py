"""Access to an instance: who may enter by its access tag.

| tag | may join, besides the owner and the server's admins |
|---|---|
| `avr:public` | anyone |
| `avr:friends_plus` | friends of anyone inside; friends of the owner (as with `friends_only`) |
| `avr:friends_only` | friends of the owner or master |
| `avr:invite_plus` | users invited by anyone inside, the owner or the master |
| `avr:invite_only` | users invited by the owner or master |
| `avr:private` | nobody |

A `plus` tag always includes the tag without it, so a friend of the owner can open an empty
`friends_plus` instance. Bans are checked separately, in `reileta/rules/instance/sanctions.py`; a
banned friend stays out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final, Literal, get_args

AccessTag = Literal[
    "avr:public",
    "avr:friends_plus",
    "avr:friends_only",
    "avr:invite_plus",
    "avr:invite_only",
    "avr:private",
]

PUBLIC: Final = "avr:public"
FRIENDS_PLUS: Final = "avr:friends_plus"
FRIENDS_ONLY: Final = "avr:friends_only"
INVITE_PLUS: Final = "avr:invite_plus"
INVITE_ONLY: Final = "avr:invite_only"
PRIVATE: Final = "avr:private"

ACCESS_TAGS: Final[tuple[AccessTag, ...]] = get_args(AccessTag)
BY_INVITATION: Final = frozenset({INVITE_PLUS, INVITE_ONLY})
"""The access tags under which a candidate may wait for an invitation."""
BY_FRIENDS: Final = frozenset({FRIENDS_PLUS, FRIENDS_ONLY})
"""The access tags for which a visitor's friends matter."""


def access_of(tags: Iterable[str]) -> AccessTag:
    """The access tag among an instance's tags; the strictest if there is none or several.

    Stored tags always have exactly one (`reileta/rules/tags.py`). If a row is wrong, its instance
    is closed to strangers rather than open to them.
    """
    found: AccessTag = PRIVATE
    count = 0
    for tag in ACCESS_TAGS:
        if tag in tags:
            found = tag
            count += 1
    return found if count <= 1 else PRIVATE


def may_enter(
    access: AccessTag,
    *,
    user: str,
    friends: frozenset[str],
    admin: bool,
    owner: str,
    master: str | None,
    inside: Iterable[str],
    invited: Literal["by-leader", "by-member"] | None,
) -> bool:
    """Whether the access tag lets a user in, regardless of seats and bans.

    Args:
        user: `UserIDAt`, as are `friends`, `owner`, `master` and `inside`.
        inside: the users inside now, including those in their grace period.
        invited: by the owner, the master or an admin (`by-leader`), by another user inside
            (`by-member`), or not at all.
    """
    if admin or user == owner:
        return True
    match access:
        case "avr:public":
            return True
        case "avr:friends_plus":
            return owner in friends or not friends.isdisjoint(inside)
        case "avr:friends_only":
            return owner in friends or (master is not None and master in friends)
        case "avr:invite_plus":
            return invited is not None
        case "avr:invite_only":
            return invited == "by-leader"
        case "avr:private":
            return False


def may_invite(
    access: AccessTag,
    *,
    user: str,
    admin: bool,
    owner: str,
    master: str | None,
    inside: Container[str],
) -> bool:
    """Whether a user may invite and admit candidates; nobody may if the tag needs no invitation."""
    if access not in BY_INVITATION:
        return False
    if admin or user in (owner, master):
        return True
    return access == INVITE_PLUS and user in inside
