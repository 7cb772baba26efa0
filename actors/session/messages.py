"""What a session is told that concerns its state, its resource and its tokens (S, PROTOCOL §8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import outcome

from actors.delivery.sink import Line
from actors.runtime.message import Message, Request
from reileta import records
from reileta.rules.resource.json_values import Json
from reileta.rules.resource.resource import Claimant, Name


@dataclass(frozen=True, slots=True)
class Open(Request[None]):
    """A WebSocket of the session API speaks for the session; it is greeted with `hello`.

    `token_hash` is its token's id, good until `expires` (ms).
    """

    line: Line
    token_hash: bytes
    expires: int


@dataclass(frozen=True, slots=True)
class Patch(Message):
    """A socket changes the state; `event_id` is acknowledged, or refused."""

    line: Line
    event_id: str
    patch: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Acquire(Request[records.Held]):
    """The session is to have a resource."""

    name: Name
    who: Claimant


@dataclass(frozen=True, slots=True)
class Release(Request[None]):
    """The session is to have a resource no more; of what nobody has, nothing happens."""

    name: Name
    who: Claimant


@dataclass(frozen=True, slots=True)
class Write(Request[records.Resource]):
    """The session's resource is changed by a merge patch, if it is of `if_version`."""

    name: Name
    who: Claimant
    patch: dict[str, Json]
    if_version: int | None


@dataclass(frozen=True, slots=True)
class Delete(Request[records.Resource]):
    """The session's resource is deleted, if it is of `if_version`."""

    name: Name
    who: Claimant
    if_version: int | None


@dataclass(frozen=True, slots=True)
class Taken(Message):
    """The store has taken a resource from the session."""

    number: int
    fence: int


@dataclass(frozen=True, slots=True)
class Admit(Message):
    """A token of the session has keys that are good until then (ms)."""

    token_hash: bytes
    expires: int


@dataclass(frozen=True, slots=True)
class Due(Message):
    """The time that the session's rules named has come."""


@dataclass(frozen=True, slots=True)
class Settled(Message):
    """What the database was asked has an outcome, which is for `then`."""

    result: outcome.Outcome[object]
    then: Callable[[outcome.Outcome[object]], None]


Errand: TypeAlias = Acquire | Release | Write | Delete
"""What is asked of the session's resource: one at a time."""
EstateMessage: TypeAlias = Open | Patch | Errand | Taken | Admit | Due | Settled
