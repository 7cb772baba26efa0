"""A bus in memory, for several nodes in one process; it loses, delays and cuts what a test says.

It delivers in the order of the publications, and never delivers one twice, as NATS does.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from reileta.cluster.bus import (
    QUEUE_BYTES,
    QUEUE_MESSAGES,
    Bus,
    BusMessage,
    BusTooLarge,
    BusUnavailable,
    Gap,
    Headers,
    NoResponders,
    Subscription,
)

Loses = Callable[[str, BusMessage], bool]
"""Whether the message to the bus of that name is lost."""


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to the pattern gets messages of the subject."""
    parts, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(parts) >= len(wanted) and matches(
            ".".join(wanted[:-1]), ".".join(parts[: len(wanted) - 1])
        )
    return len(parts) == len(wanted) and all(
        one in ("*", part) for one, part in zip(wanted, parts, strict=True)
    )


@dataclass(eq=False)
class MemorySubscription:
    """A subscription: what waits in it."""

    bus: MemoryBus
    pattern: str
    group: str
    limit_messages: int
    items: list[BusMessage | Gap] = field(default_factory=list)
    wake: trio.Event = field(default_factory=trio.Event)

    async def receive(self) -> list[BusMessage | Gap]:
        while not self.items:
            await self.wake.wait()
        await trio.lowlevel.checkpoint()
        items, self.items = self.items, []
        self.wake = trio.Event()
        return items

    def put(self, item: BusMessage | Gap) -> None:
        if len(self.items) >= self.limit_messages:
            if not isinstance(self.items[-1], Gap):
                self.items.append(Gap(None))
            return
        self.items.append(item)
        self.wake.set()


class MemoryNats:
    """The server: all buses, and what is done to messages between them.

    Attributes:
        loses: decides which messages are lost.
        held: messages that wait until `release`; None: they are delivered at once.
        published: (bus, subject, bytes) of all publications, for tests that count.
    """

    def __init__(self, *, max_data_bytes: int = 1024 * 1024) -> None:
        self.max_data_bytes = max_data_bytes
        self.subscriptions: list[MemorySubscription] = []
        self.numbers = itertools.count(1)
        self.loses: Loses = lambda bus, message: False
        self.held: list[tuple[MemorySubscription, BusMessage]] | None = None
        self.published: list[tuple[str, str, int]] = []

    def bus(self, name: str) -> MemoryBus:
        """A connection of one node."""
        return MemoryBus(self, name)

    def hold(self) -> None:
        """Messages are on their way from now on."""
        self.held = []

    def release(self) -> None:
        """They arrive."""
        held, self.held = self.held or [], None
        for subscription, message in held:
            if subscription in self.subscriptions:
                subscription.put(message)

    def deliver(self, message: BusMessage) -> int:
        """Hands a message on; returns how many subscriptions there are for it."""
        to = [one for one in self.subscriptions if matches(one.pattern, message.subject)]
        to = [one for one in to if one.bus.connection is not None]
        groups: set[str] = set()
        for subscription in to:
            if subscription.group and subscription.group in groups:
                continue
            groups.add(subscription.group)
            if self.loses(subscription.bus.name, message):
                continue
            if self.held is not None:
                self.held.append((subscription, message))
            else:
                subscription.put(message)
        return len(to)


class MemoryBus(Bus):
    """One node's connection to it."""

    def __init__(self, nats: MemoryNats, name: str) -> None:
        self.nats = nats
        self.name = name
        self._connection: int | None = next(nats.numbers)
        self._changed = trio.Event()

    @property
    def connection(self) -> int | None:
        return self._connection

    def cut(self) -> None:
        """The connection ends; requests under way fail."""
        self._connection = None
        self._announce()

    def mend(self) -> None:
        """There is another connection."""
        self._connection = next(self.nats.numbers)
        for subscription in self.nats.subscriptions:
            if subscription.bus is self:
                subscription.put(Gap(None))
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed_from(self, connection: int | None) -> int | None:
        while self.connection == connection:
            await self._changed.wait()
        return self.connection

    @property
    def max_data_bytes(self) -> int:
        if self._connection is None:
            raise BusUnavailable("not connected")
        return self.nats.max_data_bytes

    def publish(
        self, subject: str, data: bytes, *, reply: str | None = None, headers: Headers | None = None
    ) -> None:
        self._send(BusMessage(subject, data, reply, headers or {}))

    def _send(self, message: BusMessage) -> int:
        if self._connection is None:
            raise BusUnavailable("not connected")
        size = len(message.data)
        if size > self.nats.max_data_bytes:
            raise BusTooLarge(size, self.nats.max_data_bytes)
        self.nats.published.append((self.name, message.subject, size))
        return self.nats.deliver(message)

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Headers | None = None,
        connection: int | None = None,
    ) -> BusMessage:
        answers = await self.request_all(subject, data, lambda _: True)
        return answers[0]

    async def request_all(
        self, subject: str, data: bytes, last: Callable[[BusMessage], bool]
    ) -> list[BusMessage]:
        inbox = f"_INBOX.{next(self.nats.numbers)}"
        answers: list[BusMessage] = []
        async with self.subscribe(inbox) as subscription:
            if not self._send(BusMessage(subject, data, inbox)):
                raise NoResponders(subject)
            while True:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._fail_when_cut, nursery.cancel_scope)
                    items = await subscription.receive()
                    nursery.cancel_scope.cancel()
                if nursery.cancel_scope.cancelled_caught and self._connection is None:
                    raise BusUnavailable("the connection ended before the answer came")
                for item in items:
                    if isinstance(item, Gap):
                        raise BusUnavailable("an answer was lost")
                    answers.append(item)
                    if last(item):
                        return answers

    async def _fail_when_cut(self, scope: trio.CancelScope) -> None:
        await self.changed_from(self._connection)
        scope.cancel()

    @asynccontextmanager
    async def subscribe(
        self,
        subject: str,
        *,
        group: str = "",
        limit_messages: int = QUEUE_MESSAGES,
        limit_bytes: int = QUEUE_BYTES,
    ) -> AsyncIterator[Subscription]:
        subscription = MemorySubscription(self, subject, group, limit_messages)
        self.nats.subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self.nats.subscriptions.remove(subscription)
