"""What the database keeps, as values. Times are integer milliseconds since 1970 UTC.

`UserRef`s (`owner`, `by`, …) are `UserIDAt`s only for users of other servers; a user of this server
stands with its bare id, so that the server's address can change.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Generic, TypeVar

ADMIN_TAG: Final = "avr:admin"
"""The tag of a user that administers the server; only admins give it."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list: `items` from `offset` on, of `total` in all."""

    items: tuple[T, ...]
    total: int
    limit: int
    offset: int


@dataclass(frozen=True, slots=True)
class User:
    """An account (R `User`, S `User`). `number` is S's integer id."""

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

    @property
    def admin(self) -> bool:
        return ADMIN_TAG in self.tags


@dataclass(frozen=True, slots=True)
class Session:
    """A context of a user's activity that outlives tokens and connections (S `Session`)."""

    id: str
    user_id: str
    created_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class Token:
    """A credential as it is kept: the keys' SHA-256 alone (PROTOCOL §3)."""

    access_hash: bytes
    refresh_hash: bytes | None
    session_id: str
    user_id: str
    created_at: int
    access_expires: int
    refresh_expires: int
    killed_at: int | None


@dataclass(frozen=True, slots=True)
class World:
    """A world (PROTOCOL §5). `number` is S's integer id."""

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
class Instance:
    """An instance as it outlives the process (PROTOCOL §6); who is inside is not kept.

    `world` is `w_…`, with `:version` when one was asked for and `@server` when it is another's.
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


@dataclass(frozen=True, slots=True)
class Ban:
    """Who may not enter an instance, until when (None: for good), why and by whose word."""

    instance_id: str
    user: str
    until: int | None
    reason: str | None
    by: str
    created_at: int


class Unset(Enum):
    """The type of `UNSET`, which says that a change leaves a field as it is; None empties it."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class InstanceChanges:
    """What `POST /api/instances/:id` is to change (PROTOCOL §6)."""

    title: str | Unset | None = UNSET
    description: str | Unset | None = UNSET
    capacity: int | Unset = UNSET
    tags: frozenset[str] | Unset = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that change, with their new values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not UNSET}
