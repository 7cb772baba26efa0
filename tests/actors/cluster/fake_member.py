"""A node of a cluster, whose lease never ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.reileta.cluster.memory_bus import MemoryBus


@dataclass
class FakeMember:
    """A node that knows `peers`."""

    node: str
    bus: MemoryBus
    peers: dict[str, object] = field(default_factory=dict)

    @property
    def nodes(self) -> Mapping[str, object]:
        return {self.node: None, **self.peers}

    def valid(self) -> bool:
        return True

    def subject(self, *parts: str) -> str:
        return ".".join(("avr", "test", *parts))
