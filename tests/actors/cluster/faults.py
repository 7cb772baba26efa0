"""What goes wrong between the nodes of a test, at random."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from actors.instance.hosted import Where
from reileta.cluster.bus import BusMessage
from tests.actors.cluster.cluster_harness import Cluster


class Faults:
    """Messages that are lost, and calls and answers that are late; a slow database. Set it as
    `cluster.nats.loses`. It draws a strength of each from those that it is given.

    Attributes:
        over: whether nothing goes wrong any more.
    """

    def __init__(
        self,
        cluster: Cluster,
        chance: random.Random,
        nursery: trio.Nursery,
        *,
        lost: Sequence[float],
        late: Sequence[float],
        late_s: Sequence[float],
    ) -> None:
        """`lost`, `late`: shares of the messages."""
        self._cluster, self._chance, self._nursery = cluster, chance, nursery
        self._lost = chance.choice(lost)
        self._late = chance.choice(late)
        self._late_s = chance.choice(late_s)
        self._slow_s = chance.choice([0, 0.2, 1])
        self.over = False
        for node in cluster.nodes.values():
            hosts = node.manager.hosts
            assert hosts is not None
            hosts.place = partial(self._place, hosts.place)  # type: ignore[method-assign]

    async def _place(self, place: Callable[[str], Awaitable[Where]], instance_id: str) -> Where:
        if not self.over and self._slow_s:
            await trio.sleep(self._chance.uniform(0, self._slow_s))
        return await place(instance_id)

    def __call__(self, bus: str, message: BusMessage) -> bool:
        if self.over:
            return False
        if self._chance.random() < self._lost:
            return True
        call = message.subject.endswith(".rpc") or message.subject.startswith("_INBOX")
        if call and self._chance.random() < self._late:
            late_s = self._chance.uniform(0, self._late_s)
            self._nursery.start_soon(self._deliver, bus, message, late_s)
            return True
        return False

    async def _deliver(self, bus: str, message: BusMessage, late_s: float) -> None:
        await trio.sleep(late_s)
        for one in list(self._cluster.nats.subscriptions):
            if one.bus.name == bus and one.pattern == message.subject:
                one.put(message)
