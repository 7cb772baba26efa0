"""Everything that the server's actors are told: a closed union for each of them.

`state` is the JSON that a client sent along and gets back with the one answer; None when it wants
none. A request that a client made on a socket is answered there by the actor itself, because only
so the answer has its place in the order of what the socket gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from actors.delivery.sink import Sink
from actors.runtime.message import Message, Request
from actors.runtime.ref import Ref
from actors.session.messages import EstateMessage
from reileta import records
from reileta.rules.instance.access import Visitor
from reileta.rules.instance.candidates import Entry
from reileta.rules.instance.roles import Role
from reileta.rules.instance.seats import Player

Noun = Literal["user", "server", "world", "service", "instance"]

# An instance's -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendData(Message):
    """A player's `instance-data`, from one of its sockets. `data` is JSON, byte for byte."""

    sink: Sink
    player: str
    key: str | None
    at: float | None
    to: tuple[str, ...] | None
    data: bytes
    state: bytes | None


@dataclass(frozen=True, slots=True)
class AddMember(Request[str]):
    """A session comes in, or back, with a socket; answered with its player's id."""

    visitor: Visitor
    sink: Sink
    session: Ref[SessionMessage]
    state: bytes | None


@dataclass(frozen=True, slots=True)
class RemoveMember(Request[None]):
    """A session leaves with all its sockets; `sink` is the one that asked."""

    session: str
    sink: Sink
    state: bytes | None


@dataclass(frozen=True, slots=True)
class SocketLost(Message):
    """One of a session's sockets went."""

    session: str
    sink: Sink


@dataclass(frozen=True, slots=True)
class MemberSessionEnded(Message):
    """A session ended: its player is to leave."""

    session: str


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
class Administers(Message):
    """Whether a user (`UserIDAt`) is an admin of the server may be another than it was."""

    user: str
    admin: bool


@dataclass(frozen=True, slots=True)
class CandidateOnline(Message):
    """A candidate (`UserIDAt`) has a socket again."""

    user: str


@dataclass(frozen=True, slots=True)
class CandidateOffline(Message):
    """A candidate's last socket went."""

    user: str


@dataclass(frozen=True, slots=True)
class ContinueQueueRound(Message):
    """More of those in the queue are to be told of it."""


@dataclass(frozen=True, slots=True)
class RetryWrites(Message):
    """What could not be written is to be tried again."""


@dataclass(frozen=True, slots=True)
class RefreshObserver(Message):
    """Whether an admin's socket is to get all data, unseen, may be another; see the directory."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class Tick(Message):
    """The time that the rules named has come."""


InstanceMessage: TypeAlias = (
    SendData
    | AddMember
    | RemoveMember
    | SocketLost
    | MemberSessionEnded
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
    | Administers
    | CandidateOnline
    | CandidateOffline
    | ContinueQueueRound
    | RetryWrites
    | RefreshObserver
    | Tick
)

# A session's -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attach(Request[None]):
    """A socket speaks for the session, by the credential whose SHA-256 is `token_hash`.

    It is told who it now is: with an answer to `authenticate`, if it sent a `state`, and an event.
    """

    sink: Sink
    token_hash: bytes
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class Detach(Message):
    """A socket of the session is gone."""

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
class SeatLost(Message):
    """That player of the session is no longer inside that instance; another one may be by now."""

    instance: str
    player: str


@dataclass(frozen=True, slots=True)
class UserChanged(Message):
    """The session's user is another than it was, or what stands beside it is."""

    user: records.User
    profile: records.Profile = records.NO_PROFILE


@dataclass(frozen=True, slots=True)
class TokenKilled(Message):
    """A credential is no longer good: the sockets that came with it are to go."""

    token_hash: bytes


@dataclass(frozen=True, slots=True)
class SessionEnded(Message):
    """The session is over: its sockets are to go, its players to leave."""


@dataclass(frozen=True, slots=True)
class Idle(Message):
    """Nobody has been connected for a while."""


SessionMessage: TypeAlias = (
    Attach
    | Detach
    | Join
    | Leave
    | SeatLost
    | UserChanged
    | TokenKilled
    | SessionEnded
    | Idle
    | EstateMessage
)
