"""What the database keeps, as values. Times are integer milliseconds since 1970 UTC.

`UserRef`s (`owner`, `by`, …) are `UserIDAt`s only for users of other servers; a user of this server
stands with its bare id, so that the server's address can change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Final, Generic, TypeAlias, TypeVar

from reileta.rules.resource.json_values import Json

ADMIN_TAG: Final = "avr:admin"
"""The tag of a user that administers the server; only admins give it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list: `items` from `offset` on, of `total` in all."""

    items: tuple[T, ...]
    total: int
    limit: int
    offset: int


@dataclass(frozen=True, slots=True)
class User:
    """An account (R `User`, S `User`). `number` is S's integer id."""

    id: str
    number: int
    username: str
    displayname: str
    description: str | None
    email: str | None
    status: str
    tags: frozenset[str]
    autopilot: bool
    home: str | None
    created_at: int
    updated_at: int

    @property
    def admin(self) -> bool:
        return ADMIN_TAG in self.tags


@dataclass(frozen=True, slots=True)
class Session:
    """A context of a user's activity that outlives tokens and connections (S `Session`)."""

    id: str
    user_id: str
    created_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class Token:
    """A credential as it is kept: the keys' SHA-256 alone (PROTOCOL §3)."""

    access_hash: bytes
    refresh_hash: bytes | None
    session_id: str
    user_id: str
    created_at: int
    access_expires: int
    refresh_expires: int
    killed_at: int | None
    first_hash: bytes | None = None
    """The `access_hash` that it was first issued with, if these are not its first keys."""
    unused: bool = False
    """Whether these are its newest keys, which nobody has used: those before are good, too."""

    @property
    def id(self) -> bytes:
        """What stays when its keys are made anew: the first `access_hash`."""
        return self.first_hash or self.access_hash


@dataclass(frozen=True, slots=True)
class World:
    """A world (PROTOCOL §5). `number` is S's integer id."""

    id: str
    number: int
    title: str
    description: str | None
    capacity: int
    owner: str
    tags: frozenset[str]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance as it outlives the process (PROTOCOL §6); who is inside is not kept.

    `world` is `w_…`, with `:version` when one was asked for and `@server` when it is another's.
    """

    id: str
    name: str
    title: str | None
    description: str | None
    world: str
    owner: str
    capacity: int
    tags: frozenset[str]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Ban:
    """Who may not enter an instance, until when (None: for good), why and by whose word."""

    instance_id: str
    user: str
    until: int | None
    reason: str | None
    by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Moderation:
    """What somebody did to another in an instance, as its log keeps it (PROTOCOL §6).

    `type` is a measure (`kick`, `ban`, …) or a change of roles (`moderator`, `unmoderator`,
    `master`); `owner` is the instance's owner at that time. `user` and `by` are `UserIDAt`s.
    """

    instance_id: str
    owner: str
    type: str
    user: str
    by: str
    reason: str | None
    until: int | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Follow:
    """That one user follows another, and since when. Two that follow each other are friends."""

    follower: str
    followed: str
    following_at: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What of a user stands beside its record.

    `following` are references, the first one first; `friends` are those of them who follow back,
    with the time since which the user follows each.
    """

    pictures: frozenset[str] = frozenset()
    """`thumbnail`, `banner`: those that there are."""
    following: tuple[str, ...] = ()
    friends: Mapping[str, int] = field(default_factory=dict)


NO_PROFILE: Final = Profile()


@dataclass(frozen=True, slots=True)
class Service:
    """An addition of someone's to the server, known by a reverse-DNS id (PROTOCOL §5)."""

    id: str
    title: str
    description: str | None
    url: str | None
    owner: str
    tags: frozenset[str]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Asset:
    """A build of a world (PROTOCOL §5): empty, somewhere else (`url`), or a file that is kept here.

    `hash` is the file's SHA-256 in hex, `size` its bytes.
    """

    id: str
    world_id: str
    version: str
    engine: str
    platform: str
    url: str | None
    hash: str | None
    size: int | None
    created_at: int
    updated_at: int

    @property
    def empty(self) -> bool:
        return self.url is None and self.hash is None


@dataclass(frozen=True, slots=True)
class Image:
    """A picture of a user or a world: where its PNG lies, and how many pixels it has."""

    hash: str
    width: int
    height: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that sessions acquire, read and write (S `Resource`). `number` is S's integer id.

    `owner` is the id of a user of this server, `shares` are those of others who may use it too.
    """

    number: int
    type: str
    owner: str
    title: str
    data: Json
    version: int
    created_at: int
    updated_at: int
    shares: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lease:
    """Who has a resource: a session, of a user, or nobody (None).

    `fence` grows with each acquisition, and guards what is written; `until` (ms) is how long the
    session keeps it without a WebSocket.
    """

    fence: int = 0
    session: str | None = None
    user: str | None = None
    until: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """What a session has acquired, and the fencing number with which it may write."""

    resource: Resource
    fence: int
    until: int


@dataclass(frozen=True, slots=True)
class DeletedUser:
    """An account that was deleted, and what hung on it: ids, for whoever is to be told."""

    user: User
    sessions: tuple[str, ...]
    """Those that were alive; they ended with it."""
    worlds: tuple[str, ...]
    """These, the instances and the services are the server's own account's now."""
    instances: tuple[str, ...]
    services: tuple[str, ...]
    files: frozenset[str]
    """The hashes of its pictures: files to be released."""


@dataclass(frozen=True, slots=True)
class LiftBan:
    """A ban that is to be struck off."""

    instance_id: str
    user: str


@dataclass(frozen=True, slots=True)
class ModeratorAddition:
    """A moderator that is named."""

    instance_id: str
    user: str
    by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ModeratorRemoval:
    """A moderator that is none any more."""

    instance_id: str
    user: str


Deed: TypeAlias = Ban | LiftBan | ModeratorAddition | ModeratorRemoval | Moderation
"""What hosts do that outlives the process. Done twice, it is the same."""


class Unset(Enum):
    """The type of `UNSET`, which says that a change leaves a field as it is; None empties it."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class InstanceChanges:
    """What `POST /api/instances/:id` is to change (PROTOCOL §6)."""

    title: str | Unset | None = UNSET
    description: str | Unset | None = UNSET
    capacity: int | Unset = UNSET
    tags: frozenset[str] | Unset = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that change, with their new values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not UNSET}
