"""The dependencies that all resources of a node share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from actors.resource.interests import Interests
from actors.resource_access import SessionSockets
from reileta.clock import Clock
from reileta.observability.metrics import Metrics
from reileta.store import Store


class TellElsewhere(Protocol):
    """Sends the data of `resource-queue` to a session's sockets at other nodes."""

    def __call__(self, session_id: str, fields: Mapping[str, Any], /) -> None: ...


@dataclass(frozen=True, slots=True)
class ResourceDeps:
    """The dependencies and limits of a node's resources.

    `offer_ms`: how long an offer is valid. `grace_ms`: how long a session without a socket keeps
    its place in a waiting line.
    """

    store: Store
    clock: Clock
    metrics: Metrics
    sessions: SessionSockets
    interests: Interests
    offer_ms: int
    grace_ms: int
    present_elsewhere: Callable[[str], bool] | None = None
    """Whether a session has a socket at another node; None: there are none."""
    tell_elsewhere: TellElsewhere | None = None
    """Tells a session's sockets at other nodes its place in a line; None: there are none."""
