"""The messages of a resource's actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from actors.delivery.sink import SessionSink, Sink
from actors.runtime.message import Message, Request
from reileta import records
from reileta.errors import ReiletaError
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource, ResourceKey, Write
from reileta.rules.resource.waiting_line import LeaveReason, Place
from reileta.store.leases import LostLease


@dataclass(frozen=True, slots=True)
class Acquire(Request[records.HeldResource]):
    """A session acquires the resource; it keeps it until `until` (ms) without a WebSocket."""

    name: ResourceKey
    who: Claimant
    until: int


@dataclass(frozen=True, slots=True)
class Release(Request[LostLease | None]):
    """A session releases the resource; answered with None if no session had it."""

    name: ResourceKey
    who: Claimant


@dataclass(frozen=True, slots=True)
class WriteAll(Request[Sequence[records.ResourceRecord | ReiletaError]]):
    """The session's changes of the resource; answered with the outcome of each."""

    name: ResourceKey
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Delete(Request[records.ResourceRecord]):
    """A session deletes the resource; answered with the resource as it was."""

    name: ResourceKey
    who: Claimant
    fence: int | None
    if_version: int | None


@dataclass(frozen=True, slots=True)
class Share(Request[records.ResourceRecord]):
    """A user may use the resource from now on."""

    name: ResourceKey
    who: Claimant
    user: str


@dataclass(frozen=True, slots=True)
class Unshare(Request[tuple[records.ResourceRecord | None, LostLease | None]]):
    """A user may no longer use the resource; see `Resources.unshare`."""

    name: ResourceKey
    who: Claimant
    user: str


@dataclass(frozen=True, slots=True)
class Read(Request[Resource]):
    """The resource with its lease, for a preview or a view."""

    name: ResourceKey


@dataclass(frozen=True, slots=True)
class Queue(Request[Place]):
    """A session waits for the resource."""

    name: ResourceKey
    who: Claimant


@dataclass(frozen=True, slots=True)
class Unqueue(Request[None]):
    """A session no longer waits."""

    name: ResourceKey
    who: Claimant


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A socket that asks to watch. `state` is the JSON of a command of `/api/ws`, for its answer.

    `event_id` is that of an Event of the session API, whose `session_sink` is the socket; None: a
    socket of the registry API.
    """

    sink: Sink
    state: bytes | None = None
    session_sink: SessionSink | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Watch(Request[None]):
    """A socket watches the resource. The actor sends it the resource as it is now."""

    name: ResourceKey
    who: Claimant
    subscriber: Subscriber


@dataclass(frozen=True, slots=True)
class Unwatch(Message):
    """A socket no longer watches, or has closed."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class LookAgain(Message):
    """The resource or its lease may have changed in the database: read it."""


@dataclass(frozen=True, slots=True)
class UserChanged(Message):
    """A user's name or tags may have changed."""

    user: str
    admin: bool


@dataclass(frozen=True, slots=True)
class Presence(Message):
    """A session that waits got a new socket, or lost its last one."""

    session: str
    present: bool


@dataclass(frozen=True, slots=True)
class LeaveLine(Message):
    """A session no longer waits, because it has ended or has acquired another resource."""

    session: str
    reason: LeaveReason


@dataclass(frozen=True, slots=True)
class MoveLineAway(Message):
    """Another node keeps the waiting line from now on."""


@dataclass(frozen=True, slots=True)
class DeadlineReached(Message):
    """The deadline of the waiting line has passed."""


@dataclass(frozen=True, slots=True)
class Tell(Message):
    """The pause after the last events is over."""


@dataclass(frozen=True, slots=True)
class CatchUp(Message):
    """Slow watchers may be able to take more."""


@dataclass(frozen=True, slots=True)
class Idle(Message):
    """Nobody has used the resource for a while."""


Operation: TypeAlias = (
    Acquire | Release | WriteAll | Delete | Share | Unshare | Read | Queue | Unqueue | Watch
)
"""Requests, carried out in the order in which they come."""
ResourceMessage: TypeAlias = (
    Operation
    | Unwatch
    | LookAgain
    | UserChanged
    | Presence
    | LeaveLine
    | MoveLineAway
    | DeadlineReached
    | Tell
    | CatchUp
    | Idle
)
