"""The configuration that all instances of a node share."""

from __future__ import annotations

from dataclasses import dataclass

from actors.directory import Directory
from actors.hub.messages import HubMessage
from actors.runtime.ref import Ref
from reileta.clock import Clock
from reileta.observability.metrics import Metrics
from reileta.rules.instance.instance import InstanceLimits
from reileta.settings import Settings
from reileta.store import Store


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """What every instance of a node gets from it."""

    store: Store
    clock: Clock
    address: str
    secure: bool
    limits: InstanceLimits
    directory: Directory
    metrics: Metrics
    hub: Ref[HubMessage]
    backlog_limit_bytes: int = 1 << 20
    """How many bytes may wait for one socket."""
    paced: bool = True
    """Whether players who send more than others can receive are held back."""


def instance_limits(settings: Settings) -> InstanceLimits:
    """The times of an instance, in the rules' milliseconds."""
    return InstanceLimits(
        grace_ms=int(settings.seat_grace_s * 1000),
        hold_ms=int(settings.hold_s * 1000),
        queue_grace_ms=int(settings.queue_grace_s * 1000),
        empty_ms=int(settings.empty_instance_s * 1000),
        retained_keys=64,
        retained_bytes=64 * 1024,
        candidates=4096,
        seats_per_user=settings.seats_per_user if settings.rate_limits == "on" else 0,
    )
