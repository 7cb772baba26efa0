"""The configuration that all instances of a node share."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import partial

from actors.delivery.pacing import CoreLoad
from actors.directory import Directory
from actors.hub.messages import HubMessage
from actors.instance.hosted import Holding
from actors.instance.publisher import NewsRelay
from actors.instance.recovery import RecoveryState
from actors.runtime.mailbox import Ref
from actors.runtime.rounds import Rounds
from actors.server import LiveServer
from reileta.clock import Clock
from reileta.observability.activity_log import ActivityLog
from reileta.observability.metrics import Metrics
from reileta.rules.instance.instance import InstanceLimits
from reileta.security.tickets import Ticket
from reileta.store import Store
from reileta.store.host_writes import FencedHostWrites, HostWrites, UnfencedHostWrites


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """The dependencies and limits of an instance."""

    store: Store
    clock: Clock
    server: LiveServer
    limits: InstanceLimits
    directory: Directory
    metrics: Metrics
    activity: ActivityLog
    hub: Ref[HubMessage]
    relay: NewsRelay | None = None
    """Publishes to other nodes; None: there are none."""
    ended: Container[str] = frozenset()
    """The ids of sessions and users that have ended or were deleted a moment ago."""
    admits: Callable[[str], bool] = lambda _: True
    """Whether a user (`UserIDAt` or bare id) may be here: not one of a server that is blocked."""
    ensure_account: Callable[[str], None] = lambda _: None
    """Raises ClientBlocked if a rule refuses the user (`UserIDAt` or bare id)."""
    backlog_limit_bytes: int = 1 << 20
    """How many bytes may wait for one socket."""
    paced: bool = True
    """Whether players who send more than others can receive are held back."""
    sign: Callable[[Ticket], str] | None = None
    """Signs tickets for direct connections to instance nodes; None: this process can't."""
    fenced: Callable[[Holding], None] = lambda _: None
    """Is called when a write has found that the instance has another host."""
    load: CoreLoad = field(default_factory=CoreLoad)
    """How busy the core is, for the rest after a fan-out."""
    in_turns: bool = True
    """Whether large rooms may be written to in turns. Compression would be done in each turn."""
    rounds: Rounds | None = None
    """The rounds in which the sockets are read; None: all messages wait in mailboxes."""

    def writes(self, recovery: RecoveryState) -> HostWrites:
        """The durable writes of an instance's host."""
        holding = recovery.holding
        if holding is None:
            return UnfencedHostWrites(self.store, recovery.record.id)
        fenced = partial(self.fenced, holding)
        return FencedHostWrites(self.store, holding.tenure, holding.valid, fenced)

    @property
    def address(self) -> str:
        """The node's `ServerAt`."""
        return self.server.address
