"""The messages between sessions and instances.

A session enters and leaves instances, and tells them about its user; an instance tells a session
when its player is gone. Neither package imports the other: each holds the other's actor as a
`Recipient` of these messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from actors.delivery.sink import Sink
from actors.runtime.mailbox import Recipient
from actors.runtime.message import Message, Request
from reileta.rules.identity import Visitor
from reileta.rules.instance.events import LeaveReason

R = TypeVar("R")

# From a session to an instance -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddMember(Request[str]):
    """A session enters the instance with a socket; answered with its player's id.

    A session that is inside already keeps its player. `state` is the client's, for the answer on
    the socket; None: no such answer.
    """

    visitor: Visitor
    sink: Sink
    session: SessionRecipient
    state: bytes | None


@dataclass(frozen=True, slots=True)
class RemoveMember(Request[None]):
    """A session leaves with all its sockets; `sink` is the one that asked."""

    session: str
    sink: Sink
    state: bytes | None


@dataclass(frozen=True, slots=True)
class SocketLost(Message):
    """A socket of a session has closed."""

    session: str
    sink: Sink


@dataclass(frozen=True, slots=True)
class MemberSessionEnded(Message):
    """A session ended: its player leaves."""

    session: str
    reason: LeaveReason = "left"


@dataclass(frozen=True, slots=True)
class RefreshAdmin(Message):
    """A user (`UserIDAt`) may have become an admin of the server, or may have ceased to be one."""

    user: str
    admin: bool


@dataclass(frozen=True, slots=True)
class RenameUser(Message):
    """The display name of a user (`UserIDAt`), which may have changed."""

    user: str
    displayname: str


@dataclass(frozen=True, slots=True)
class CandidateOnline(Message):
    """A candidate (`UserIDAt`) opened its first socket."""

    user: str


@dataclass(frozen=True, slots=True)
class CandidateOffline(Message):
    """A candidate (`UserIDAt`) closed its last socket."""

    user: str


@dataclass(frozen=True, slots=True)
class CandidateBarred(Message):
    """The account of a candidate (`UserIDAt`) was suspended or deleted."""

    user: str


MembershipMessage: TypeAlias = (
    AddMember
    | RemoveMember
    | SocketLost
    | MemberSessionEnded
    | RefreshAdmin
    | RenameUser
    | CandidateOnline
    | CandidateOffline
    | CandidateBarred
)
InstanceRecipient: TypeAlias = Recipient[MembershipMessage]
"""An instance's actor, as sessions see it."""


class Instances(Protocol):
    """The instances of a node, as sessions see them (`actors.instance.manager.InstanceManager`)."""

    def running(self, instance_id: str) -> InstanceRecipient | None:
        """The instance's actor, if it runs and takes messages."""
        ...

    def seating(self, session_id: str) -> list[InstanceRecipient]:
        """The instances that run here in which the session has a seat."""
        ...

    async def live(self, name: str, who: Visitor) -> tuple[str, InstanceRecipient]:
        """An instance's id and actor, by id, name or `id@server`; started if it does not run.

        Raises:
            InstanceNotFound: it does not exist, or `who` may not see it.
            DatabaseUnavailable: it does not run, and can't be looked up now.
        """
        ...

    async def entered(self, name: str, enter: Callable[[], Awaitable[R]]) -> R:
        """Calls `enter`, which asks the instance of that name to let somebody in, until it knows of
        its node's link; raises what `enter` raises."""
        ...


# From an instance to a session -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeatLost(Message):
    """A player of the session left the instance; the session may have a newer player there."""

    instance: str
    player: str


@dataclass(frozen=True, slots=True)
class InstanceMoved(Message):
    """An instance where the session has a player runs at another node now: `recipient` takes the
    messages from here on. `sinks`: the session's sockets that are known there; some may have closed
    meanwhile."""

    instance: str
    recipient: InstanceRecipient
    sinks: tuple[Sink, ...]


SessionRecipient: TypeAlias = Recipient[SeatLost | InstanceMoved]
"""A session's actor, as instances see it."""
