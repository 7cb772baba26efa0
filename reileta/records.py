"""Rows of the database as immutable values. Times are integer milliseconds since 1970 UTC.

A user reference (`owner`, `by`, …) is a `UserIDAt` only for users of other servers. Users of this
server are stored as bare ids, so that the server's address can change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from reileta.rules.resource.json_values import Json

ADMIN_TAG: Final = "avr:admin"
"""The tag of a server administrator; only admins can set it."""
DISABLED_TAG: Final = "avr:disabled"
"""The tag of a suspended account; only admins can set it."""

T = TypeVar("T")

NoticeLevel: TypeAlias = Literal["info", "warning", "critical"]

Cursor: TypeAlias = tuple[int | str, ...]
"""A place in a list: the values by which it is sorted, of the item before that place. They never
change, so the place stays while items are added and removed."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list: `items` from `offset` on, of `total` items. `next` is the place behind
    them; None at the end of the list."""

    items: tuple[T, ...]
    total: int
    limit: int
    offset: int
    next: Cursor | None = None


@dataclass(frozen=True, slots=True)
class User:
    """An account. `number` is its integer id in the session API."""

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
    suspended_until: int | None = None
    """When the suspension of a user with `DISABLED_TAG` ends; None: when it is lifted."""
    suspension_reason: str | None = None
    temporary: bool = False
    """Whether it has no password and is deleted some time after its last session. Unlike a guest,
    it is an account of this server."""

    @property
    def admin(self) -> bool:
        return ADMIN_TAG in self.tags

    @property
    def guest(self) -> bool:
        """Whether it is a user of another server: its id is a `UserIDAt`, and it has no account
        here."""
        return "@" in self.id

    def suspended(self, now_ms: int) -> bool:
        """Whether the account is suspended at that time."""
        if DISABLED_TAG not in self.tags:
            return False
        return self.suspended_until is None or now_ms < self.suspended_until


AuditVia: TypeAlias = Literal["http", "socket", "command"]
AuditResult: TypeAlias = Literal["done", "refused"]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An action of an admin, or of a command (`by_id` None, `by_name` the system's account).

    `target` is an id or another reference. `result` is None if it is unknown whether the action
    took effect; `error` is the code of the error that refused it.
    """

    number: int
    created_at: int
    via: AuditVia
    by_id: str | None
    by_name: str
    action: str
    target: str | None
    target_name: str | None
    details: Mapping[str, Json]
    result: AuditResult | None
    error: int | None


@dataclass(frozen=True, slots=True)
class Notice:
    """What an admin tells everyone who is connected, and who connects before `until`; without
    `until`, only who is connected."""

    text: str
    level: NoticeLevel
    created_at: int
    until: int | None = None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A user's activity that outlives tokens and connections."""

    id: str
    user_id: str
    created_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class SessionPresence:
    """A session that is connected, or was a moment ago: how many sockets it has, and its players by
    instance (None: it is joining)."""

    session: str
    sockets: int
    players: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Token:
    """A credential as it is stored: only the SHA-256 of its keys."""

    access_hash: bytes
    refresh_hash: bytes | None
    session_id: str
    user_id: str
    created_at: int
    access_expires: int
    refresh_expires: int
    killed_at: int | None
    first_hash: bytes | None = None
    """The `access_hash` of the first keys, if the token was refreshed since."""
    unused: bool = False
    """Whether nobody has used its newest keys yet: then the keys before them are still valid, too.
    """

    @property
    def id(self) -> bytes:
        """Stays the same when the token is refreshed: the first `access_hash`."""
        return self.first_hash or self.access_hash


@dataclass(frozen=True, slots=True)
class Guest:
    """A user of another server who has been here. `user` is its `UserIDAt`.

    `session_id` is the session that it has here, with each of its tokens; `thumbnail` the https URL
    of a picture at its own server.
    """

    user: str
    server: str
    displayname: str
    thumbnail: str | None
    session_id: str
    first_seen: int
    last_seen: int
    updated_at: int

    def as_user(self) -> User:
        """The guest as a user without an account: without a number and a username."""
        return User(
            id=self.user,
            number=0,
            username="",
            displayname=self.displayname,
            description=None,
            email=None,
            status="online",
            tags=frozenset(),
            autopilot=False,
            home=None,
            created_at=self.first_seen,
            updated_at=self.updated_at,
        )


@dataclass(frozen=True, slots=True)
class IntegrityToken:
    """A guest's token as it is stored: only the SHA-256 of it. `user` is a `UserIDAt`."""

    hash: bytes
    id: str
    user: str
    created_at: int
    expires_at: int
    revoked_at: int | None

    def valid(self, now_ms: int) -> bool:
        """Whether it is valid at that time."""
        return self.revoked_at is None and now_ms < self.expires_at


@dataclass(frozen=True, slots=True)
class Visit:
    """A token that another server has issued to a user of this one, for a session of it.

    The server is asked to revoke it from `revoke_since` on (None: not at all).
    """

    id: str
    server: str
    user_id: str
    session_id: str
    created_at: int
    expires_at: int
    revoke_since: int | None = None


@dataclass(frozen=True, slots=True)
class World:
    """A world. `number` is its integer id in the session API."""

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
class InstanceRecord:
    """An instance as it is stored; the players inside are not.

    `world` is `w_…`, with `:version` if one was requested and `@server` if the world is on another
    server. `entered`: whether a player has ever been inside. `node`: the instance node on which it
    lives; None: this server. `position_key`: the key of the values in which players publish their
    positions; None: they don't.
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
    entered: bool = True
    node: str | None = None
    position_key: str | None = None


@dataclass(frozen=True, slots=True)
class Ban:
    """A user who may not enter an instance until `until` (None: forever).

    `user` is `*@server` for all users of another server.
    """

    instance_id: str
    user: str
    until: int | None
    reason: str | None
    by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class MuteRecord:
    """A user whose data an instance refuses until `until` (None: until the user is unmuted)."""

    instance_id: str
    user: str
    until: int | None
    reason: str | None
    by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Moderation:
    """An entry of an instance's moderation log.

    `type` is a moderation type (`kick`, `ban`, …) or a change of roles (`moderator`, `unmoderator`,
    `master`); `owner` is the instance's owner at that time. `user` and `by` are `UserIDAt`s.
    `deed`: the id of the `Deed` that it is the entry of, until it is written.
    """

    instance_id: str
    owner: str
    type: str
    user: str
    by: str
    reason: str | None
    until: int | None
    created_at: int
    deed: str | None = None


@dataclass(frozen=True, slots=True)
class Deed:
    """The name of an order to an instance in a cluster, which is carried out once however often it
    comes. `again`: it may have come before, also to another host."""

    id: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Follow:
    """One user follows another, since `following_at`. Two who follow each other are friends."""

    follower: str
    followed: str
    following_at: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Facts about a user outside of its row.

    `following` are references, the earliest first; `friends` are those of them who follow back,
    with the time since which the user follows each. `thumbnail` is the URL of a guest's picture.
    """

    pictures: frozenset[str] = frozenset()
    """Which of `thumbnail` and `banner` exist."""
    following: tuple[str, ...] = ()
    friends: Mapping[str, int] = field(default_factory=dict)
    thumbnail: str | None = None


NO_PROFILE: Final = Profile()


@dataclass(frozen=True, slots=True)
class Service:
    """A third party's addition to the server, with a reverse-DNS id."""

    id: str
    title: str
    description: str | None
    url: str | None
    owner: str
    tags: frozenset[str]
    created_at: int
    updated_at: int


HostKind = Literal["dedicated", "hosted"]
"""Of the operator, for everybody's instances; or of a user, for its own."""
HostStatus = Literal["online", "offline", "draining"]


@dataclass(frozen=True, slots=True)
class DirectAddress:
    """Where clients can reach an instance node themselves."""

    address: str
    secure: bool


@dataclass(frozen=True, slots=True)
class HostNode:
    """An instance node: a machine that hosts instances over a link to this server.

    `link` is the number of its last link, and `server` the process that has it; `instances` are the
    ids of those that live on it.
    """

    id: str
    title: str
    owner: str
    kind: HostKind
    region: str | None
    capacity: int
    direct: DirectAddress | None
    link: int
    server: str | None
    draining: bool
    version: str | None
    created_at: int
    updated_at: int
    seen_at: int | None
    status: HostStatus
    fault: str | None = None
    """Why its link was cut, at `fault_at`."""
    fault_at: int | None = None
    instances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asset:
    """A build of a world: empty, at another place (`url`), or a file stored here.

    `hash` is the file's SHA-256 in hex, `size` its length in bytes.
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
    """A picture of a user or a world: the hash of its PNG file, and its size in pixels."""

    hash: str
    width: int
    height: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """An object that sessions acquire, read and write. `number` is its integer id.

    `owner` is the id of a user of this server; `shares` are the ids of other users who may use it.
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
    """Which session holds a resource, and of which user; None: nobody.

    `fence` grows with each acquisition, and writes with an older one are rejected; `until` (ms) is
    how long the session keeps the resource without a WebSocket.
    """

    fence: int = 0
    session: str | None = None
    user: str | None = None
    until: int = 0


@dataclass(frozen=True, slots=True)
class HeldResource:
    """The resource that a session holds, and the fencing number for its writes."""

    resource: ResourceRecord
    fence: int
    until: int


@dataclass(frozen=True, slots=True)
class DeletedUser:
    """A deleted account, and the ids of the objects that belonged to it."""

    user: User
    sessions: tuple[str, ...]
    """Its live sessions and those of its services, which ended with it."""
    worlds: tuple[str, ...]
    """Its worlds; these, the instances and the services now belong to the server's own account."""
    instances: tuple[str, ...]
    services: tuple[str, ...]
    files: frozenset[str]
    """The hashes of its pictures, which are files to release."""
    nodes: tuple[str, ...] = ()
    """Its instance nodes, which are deleted with the instances on them."""


@dataclass(frozen=True, slots=True)
class LiftBan:
    """Removes a ban."""

    instance_id: str
    user: str


@dataclass(frozen=True, slots=True)
class LiftMute:
    """Removes a mute."""

    instance_id: str
    user: str


@dataclass(frozen=True, slots=True)
class ModeratorAddition:
    """Adds a moderator."""

    instance_id: str
    user: str
    by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ModeratorRemoval:
    """Removes a moderator."""

    instance_id: str
    user: str


ModerationWrite: TypeAlias = (
    Ban | LiftBan | MuteRecord | LiftMute | ModeratorAddition | ModeratorRemoval | Moderation
)
"""A moderation change to store. Writing one twice has the same effect as writing it once."""


class Unset(Enum):
    """The type of `UNSET`: a change leaves the field as it is, whereas None clears it."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class InstanceChanges:
    """The changes of `POST /api/instances/:id`."""

    title: str | Unset | None = UNSET
    description: str | Unset | None = UNSET
    capacity: int | Unset = UNSET
    tags: frozenset[str] | Unset = UNSET

    def given(self) -> dict[str, Any]:
        """The changed fields with their new values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if value is not UNSET}


PeerState: TypeAlias = Literal["new", "known", "pending"]
"""`new`: never authenticated. `known`: its key is pinned. `pending`: it has a new key that an admin
must accept."""


@dataclass(frozen=True, slots=True)
class PeerServer:
    """Another server. Its address is canonical; `host` is the address without a port.

    `public_key` is pinned since `key_since`. `offered_key` is a key that does not follow from it,
    for an admin to accept. The gateways and the version are what the server says of itself.
    """

    address: str
    host: str
    secure: bool
    state: PeerState
    public_key: str | None
    key_since: int | None
    offered_key: str | None
    offered_at: int | None
    gateway_http: str | None
    gateway_ws: str | None
    version: str | None
    first_seen: int
    last_seen: int | None


@dataclass(frozen=True, slots=True)
class ServerToken:
    """A token that this server has issued to another one. `id` is public."""

    id: str
    server: str
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class PeerToken:
    """A token that another server has issued to this one, encrypted (`federation/sealing.py`)."""

    server: str
    id: str
    sealed: bytes
    issued_at: int
    expires_at: int

    def __repr__(self) -> str:
        return f"PeerToken({self.server!r}, {self.id!r})"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A challenge that this server has begun. `hint` is the beginning of its secret id."""

    hint: str
    server: str
    nonce: str
    created_at: int
    expires_at: int
    fetched_at: int | None

    def __repr__(self) -> str:
        return f"Challenge({self.hint!r}, {self.server!r})"


@dataclass(frozen=True, slots=True)
class ChallengeRefusal:
    """Why a challenge of another server was refused, for admins. `server` is None if it was not an
    address."""

    at: int
    server: str | None
    cause: str
