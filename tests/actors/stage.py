"""What a play of sessions needs: nodes that end, and the answers that are no surprise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import trio

from actors.node import Node
from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    Overloaded,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceTaken,
    SessionNotFound,
)
from reileta.store import Store
from tests.conftest import ManualClock

REFUSALS: Final = (
    AlreadyConnected,
    CredentialInvalid,
    Overloaded,
    ResourceHeld,
    ResourceNotAcquired,
    ResourceTaken,
    SessionNotFound,
)
"""What may be answered to who asks in time: it is late, or someone else was quicker."""


@dataclass
class Running:
    """A node, and how it ends."""

    node: Node
    scope: trio.CancelScope
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: bool = False


@dataclass
class Beside:
    """What stands for a node where the database is asked beside it."""

    store: Store
    clock: ManualClock
