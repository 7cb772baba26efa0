"""A bus in memory, for members of one process; connections can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from reileta.cluster.bus import BusMessage, BusUnavailable, Gap, NoResponders


class FakeSubscription:
    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.items: list[BusMessage | Gap] = []
        self.wake = trio.Event()

    def put(self, item: BusMessage | Gap) -> None:
        self.items.append(item)
        self.wake.set()

    async def receive(self) -> list[BusMessage | Gap]:
        while not self.items:
            await self.wake.wait()
        items, self.items = self.items, []
        self.wake = trio.Event()
        return items


class FakeNats:
    """What the buses share. Only whole subjects can be listened on."""

    def __init__(self) -> None:
        self.buses: list[FakeBus] = []

    def bus(self) -> FakeBus:
        bus = FakeBus(self)
        self.buses.append(bus)
        return bus


class FakeBus:
    max_data_bytes = 64 * 1024

    def __init__(self, nats: FakeNats) -> None:
        self._nats = nats
        self._number = 1
        self.connection: int | None = 1
        self._changed = trio.Event()
        self.subscriptions: list[FakeSubscription] = []

    def cut(self) -> None:
        self.connection = None
        self._announce()

    def connect(self) -> None:
        self._number += 1
        self.connection = self._number
        for subscription in self.subscriptions:
            subscription.put(Gap(None))
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed_from(self, connection: int | None) -> int | None:
        while self.connection == connection:
            await self._changed.wait()
        return self.connection

    def publish(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if self.connection is None:
            raise BusUnavailable
        for bus in self._nats.buses:
            if bus.connection is not None:
                for subscription in bus.subscriptions:
                    if subscription.subject == subject:
                        subscription.put(BusMessage(subject, data, reply, headers or {}))

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        connection: int | None = None,
    ) -> BusMessage:
        raise NoResponders(subject)

    async def request_all(
        self, subject: str, data: bytes, last: Callable[[BusMessage], bool]
    ) -> list[BusMessage]:
        raise NoResponders(subject)

    @asynccontextmanager
    async def subscribe(
        self,
        subject: str,
        *,
        group: str = "",
        limit_messages: int = 0,
        limit_bytes: int = 0,
    ) -> AsyncIterator[FakeSubscription]:
        subscription = FakeSubscription(subject)
        self.subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self.subscriptions.remove(subscription)
