"""The parts that the helpers of one resource's actor share."""

from __future__ import annotations

from dataclasses import dataclass

from actors.resource.config import ResourceDeps
from actors.resource.messages import ResourceMessage
from actors.resource.recovery import ResourceRecovery
from actors.runtime.actor import Context


@dataclass(frozen=True, slots=True)
class ResourceParts:
    """One incarnation's shared parts."""

    number: int
    recovery: ResourceRecovery
    deps: ResourceDeps
    context: Context[ResourceMessage]

    def now(self) -> int:
        """The time, ms."""
        return self.deps.clock.now_ms()
