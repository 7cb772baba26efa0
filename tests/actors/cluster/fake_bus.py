"""A bus in memory, between nodes of one test; links can be cut, and messages lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from reileta.cluster.bus import (
    Bus,
    BusMessage,
    BusTooLarge,
    BusUnavailable,
    Gap,
    Headers,
    NoResponders,
)


class FakeSubscription:
    def __init__(self, pattern: str, group: str) -> None:
        self.group = group
        self._parts = pattern.split(".")
        self._items: list[BusMessage | Gap] = []
        self._wake = trio.Event()

    def matches(self, subject: str) -> bool:
        parts = subject.split(".")
        for number, wanted in enumerate(self._parts):
            if wanted == ">":
                return len(parts) > number
            if number >= len(parts) or wanted not in ("*", parts[number]):
                return False
        return len(parts) == len(self._parts)

    def put(self, item: BusMessage | Gap) -> None:
        self._items.append(item)
        self._wake.set()

    async def receive(self) -> list[BusMessage | Gap]:
        while not self._items:
            await self._wake.wait()
        items, self._items = self._items, []
        self._wake = trio.Event()
        return items


@dataclass
class FakeBroker:
    """What the buses are connected to."""

    buses: list[FakeBus] = field(default_factory=list)
    loses: Callable[[str, bytes], bool] = lambda subject, data: False
    """Whether a publication is lost on its way to all."""
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    max_data_bytes: int = 64 * 1024

    def bus(self) -> FakeBus:
        bus = FakeBus(self)
        self.buses.append(bus)
        return bus

    def deliver(self, message: BusMessage) -> int:
        self.sent.append((message.subject, message.data))
        reached = 0
        groups: set[str] = set()
        for bus in self.buses:
            for subscription in bus.subscriptions if bus.up else ():
                if subscription.matches(message.subject):
                    if subscription.group:
                        if subscription.group in groups:
                            continue
                        groups.add(subscription.group)
                    subscription.put(message)
                    reached += 1
        return reached


@dataclass(eq=False)
class FakeBus(Bus):
    """One node's bus."""

    broker: FakeBroker
    up: bool = True
    subscriptions: list[FakeSubscription] = field(default_factory=list)
    _number: int = 1
    _inboxes: int = 0
    _changed: trio.Event = field(default_factory=trio.Event)

    @property
    def connection(self) -> int | None:
        return self._number if self.up else None

    async def changed_from(self, connection: int | None) -> int | None:
        while self.connection == connection:
            await self._changed.wait()
        return self.connection

    def cut(self) -> None:
        self.up = False
        self._announce()

    def mend(self) -> None:
        self.up = True
        self._number += 1
        for subscription in self.subscriptions:
            subscription.put(Gap(None))
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    @property
    def max_data_bytes(self) -> int:
        if not self.up:
            raise BusUnavailable
        return self.broker.max_data_bytes

    def publish(
        self, subject: str, data: bytes, *, reply: str | None = None, headers: Headers | None = None
    ) -> None:
        if not self.up:
            raise BusUnavailable
        if len(data) > self.broker.max_data_bytes:
            raise BusTooLarge(len(data), self.broker.max_data_bytes)
        if not self.broker.loses(subject, data):
            self.broker.deliver(BusMessage(subject, data, reply, headers or {}))

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Headers | None = None,
        connection: int | None = None,
    ) -> BusMessage:
        return (await self.request_all(subject, data, lambda _: True))[0]

    async def request_all(
        self, subject: str, data: bytes, last: Callable[[BusMessage], bool]
    ) -> list[BusMessage]:
        if not self.up:
            raise BusUnavailable
        self._inboxes += 1
        inbox = f"_INBOX.{id(self)}.{self._inboxes}"
        answers: list[BusMessage] = []
        async with self.subscribe(inbox) as subscription:
            if not self.broker.deliver(BusMessage(subject, data, inbox)):
                raise NoResponders(subject)
            while True:
                for item in await subscription.receive():
                    if isinstance(item, Gap):
                        raise BusUnavailable
                    answers.append(item)
                    if last(item):
                        return answers

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, group: str = "", limit_messages: int = 0, limit_bytes: int = 0
    ) -> AsyncIterator[FakeSubscription]:
        subscription = FakeSubscription(subject, group)
        self.subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self.subscriptions.remove(subscription)


@dataclass
class FakeMember:
    """A node of a cluster, whose lease never ends."""

    node: str
    bus: FakeBus
    peers: dict[str, object] = field(default_factory=dict)

    @property
    def nodes(self) -> Mapping[str, object]:
        return {self.node: None, **self.peers}

    def valid(self) -> bool:
        return True

    def subject(self, *parts: str) -> str:
        return ".".join(("avr", "test", *parts))
