"""Events of an instance: past-tense values that the rules return, in order.

`Instance`'s methods return lists of these; the actor notifies the recipients that each docstring
names. Events don't mention sockets: the actor finds the sockets of a user or player. "Overseers"
are the owner, the server's admins, the master and the moderators inside (`Instance.overseers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from reileta.records import Ban, InstanceRecord
from reileta.rules.instance.candidates import Entry
from reileta.rules.instance.roles import Role
from reileta.rules.instance.seats import Player

LeaveReason = Literal[
    "left", "disconnected", "kicked", "banned", "closed", "server-blocked", "host-lost"
]
"""Why a player left: by itself, after its grace period, by moderation, because the instance closed,
because this server has nothing to do with the player's any more, or because the instance's node did
not come back."""

CandidateReason = Literal[
    "asked",
    "admitted",
    "joined",
    "withdrawn",
    "refused",
    "expired",
    "kicked",
    "banned",
    "closed",
    "server-blocked",
    "host-lost",
]
"""Why a candidate's entry is new, changed or removed."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A player joined. Recipients: everyone else inside; the player itself gets an answer."""

    player: Player
    role: Role


@dataclass(frozen=True, slots=True)
class Left:
    """A player left and its seat is free.

    Recipients: everyone still inside and, unless it left by itself, the player's own session.
    `note` is a moderator's reason, for the player only.
    """

    player: Player
    reason: LeaveReason
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Renamed:
    """A player's user changed its display name. Recipients: everyone inside, and subscribers."""

    player: Player


@dataclass(frozen=True, slots=True)
class MasterChanged:
    """Mastership passed from one user to another; None is nobody. Recipients: everyone inside, and
    subscribers of the instance (`update-instance`)."""

    user: str | None
    before: str | None


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """A user became a moderator, or stopped being one; `by` decided it. Recipients: the user,
    everyone inside, and the store."""

    user: str
    role: Role
    by: str


@dataclass(frozen=True, slots=True)
class AdminChanged:
    """A user inside became an admin of the server, or is no longer one, so its role changed.
    Recipients: as for `RoleChanged`; nothing is stored."""

    user: str
    role: Role


@dataclass(frozen=True, slots=True)
class CandidateChanged:
    """A candidate's entry is new, changed or removed (None). Recipients: the candidate and the
    overseers; for a new `pending` entry also all who may admit it (`Instance.may_invite`)."""

    user: str
    entry: Entry | None
    why: CandidateReason


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """The queue changed; `waiting` candidates are in it now. At most one per call.

    Recipients: each candidate in it, who gets its own entry and the number, and the overseers, who
    get all entries. The event has no entries, since most changes move everyone up: the actor reads
    them (`Instance.entries`) once for many changes.
    """

    waiting: int


@dataclass(frozen=True, slots=True)
class Warned:
    """A user inside was warned. Recipient: that user."""

    user: str
    reason: str | None
    by: str


@dataclass(frozen=True, slots=True)
class Muted:
    """The user's data is dropped from now on.

    Recipients: the store, that user and the overseers.
    """

    user: str
    until: int | None
    reason: str | None
    by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Unmuted:
    """A mute ended; `by` is None if it expired. Recipients: as for `Muted`."""

    user: str
    by: str | None


@dataclass(frozen=True, slots=True)
class BannedUser:
    """A user was banned, or all users of a server; `user` and `by` are `UserIDAt`s.

    Recipients: the store, the overseers, and the user if it may know of the instance, or could
    (`saw_instance`) until now. The user's players are gone by `Left`s that follow.
    """

    ban: Ban
    saw_instance: bool


@dataclass(frozen=True, slots=True)
class Unbanned:
    """A ban ended; `by` is None if it expired. Recipients: as for `BannedUser`."""

    user: str
    by: str | None


@dataclass(frozen=True, slots=True)
class Updated:
    """Title, description, capacity or tags changed. Recipients: subscribers of the instance."""

    record: InstanceRecord


@dataclass(frozen=True, slots=True)
class Closed:
    """The instance is closed for good: by a user or the server (`closed`), or because it was empty.

    Recipients: the store and the subscribers of the instance. Everyone inside has left before, by
    `Left`.
    """

    reason: Literal["closed", "empty"]


InstanceEvent: TypeAlias = (
    Joined
    | Left
    | Renamed
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
