"""Limits that each node counts, shared with the others: what busy keys spend counts everywhere.

Once a second, a node tells the others which keys have used more than half of their allowance, and
how much of it since the last time. They count it as theirs. So a client that spreads its requests
over nodes gets more than its limit for a second at most. A lost message lets a bit more pass.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec
import trio

from actors.cluster.facts import ClusterMember
from api.rate_limits import HttpRateLimits
from reileta.cluster.bus import BusError, BusMessage
from reileta.cluster.calls import pack, unpacked

LIMITS: Final = "limits"
TOLD_EVERY_S: Final = 1.0
KEYS: Final = 1000
"""Keys of one limit that are told at once; those that spent most."""


class Spent(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """Seconds of allowance that keys have spent at a node, by limit."""

    node: str
    limit: str
    keys: dict[str, float]


_spent: Final = msgspec.msgpack.Decoder(Spent)


class SharedLimits:
    """Shares the limits of one node."""

    def __init__(self, member: ClusterMember, limits: HttpRateLimits) -> None:
        self._member = member
        self._limits = limits

    async def run(self) -> None:
        """Tells and hears until cancelled."""
        bus, subject = self._member.bus, self._member.subject(LIMITS)
        async with bus.subscribe(subject) as subscription, trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            while True:
                for item in await subscription.receive():
                    if isinstance(item, BusMessage):
                        spent = unpacked(item.data, _spent)
                        if spent is not None and spent.node != self._member.node:
                            self._limits.spend(spent.limit, spent.keys)

    async def _tell(self) -> None:
        while True:
            await trio.sleep(TOLD_EVERY_S)
            for limit, keys in self._limits.spent(KEYS).items():
                if keys:
                    with suppress(BusError):
                        message = Spent(self._member.node, limit, keys)
                        self._member.bus.publish(self._member.subject(LIMITS), pack(message))
