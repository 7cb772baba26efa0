"""The messages of a session's actor.

`state` is the JSON that a client sent with a command and gets back with the answer; None: the
client wants no answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from actors.delivery.sink import SessionSink, Sink
from actors.membership import InstanceMoved, SeatLost
from actors.runtime.message import Message, Request
from reileta import records
from reileta.rules.identity import Claimant
from reileta.rules.instance.events import LeaveReason
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.resource import ResourceKey


@dataclass(frozen=True, slots=True)
class Attach(Request[None]):
    """A socket of the registry API authenticated with the token whose SHA-256 is `token_hash`.

    The actor answers `authenticate` on the socket if there is a `state`, then sends the event
    `authenticated`.
    """

    sink: Sink
    token_hash: bytes
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class Detach(Message):
    """A socket of the session has closed."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class Join(Request[str]):
    """A socket asks to enter an instance (its id or name); answered with the player's id."""

    sink: Sink
    instance: str
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Leave(Request[None]):
    """A socket asks to leave an instance."""

    sink: Sink
    instance: str
    state: bytes | None


@dataclass(frozen=True, slots=True)
class UserChanged(Message):
    """The session's user or its profile changed."""

    user: records.User
    profile: records.Profile = records.NO_PROFILE


@dataclass(frozen=True, slots=True)
class OwnerChanged(Message):
    """A user changed, who owns the resource that the session has, or had last."""

    owner: records.User


@dataclass(frozen=True, slots=True)
class TokenKilled(Message):
    """A token ended: the session closes the sockets that authenticated with it."""

    token_hash: bytes


@dataclass(frozen=True, slots=True)
class SessionEnded(Message):
    """The session ended, or its user may not be here any more: its sockets close and its players
    leave. `reason`: why they leave."""

    reason: LeaveReason = "left"


@dataclass(frozen=True, slots=True)
class Idle(Message):
    """The session has been without sockets and players for a while."""


@dataclass(frozen=True, slots=True)
class OpenSocket(Request[None]):
    """A socket of the session API authenticated; the session greets it with `hello`.

    `token_hash` is the id of its token, which is valid until `expires` (ms).
    """

    sink: SessionSink
    token_hash: bytes
    expires: int


@dataclass(frozen=True, slots=True)
class PatchState(Message):
    """A socket changes the state; the session acknowledges or refuses `event_id`."""

    sink: SessionSink
    event_id: str
    patch: dict[str, Json]


@dataclass(frozen=True, slots=True)
class AcquireResource(Request[records.HeldResource]):
    """The session acquires a resource."""

    name: ResourceKey
    who: Claimant


@dataclass(frozen=True, slots=True)
class ReleaseResource(Request[None]):
    """The session releases a resource; if no session has it, nothing happens."""

    name: ResourceKey
    who: Claimant


@dataclass(frozen=True, slots=True)
class WriteResource(Request[records.ResourceRecord]):
    """Changes the session's resource by a merge patch.

    `if_version`: only if the resource has that version.
    """

    name: ResourceKey
    who: Claimant
    patch: dict[str, Json]
    if_version: int | None


@dataclass(frozen=True, slots=True)
class DeleteResource(Request[records.ResourceRecord]):
    """Deletes the session's resource; `if_version`: only if it has that version."""

    name: ResourceKey
    who: Claimant
    if_version: int | None


@dataclass(frozen=True, slots=True)
class LeaseRevoked(Message):
    """The store has taken a resource from the session."""

    number: int
    fence: int


@dataclass(frozen=True, slots=True)
class RefreshToken(Message):
    """A token of the session got new keys, valid until `expires` (ms)."""

    token_hash: bytes
    expires: int


@dataclass(frozen=True, slots=True)
class StateMoved(Message):
    """Another node has written the state, which has that version now."""

    version: int


@dataclass(frozen=True, slots=True)
class ResourceMoved(Message):
    """Another node has changed which resource the session has, or that resource."""


@dataclass(frozen=True, slots=True)
class SeenElsewhere(Message):
    """The session has a socket at another node, which may know less or more than this one."""


@dataclass(frozen=True, slots=True)
class DeadlineReached(Message):
    """The deadline of the session's rules has passed."""


ResourceRequest: TypeAlias = AcquireResource | ReleaseResource | WriteResource | DeleteResource
"""Requests about the session's resource, done one at a time."""
SessionMessage: TypeAlias = (
    Attach
    | Detach
    | Join
    | Leave
    | SeatLost
    | InstanceMoved
    | UserChanged
    | OwnerChanged
    | TokenKilled
    | SessionEnded
    | Idle
    | OpenSocket
    | PatchState
    | ResourceRequest
    | LeaseRevoked
    | RefreshToken
    | StateMoved
    | ResourceMoved
    | SeenElsewhere
    | DeadlineReached
)
