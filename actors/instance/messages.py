"""The messages of an instance's actor.

`state` is the JSON that a client sent with a command and gets back in its answer; None: the client
wants no answer. The actor itself answers a command on the client's socket, so that the answer keeps
its place among the other frames of that socket.

`deed` is None without a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from msgspec import Struct

from actors.delivery.sink import Sink
from actors.hub.messages import RefreshObserver
from actors.instance.recovery import Member
from actors.membership import MembershipMessage
from actors.runtime.message import Message, Request
from reileta import records
from reileta.rules.identity import Visitor
from reileta.rules.instance.candidates import Candidate, Entry, State
from reileta.rules.instance.roles import Role
from reileta.rules.instance.sanctions import Mute
from reileta.rules.instance.seats import Player


# A struct, unlike the others: a frozen dataclass takes ten times as long to make, and one of these
# is made for each `instance-data`.
class SendData(Message, Struct, eq=False):
    """A player sends `instance-data` through one of its sockets; see `InstanceHandle.send_data`.

    Nothing changes it once it is sent.
    """

    sink: Sink
    player: str
    key: str | None
    at: float | None
    to: tuple[str, ...] | None
    data: bytes
    state: bytes | None
    series: int = 0
    """The join of the socket, for the rules (`Instance.speak`)."""


@dataclass(frozen=True, slots=True)
class UpdateInstance(Request[records.InstanceRecord]):
    """Changes title, description, capacity or tags; answered with the record after the commit."""

    by: Visitor
    changes: records.InstanceChanges
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class CloseInstance(Request[None]):
    """Ends the instance; answered after the commit."""

    by: Visitor
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class RequestEntry(Request[Entry]):
    """A user asks for a seat, and so becomes a candidate."""

    visitor: Visitor
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class WithdrawEntry(Request[None]):
    """A user withdraws its candidacy."""

    by: Visitor
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class AdmitCandidate(Request[Entry]):
    """Invites a user (`UserIDAt`), or admits a candidate."""

    by: Visitor
    user: str
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class RejectCandidate(Request[None]):
    """Rejects a candidate (`UserIDAt`), and withdraws its invitation."""

    by: Visitor
    user: str
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue as its requester may see it.

    `waiting` is the number of candidates in line, `own` the requester's entry; `entries` are all
    entries, for those who oversee the instance.
    """

    waiting: int = 0
    own: Entry | None = None
    entries: tuple[Entry, ...] | None = None


@dataclass(frozen=True, slots=True)
class GetQueue(Request[QueueSnapshot]):
    """Reads the queue; `by` is None for a requester who is not logged in."""

    by: Visitor | None


@dataclass(frozen=True, slots=True)
class GetPlayers(Request[tuple[tuple[Player, Role], ...]]):
    """Reads the players, longest inside first; `by` is None as in `GetQueue`."""

    by: Visitor | None


@dataclass(frozen=True, slots=True)
class GetValues(Request[tuple[tuple[str, bytes], ...]]):
    """Reads the retained values of one key: (player, JSON)."""

    key: str


@dataclass(frozen=True, slots=True)
class DirectWay:
    """How a client connects to the instance's node. `expires_at`: in ms, of the ticket."""

    address: str
    secure: bool
    ticket: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class GetTicket(Request[DirectWay]):
    """Asks for a ticket for the player of the session in `by`."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class GetMutes(Request[tuple[Mute, ...]]):
    """Reads the mutes in force, the oldest first; for those who oversee the instance."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class GetBans(Request[tuple[records.Ban, ...]]):
    """Reads the bans in force, the oldest first; for those who oversee the instance."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class Moderate(Request[None]):
    """Kicks, bans, … a user (`UserIDAt`), a player, or all users of a server (`*@server`); answered
    after the commit.

    `admin` says that the target is an admin of the server, as far as its account is known. A
    command on a socket (`sink`) is answered there as well.
    """

    by: Visitor
    target: str
    type: str
    reason: str | None = None
    until: int | None = None
    sink: Sink | None = None
    state: bytes | None = None
    admin: bool = False
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class TransferMaster(Request[None]):
    """The owner makes a user or a player inside the master; answered after the commit."""

    by: Visitor
    to: str
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class AddModerator(Request[None]):
    """The owner makes a user a moderator; answered after the commit. `guest`: it is a user of
    another server."""

    by: Visitor
    user: str
    guest: bool = False
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class RemoveModerator(Request[None]):
    """The owner removes a moderator; answered after the commit."""

    by: Visitor
    user: str
    deed: records.Deed | None = None


@dataclass(frozen=True, slots=True)
class ReassignOwner(Message):
    """The owner's account was deleted; `owner` (a bare id) owns the instance now."""

    owner: str


@dataclass(frozen=True, slots=True)
class ExcludeServers(Request[None]):
    """This server has nothing to do with other ones any more: their users leave. Answered once
    they have been notified."""

    servers: frozenset[str]


@dataclass(frozen=True, slots=True)
class RestoreMembers(Request[tuple[tuple[str, str], ...]]):
    """Sockets at another node have missed messages, and get `instance-restored`. Answered with the
    players (session, player) that have no seat. `returning`: they were inside at an earlier host,
    and take their seats again if they may."""

    members: tuple[Member, ...]
    returning: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """A player without a socket: how long its seat is still kept, and what it missed."""

    player: str
    left_ms: int
    gap: bool
    frames: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Frozen:
    """What only the actor of an instance knows, besides its players.

    `values`: (player, key, at, data, series); the series is 0 if the value is not from the player's
    only socket. `invited`: how each user was invited. `candidates`: with their states, in order.
    `anew`: their times begin anew, since the last host is gone.
    """

    values: tuple[tuple[str, str, float | None, bytes, int], ...] = ()
    invited: Mapping[str, Literal["by-leader", "by-member"]] = field(default_factory=dict)
    candidates: tuple[tuple[State, Candidate], ...] = ()
    anew: bool = False
    master: str | None = None
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class Freeze(Request[Frozen]):
    """The instance is handed over to another node: it says nothing more, and keeps what it is told.
    Raises Overloaded while something is still to be written, or asked of sockets."""


@dataclass(frozen=True, slots=True)
class Depart(Request[None]):
    """The frozen instance has another host: passes on what it was told, and ends."""


@dataclass(frozen=True, slots=True)
class ContinueQueueRound(Message):
    """Sends the next slice of the queue's notifications; see `queue.py`."""


@dataclass(frozen=True, slots=True)
class RetryWrites(Message):
    """Tries again to write what the database refused."""


@dataclass(frozen=True, slots=True)
class RecordGone(Message):
    """A write has found that the database no longer has the instance's record."""


@dataclass(frozen=True, slots=True)
class Tick(Message):
    """The next deadline of the rules has come."""


@dataclass(frozen=True, slots=True)
class LookAgain(Message):
    """The instance is suspended, because its node's lease has run out; it may go on by now."""


@dataclass(frozen=True, slots=True)
class NodeChanged(Message):
    """The link of the instance's node came or went, or the node has said something."""


QueueRequest: TypeAlias = RequestEntry | WithdrawEntry | AdmitCandidate | RejectCandidate
ModerationMessage: TypeAlias = Moderate | TransferMaster | AddModerator | RemoveModerator
DurableOrder: TypeAlias = UpdateInstance | CloseInstance | ModerationMessage
"""Changes stored rows."""
Order: TypeAlias = DurableOrder | QueueRequest
"""Changes something. In a cluster it has a deed, so that it can be repeated."""
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
    | GetValues
    | GetBans
    | GetMutes
    | GetTicket
    | Moderate
    | TransferMaster
    | AddModerator
    | RemoveModerator
    | ReassignOwner
    | ExcludeServers
    | RestoreMembers
    | Freeze
    | Depart
    | ContinueQueueRound
    | RetryWrites
    | RecordGone
    | RefreshObserver
    | Tick
    | LookAgain
    | NodeChanged
)
