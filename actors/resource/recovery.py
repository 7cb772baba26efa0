"""The state of a resource that survives a crash of its actor."""

from __future__ import annotations

from dataclasses import dataclass, field

from actors.delivery.sink import SessionSink, Sink
from actors.resource.snapshot import Snapshot
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.waiting_line import WaitingLine
from reileta.rules.resource.watchers import Watchers
from reileta.store.resources import Stamp, stamp_of


@dataclass(slots=True)
class ResourceRecovery:
    """State that survives a crash of the resource's actor. A restarted actor continues with it.

    The resource itself is in the database alone: a restarted actor reads it again, and tells the
    watchers what they missed.

    `name`: None until the resource was found.
    `line`: the sessions that wait.
    `watchers`: the sockets that watch; `session_sinks` are those of them of the session API.
    `known`: the resource as it was last read for those who watch or wait; None: not yet.
    `told`: the resource as the watchers were last told of it.
    `asked`: whether requests wait or are carried out.

    The resource's actor writes it; the node's `ResourceManager` reads it.
    """

    line: WaitingLine
    name: ResourceKey | None = None
    watchers: Watchers[Sink] = field(default_factory=Watchers)
    session_sinks: dict[Sink, SessionSink] = field(default_factory=dict)
    known: Snapshot | None = None
    told: Snapshot | None = None
    asked: bool = False

    @property
    def wanted(self) -> bool:
        """Whether somebody watches or waits."""
        return bool(len(self.watchers) or len(self.line))

    @property
    def stamp(self) -> Stamp | None:
        """The stamp of the resource as it is known."""
        if self.known is None:
            return None
        resource = self.known.resource
        record, lease = resource.record, resource.lease
        return stamp_of(record.version, record.owner, lease.session, lease.fence, record.shares)
