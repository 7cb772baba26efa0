"""Everything that the server's actors are told: a closed union for each of them.

`state` is the JSON that a client sent along and gets back with the one answer; None when it wants
none. A request that a client made on a socket is answered there by the actor itself, because only
so the answer has its place in the order of what the socket gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import outcome

from actors.message import Message, Request
from actors.ref import Ref
from actors.sink import Sink
from reileta import records
from reileta.access import Visitor

Noun = Literal["user", "server", "world", "service", "instance"]

# An instance's -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speak(Message):
    """A player's `instance-data`, from one of its sockets. `data` is JSON, byte for byte."""

    sink: Sink
    player: str
    key: str | None
    at: float | None
    to: tuple[str, ...] | None
    data: bytes
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Enter(Request[str]):
    """A session comes in, or back, with a socket; answered with its player's id."""

    visitor: Visitor
    sink: Sink
    session: Ref[SessionMessage]
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Exit(Request[None]):
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
class SessionOver(Message):
    """A session ended: its player is to leave."""

    session: str


@dataclass(frozen=True, slots=True)
class Change(Request[records.Instance]):
    """Title, description, capacity or tags are to be others."""

    by: Visitor
    changes: records.InstanceChanges


@dataclass(frozen=True, slots=True)
class Close(Request[None]):
    """The instance is to end."""

    by: Visitor


@dataclass(frozen=True, slots=True)
class Watch(Message):
    """Whether an admin's socket is to get all data, unseen, may be another; see the directory."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class Tick(Message):
    """The time that the rules named has come."""


@dataclass(frozen=True, slots=True)
class Written(Message):
    """The database did, or did not do, what was to be written."""

    result: outcome.Outcome[object]


InstanceMessage: TypeAlias = (
    Speak | Enter | Exit | SocketLost | SessionOver | Change | Close | Watch | Tick | Written
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
    """The session's user is another than it was."""

    user: records.User


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
    Attach | Detach | Join | Leave | SeatLost | UserChanged | TokenKilled | SessionEnded | Idle
)

# The hub's ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at an object through a socket."""

    user: str
    admin: bool


@dataclass(frozen=True, slots=True)
class Listen(Message):
    """A socket is there, and for whom."""

    sink: Sink
    viewer: Viewer


@dataclass(frozen=True, slots=True)
class Forget(Message):
    """A socket is gone, with its subscriptions."""

    sink: Sink


@dataclass(frozen=True, slots=True)
class Subscribe(Request[None]):
    """A socket wants events, of one object (its id) or of all."""

    sink: Sink
    events: frozenset[str]
    target: str | None


@dataclass(frozen=True, slots=True)
class Unsubscribe(Request[None]):
    sink: Sink
    events: frozenset[str]
    target: str | None


@dataclass(frozen=True, slots=True)
class Publish(Message):
    """Something happened to an object.

    `render` gives its JSON as a viewer may see it, None when it may not. Those who have a seat in
    `inside`, or are in `told`, are told by that instance itself.
    """

    event: str
    id: str
    render: Callable[[Viewer], bytes | None]
    inside: str | None = None
    told: frozenset[Sink] = frozenset()


HubMessage: TypeAlias = Listen | Forget | Subscribe | Unsubscribe | Publish
