"""The messages of an instance's actor.

`state` is the JSON that a client sent along and gets back with the one answer; None when it wants
none. A request that a client made on a socket is answered there by the actor itself, because only
so the answer has its place in the order of what the socket gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from actors.delivery.sink import SendData, Sink
from actors.hub.messages import RefreshObserver
from actors.membership import MembershipMessage
from actors.runtime.message import Message, Request
from reileta import records
from reileta.rules.identity import Visitor
from reileta.rules.instance.candidates import Entry
from reileta.rules.instance.roles import Role
from reileta.rules.instance.seats import Player

Noun = Literal["user", "server", "world", "service", "instance"]


@dataclass(frozen=True, slots=True)
class UpdateInstance(Request[records.Instance]):
    """Title, description, capacity or tags are to be others."""

    by: Visitor
    changes: records.InstanceChanges


@dataclass(frozen=True, slots=True)
class CloseInstance(Request[None]):
    """The instance is to end."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class RequestEntry(Request[Entry]):
    """A user asks to come in: it wants to be a candidate."""

    visitor: Visitor


@dataclass(frozen=True, slots=True)
class WithdrawEntry(Request[None]):
    """A user takes its candidacy back."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class AdmitCandidate(Request[Entry]):
    """Someone invites a user (`UserIDAt`), or admits one that asked."""

    by: Visitor
    user: str


@dataclass(frozen=True, slots=True)
class RejectCandidate(Request[None]):
    """Someone takes a user's candidacy and invitation back."""

    by: Visitor
    user: str


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue as one may see it: how many wait; the asker's entry; all, for who oversees."""

    waiting: int = 0
    own: Entry | None = None
    entries: tuple[Entry, ...] | None = None


@dataclass(frozen=True, slots=True)
class GetQueue(Request[QueueSnapshot]):
    """Someone (None: nobody in particular) wants to know the queue."""

    by: Visitor | None


@dataclass(frozen=True, slots=True)
class GetPlayers(Request[tuple[tuple[Player, Role], ...]]):
    """Someone (None: nobody in particular) wants to know who is inside, longest first."""

    by: Visitor | None


@dataclass(frozen=True, slots=True)
class GetBans(Request[tuple[records.Ban, ...]]):
    """Someone who oversees wants to know who is banned."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class Moderate(Request[None]):
    """Someone kicks, bans, … a user (`UserIDAt`) or a player; answered when it is durable. `admin`:
    the user is known to be an admin of the server.

    If it was asked for on a socket (`sink`), the answer to it goes there as well.
    """

    by: Visitor
    target: str
    type: str
    reason: str | None = None
    until: int | None = None
    sink: Sink | None = None
    state: bytes | None = None
    admin: bool = False


@dataclass(frozen=True, slots=True)
class TransferMaster(Request[None]):
    """The owner makes another the master; answered when that is durable."""

    by: Visitor
    to: str


@dataclass(frozen=True, slots=True)
class AddModerator(Request[None]):
    """The owner names a user moderator; answered when that is durable."""

    by: Visitor
    user: str


@dataclass(frozen=True, slots=True)
class RemoveModerator(Request[None]):
    """The owner dismisses a moderator; answered when that is durable."""

    by: Visitor
    user: str


@dataclass(frozen=True, slots=True)
class ReassignOwner(Message):
    """The owner's account was deleted; the record names this one (its bare id) now."""

    owner: str


@dataclass(frozen=True, slots=True)
class ContinueQueueRound(Message):
    """More of those in the queue are to be told of it."""


@dataclass(frozen=True, slots=True)
class RetryWrites(Message):
    """What could not be written is to be tried again."""


@dataclass(frozen=True, slots=True)
class Tick(Message):
    """The time that the rules named has come."""


InstanceMessage: TypeAlias = (
    SendData
    | MembershipMessage
    | UpdateInstance
    | CloseInstance
    | RequestEntry
    | WithdrawEntry
    | AdmitCandidate
    | RejectCandidate
    | GetQueue
    | GetPlayers
    | GetBans
    | Moderate
    | TransferMaster
    | AddModerator
    | RemoveModerator
    | ReassignOwner
    | ContinueQueueRound
    | RetryWrites
    | RefreshObserver
    | Tick
)
