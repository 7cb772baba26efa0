"""The dependencies that all resources of a node share."""

from __future__ import annotations

from dataclasses import dataclass

from actors.resource.interests import Interests
from actors.resource_access import SessionSockets
from reileta.clock import Clock
from reileta.observability.metrics import Metrics
from reileta.store import Store


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
