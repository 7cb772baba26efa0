"""What happened inside an instance: past-tense values that the rules return, in their order.

`Instance`'s methods return lists of these; the actor carries each to those concerned, as its
docstring says. They say nothing of sockets: a user's or a player's sockets are the actor's to find.
"Those who oversee" are the owner, the server's admins, the master and the moderators inside
(`Instance.overseers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from reileta.records import Ban, Instance
from reileta.rules.instance.candidates import Entry
from reileta.rules.instance.roles import Role
from reileta.rules.instance.seats import Player

Departure = Literal["left", "disconnected", "kicked", "banned", "closed"]
"""Why a player is gone: it said so, its grace ran out, it was moderated, the instance is over."""

Course = Literal[
    "asked", "admitted", "joined", "withdrawn", "refused", "expired", "kicked", "banned", "closed"
]
"""Why a candidate's entry is new, another, or gone."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A player came inside. Concerns everyone else inside; the player itself has its answer."""

    player: Player
    role: Role


@dataclass(frozen=True, slots=True)
class Left:
    """A player is gone and its seat is free.

    Concerns everyone still inside and, unless it went by itself, the player's own session. `note`
    is a moderator's reason, for the player alone.
    """

    player: Player
    reason: Departure
    note: str | None = None


@dataclass(frozen=True, slots=True)
class MasterChanged:
    """Mastership passed from one user to another; None is nobody. Concerns everyone inside, and
    those who watch the instance's object (`update-instance`)."""

    user: str | None
    before: str | None


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """A user became a moderator, or ceased to be one; `by` decided it. Concerns the user, everyone
    inside, and the store."""

    user: str
    role: Role
    by: str


@dataclass(frozen=True, slots=True)
class AdminChanged:
    """A user inside became an admin of the server, or is one no longer, and has another role by it.
    Concerns those whom `RoleChanged` concerns; there is nothing to write down."""

    user: str
    role: Role


@dataclass(frozen=True, slots=True)
class CandidateChanged:
    """A candidate's entry is new, another, or gone (None). Concerns the candidate and those who
    oversee; a new `pending` entry concerns also all who may admit it (`Instance.may_invite`)."""

    user: str
    entry: Entry | None
    why: Course


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """The queue is another; `waiting` stand in line now. At most one a call.

    Concerns each candidate in it, who is told its own entry and the number alone, and those who
    oversee, who are told all. It carries no entries, because most changes move everyone up: who
    tells of it asks for them (`Instance.entries`) once for many changes.
    """

    waiting: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A user inside was warned. Concerns that user alone."""

    user: str
    reason: str | None
    by: str


@dataclass(frozen=True, slots=True)
class Muted:
    """What a user sends is dropped from now on. Concerns that user and those who oversee."""

    user: str
    until: int | None
    reason: str | None
    by: str


@dataclass(frozen=True, slots=True)
class Unmuted:
    """A user is heard again; `by` is None when its time ran out. Concerns as `Muted` does."""

    user: str
    by: str | None


@dataclass(frozen=True, slots=True)
class BannedUser:
    """A ban to be written down before it is acknowledged; its `user` and `by` are `UserIDAt`s.

    Concerns the store, those who oversee, and the user if it may know of the instance, or could
    (`saw_instance`) until now. The user's players are gone by `Left`s that follow.
    """

    ban: Ban
    saw_instance: bool


@dataclass(frozen=True, slots=True)
class Unbanned:
    """A ban to be struck off; `by` is None when its time ran out. Concerns as `BannedUser` does."""

    user: str
    by: str | None


@dataclass(frozen=True, slots=True)
class Updated:
    """Title, description, capacity or tags are others. Concerns those who watch the object."""

    record: Instance


@dataclass(frozen=True, slots=True)
class Closed:
    """The instance is over, for good: `closed` by someone, or `empty` for too long.

    Concerns the store and those who watch the object. Everyone inside is gone before, by `Left`.
    """

    reason: Literal["closed", "empty"]


Happening: TypeAlias = (
    Joined
    | Left
    | MasterChanged
    | RoleChanged
    | AdminChanged
    | CandidateChanged
    | QueueChanged
    | Warned
    | Muted
    | Unmuted
    | BannedUser
    | Unbanned
    | Updated
    | Closed
)
