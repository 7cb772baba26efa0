"""The principal of a request, and its projections for each kind of rule.

| who needs it | type | made by |
|---|---|---|
| HTTP endpoints and sockets | `Principal` | `api.credentials.Auth`, from a credential |
| HTTP endpoints, for another server | `ServerPrincipal` | the same, from a server's token |
| the rules of an instance | `Visitor` | `Principal.as_visitor`, `Visitor.of` |
| the rules of a resource | `Claimant` | `Principal.as_claimant`, `Claimant.of` |
| events about records | `Viewer` | `Viewer.of` |

Each projection has only what its rules may know. A session's actor has no principal, because its
sockets may have different credentials: it makes the projections from its user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from reileta.errors import PermissionDenied
from reileta.ids import at
from reileta.records import Profile, User

_TEMPORARY: Final = "is temporary: set its username and password first"
FOR_EVER: Final = 2**63 - 1
"""A time, in ms, that never comes."""


def ensure_not_temporary(user: User) -> None:
    """Raises PermissionDenied for a temporary account."""
    if user.temporary:
        raise PermissionDenied.field("account", _TEMPORARY)


@dataclass(frozen=True, slots=True)
class Principal:
    """The user and session of an HTTP request or a WebSocket, as its credential proves them.

    `token_hash` is the token's id: the SHA-256 of its first access key; refreshing the token keeps
    it. The key that was presented is valid until `expires_at` (ms), and some key of the token until
    `token_expires`. `guest` marks a user of another server.
    """

    user: User
    session_id: str
    token_hash: bytes
    guest: bool = False
    expires_at: int = FOR_EVER
    token_expires: int = FOR_EVER

    @property
    def administers(self) -> bool:
        """Whether the principal is an admin of this server."""
        return self.user.admin and not self.guest

    def as_visitor(self, address: str, friends: frozenset[str] = frozenset()) -> Visitor:
        """The principal for the rules of instances; `address` is this server's `ServerAt`."""
        return Visitor.of(self.user, self.session_id, address, guest=self.guest, friends=friends)

    def as_claimant(self) -> Claimant:
        """The principal for the rules of resources."""
        return Claimant.of(self.user, self.session_id, admin=self.administers)


@dataclass(frozen=True, slots=True)
class ServerPrincipal:
    """Another server, as its token proves it.

    `address` is its canonical `ServerAt`. `token_id` is the public id of the token, which is valid
    until `expires_at` (ms).
    """

    address: str
    token_id: str
    expires_at: int = FOR_EVER


@dataclass(frozen=True, slots=True)
class Visitor:
    """A user's session, for the rules of an instance.

    `user` and `friends` are `UserIDAt`s, always with their server; a friend is a user who follows
    and is followed. `guest` is a user of another server, who never is an admin.
    """

    session: str
    user: str
    displayname: str
    admin: bool = False
    guest: bool = False
    friends: frozenset[str] = frozenset()
    username: str = field(default="", compare=False)
    """For the log."""

    @classmethod
    def of(
        cls,
        user: User,
        session: str,
        address: str,
        *,
        guest: bool = False,
        friends: frozenset[str] = frozenset(),
    ) -> Visitor:
        """A user of this server, whose `ServerAt` is `address`."""
        return cls(
            session=session,
            user=at(user.id, address),
            displayname=user.displayname,
            admin=user.admin,
            guest=guest,
            friends=friends,
            username=user.username,
        )

    @property
    def administers(self) -> bool:
        """Whether the visitor is an admin of the server."""
        return self.admin and not self.guest


@dataclass(frozen=True, slots=True)
class Claimant:
    """A session and its user (a bare id), for the rules of a resource."""

    session: str
    user: str
    admin: bool = False
    autopilot: bool = False

    @classmethod
    def of(cls, user: User, session: str = "", *, admin: bool | None = None) -> Claimant:
        """A user's session; "": no session in particular. `admin` None: as the user is one."""
        return cls(session, user.id, user.admin if admin is None else admin, user.autopilot)


@dataclass(frozen=True, slots=True)
class Viewer:
    """A user (a bare id) to whom events show a record.

    `friends`: its friends' ids, with the time (ms) since which it has followed each.
    """

    user: str
    admin: bool
    friends: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, user: User, profile: Profile) -> Viewer:
        """A user, with its profile."""
        return cls(user.id, user.admin, profile.friends)
