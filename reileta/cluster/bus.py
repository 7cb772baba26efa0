"""The bus between nodes: messages, requests and reconnects. The only module that knows NATS.

`Bus` is what the rest of the server knows; `open_bus` connects one to NATS, with nats-py on the
asyncio loop of `reileta/store/database.py`. nats-py is optional (`pip install 'reileta[cluster]'`),
and imported only when a bus is opened.

NATS delivers a message at most once. So every loss is either visible to the one who must know it
(`Gap`, `NoResponders`, `BusUnavailable`), or the receiver must find it by numbers of its own.

Each connection is a client of its own, and has a number (`Bus.connection`). nats-py could reconnect
by itself, but then it would keep publications for the next connection, may wait for the end of a
connection that hangs, and could not say on which connection a request was sent. A request can ask
for one connection, and fails on any other.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import structlog
import trio

from reileta.concurrency import plain_nursery
from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.database import Loop

if TYPE_CHECKING:
    import ssl

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as NatsSubscription

__all__ = [
    "Bus",
    "BusError",
    "BusFull",
    "BusMessage",
    "BusTooLarge",
    "BusUnavailable",
    "Gap",
    "NoResponders",
    "Subscription",
    "open_bus",
]

CONNECT_S: Final = 2.0
"""Seconds for one attempt to connect."""
RETRY_S: Final = 0.1
"""Seconds between two attempts."""
PING_S: Final = 1
"""Seconds between two pings; a connection ends if two of them are not answered by the third."""
PINGS: Final = 2
REQUEST_S: Final = 60.0
"""Seconds for the answer to a request, if the caller sets no deadline."""
CLOSE_S: Final = 1.0
"""Seconds for an orderly close of a connection."""
OUTBOX_BYTES: Final = 16 * 1024 * 1024
"""Publications that wait for the connection. More are refused with `BusFull`."""
BUFFER_BYTES: Final = 1024 * 1024
"""Publications that nats-py may have in its buffer; more wait in the outbox."""
PAUSE_S: Final = 0.005
"""Seconds between two looks at that buffer while it is full."""
REQUESTS: Final = 4096
"""Requests that may wait for their answers at the same time."""
ANSWERS_BYTES: Final = 64 * 1024 * 1024
"""All answers to one request; with more, it fails."""
QUEUE_MESSAGES: Final = 16_384
QUEUE_BYTES: Final = 16 * 1024 * 1024
"""The default bounds of a subscription's queue."""
MESSAGE_OVERHEAD_BYTES: Final = 128
"""Counted for each message, besides its data."""

_SUBJECT: Final = re.compile(r"[!-)+\-/-=?-~]+(\.[!-)+\-/-=?-~]+)*")
"""Of printable characters without `*` and `>`, in parts that are not empty."""
_PATTERN: Final = re.compile(r"(?:(?:\*|[!-)+\-/-=?-~]+)\.)*(?:\*|>|[!-)+\-/-=?-~]+)")
_SUBJECT_LIMIT: Final = 512
_HEADER: Final = re.compile(r"[!-9;-~]+")
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_HEADER_LINE_BYTES: Final = len("NATS/1.0\r\n\r\n")

_log = structlog.get_logger()


class BusError(Exception):
    """A message was not sent, or an answer did not come."""


class BusUnavailable(BusError):
    """There is no connection, or it ended. A request may have been carried out, or may be later."""


class NoResponders(BusError):
    """Nobody listens on the subject. NATS says so at once."""


class BusFull(BusError):
    """Too much waits for the connection; nothing was sent."""


class BusTooLarge(BusError):
    """The message is larger than NATS takes; nothing was sent. NATS would end the connection."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"a message of {size_bytes} bytes; NATS takes {limit_bytes} bytes")
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


@dataclass(frozen=True, slots=True)
class BusMessage:
    """A message as it arrived. `reply`: where its sender expects an answer."""

    subject: str
    data: bytes
    reply: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages may be missing here: so many, or (None) unknown ones because of a reconnect."""

    lost: int | None


class Subscription(Protocol):
    """Messages of a subject.

    They wait in a queue with a bound on messages and on bytes. While it is full, further messages
    are dropped, and a `Gap` stands in their place: the connection and other subscriptions must not
    wait for a receiver that is slow.
    """

    async def receive(self) -> list[BusMessage | Gap]:
        """Everything that waits, at least one; waits for it. For one task at a time."""
        ...


class Bus(Protocol):
    """Messages to other nodes. A bus belongs to one Trio run."""

    @property
    def connection(self) -> int | None:
        """The number of the present connection, which is never used again; None without one."""
        ...

    async def changed_from(self, connection: int | None) -> int | None:
        """Waits until `connection` is not the present connection; the one that is."""
        ...

    @property
    def max_data_bytes(self) -> int:
        """The largest data of a message without headers. Raises BusUnavailable."""
        ...

    def publish(
        self, subject: str, data: bytes, *, reply: str | None = None, headers: Headers | None = None
    ) -> None:
        """Sends a message to all who listen, without waiting. Those of one bus arrive in order.

        A message that was accepted is lost if the connection ends before it is sent.

        Raises BusUnavailable, BusFull and BusTooLarge.
        """
        ...

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Headers | None = None,
        connection: int | None = None,
    ) -> BusMessage:
        """Sends a message to one who listens, and waits for the answer: set a deadline.

        It may overtake publications. `connection`: only on that one.

        Raises BusUnavailable, NoResponders, BusFull and BusTooLarge.
        """
        ...

    async def request_all(
        self, subject: str, data: bytes, last: Callable[[BusMessage], bool]
    ) -> list[BusMessage]:
        """Like `request`, for several answers: all up to the one that is the `last`."""
        ...

    def subscribe(
        self,
        subject: str,
        *,
        group: str = "",
        limit_messages: int = QUEUE_MESSAGES,
        limit_bytes: int = QUEUE_BYTES,
    ) -> AbstractAsyncContextManager[Subscription]:
        """Listens during the body, on each connection, from its first line on. `*` and `>` in the
        subject match any part and any rest. Of those in one group, one gets each message."""
        ...


Headers = Mapping[str, str]


@asynccontextmanager
async def open_bus(
    urls: tuple[str, ...], name: str, loop: Loop, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Bus]:
    """A bus during the body. It connects in the background, and again whenever a connection ends.

    Args:
        urls: `nats://[user:password@ or token@]host[:port]` or `tls://…`; tried in turn.
        name: of the connections, as NATS shows it.
        loop: an asyncio loop in this Trio run (`asyncio_loop`).

    Raises:
        StartupError: a URL is wrong, or nats-py is not installed.
    """
    for url in urls:
        _check_url(url)
    bus = _NatsBus(urls, name, loop, _client_class(), tls)
    async with plain_nursery() as nursery:
        nursery.start_soon(bus.run)
        try:
            yield bus
        finally:
            nursery.cancel_scope.cancel()


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right:  # the URL may hold a password: it is not shown
        raise StartupError("--nats must be URLs such as nats://localhost:4222")


def _client_class() -> type[Client]:
    try:
        from nats.aio.client import Client
    except ImportError as error:
        raise StartupError("--nats needs nats-py: pip install 'reileta[cluster]'") from error

    class LosingClient(Client):
        """A client that leaves a broken connection to its owner.

        nats-py would close it by itself, and wait for a server that hangs to take what is in the
        buffers.
        """

        on_loss: Callable[[Exception], None]
        answered = False
        """Whether a request was answered since the last ping was due: as good as its answer."""

        async def _process_op_err(self, e: Exception) -> None:
            self.on_loss(e)

        async def _process_pong(self) -> None:
            # nats-py keeps the future of a flush that nobody waits for any more, and ends its
            # reading at the PONG for it: the connection would be deaf until its pings fail.
            if self._pongs and self._pongs[0].done():
                self._pongs[0] = asyncio.Future()
            await super()._process_pong()

        async def _send_ping(self, future: asyncio.Future[None] | None = None) -> None:
            if future is None and self.answered:
                self.answered, self._pings_outstanding = False, 0
                return
            await super()._send_ping(future)

        async def _process_msg(
            self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
        ) -> None:
            # nats-py has a queue and a task for each subscription: a turn more of both loops for
            # each message. What subscriptions do here never waits.
            subscription = self._subs.get(sid)
            if subscription is not None and subscription._cb is not None:
                lines = await self._process_headers(headers)
                await subscription._cb(self._build_message(sid, subject, reply, data, lines))

    return LosingClient


class _Queue:
    """A subscription: what waits in it, and its bounds."""

    def __init__(self, subject: str, group: str, limit_messages: int, limit_bytes: int) -> None:
        self.subject = subject
        self.group = group
        self.limit_messages = limit_messages
        self.limit_bytes = limit_bytes
        self._items: deque[BusMessage | Gap] = deque()
        self._bytes = 0
        self._wake = trio.Event()

    async def receive(self) -> list[BusMessage | Gap]:
        while not self._items:
            await self._wake.wait()
        items = list(self._items)
        self._items.clear()
        self._bytes = 0
        self._wake = trio.Event()
        return items

    def put(self, message: BusMessage) -> None:
        size_bytes = len(message.data) + MESSAGE_OVERHEAD_BYTES
        if len(self._items) >= self.limit_messages or self._bytes + size_bytes > self.limit_bytes:
            self.lose(1)
            return
        self._bytes += size_bytes
        self._items.append(message)
        self._wake.set()

    def lose(self, lost: int | None) -> None:
        """Notes a gap; it joins one that stands at the end already."""
        if self._items and isinstance(last := self._items[-1], Gap):
            self._items.pop()
            lost = None if lost is None or last.lost is None else lost + last.lost
        self._items.append(Gap(lost))
        self._wake.set()


_Outgoing: TypeAlias = tuple[str, bytes, str, dict[str, str] | None]
"""Subject, data, where answers go, and headers."""


class _Request:
    """A request under way: its answers, up to the last one."""

    def __init__(self, subject: str, last: Callable[[BusMessage], bool]) -> None:
        self.answers: list[BusMessage] = []
        self.over = trio.Event()
        self.failure: BusError | None = None
        self._subject = subject
        self._last = last
        self._bytes = 0

    def take(self, answer: BusMessage) -> None:
        if self.over.is_set():
            return
        self._bytes += len(answer.data) + MESSAGE_OVERHEAD_BYTES
        if answer.headers.get("Status") == "503" and not answer.data:
            self.fail(NoResponders(self._subject))
        elif self._bytes > ANSWERS_BYTES:
            self.fail(BusUnavailable("the answers are too large"))
        else:
            self.answers.append(answer)
            if self._last(answer):
                self.over.set()

    def fail(self, failure: BusError) -> None:
        self.failure = failure
        self.over.set()


@dataclass(eq=False)
class _Link:
    """One connection. `inbox`: the subject of all answers, without its last part.

    `urgent`: requests that wait to be sent, before what is in the outbox.
    """

    number: int
    client: Client
    inbox: str
    broken: trio.Event = field(default_factory=trio.Event)
    subscriptions: dict[_Queue, NatsSubscription] = field(default_factory=dict)
    requests: dict[str, _Request] = field(default_factory=dict)
    urgent: deque[_Outgoing] = field(default_factory=deque)
    outbox: deque[_Outgoing] = field(default_factory=deque)
    outbox_bytes: int = 0
    filled: asyncio.Event = field(default_factory=asyncio.Event)


class _NatsBus:
    """The bus over nats-py."""

    def __init__(
        self,
        urls: tuple[str, ...],
        name: str,
        loop: Loop,
        client_class: type[Client],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._urls = urls
        self._name = name
        self._loop = loop
        self._client_class = client_class
        self._tls = tls
        self._queues: set[_Queue] = set()
        self._link: _Link | None = None
        self._numbers = 0
        self._changed = trio.Event()
        self._inboxes = 0
        self._reason = ""
        """The error that was logged last, until the next connection."""
        self._prefix = secrets.token_hex(8)

    # The face

    @property
    def connection(self) -> int | None:
        return None if self._link is None else self._link.number

    async def changed_from(self, connection: int | None) -> int | None:
        while self.connection == connection:
            await self._changed.wait()
        return self.connection

    @property
    def max_data_bytes(self) -> int:
        return self._present(None).client.max_payload

    def publish(
        self, subject: str, data: bytes, *, reply: str | None = None, headers: Headers | None = None
    ) -> None:
        link = self._present(None)
        size_bytes = _checked_size(link, subject, data, headers) + MESSAGE_OVERHEAD_BYTES
        if link.outbox_bytes + size_bytes > OUTBOX_BYTES:
            raise BusFull
        link.outbox_bytes += size_bytes
        link.outbox.append((subject, data, reply or "", None if headers is None else dict(headers)))
        link.filled.set()

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Headers | None = None,
        connection: int | None = None,
    ) -> BusMessage:
        answers = await self._request(subject, data, headers, connection, lambda _: True)
        return answers[0]

    async def request_all(
        self, subject: str, data: bytes, last: Callable[[BusMessage], bool]
    ) -> list[BusMessage]:
        return await self._request(subject, data, None, None, last)

    async def _request(
        self,
        subject: str,
        data: bytes,
        headers: Headers | None,
        connection: int | None,
        last: Callable[[BusMessage], bool],
    ) -> list[BusMessage]:
        link = self._present(connection)
        _checked_size(link, subject, data, headers)
        if len(link.requests) >= REQUESTS:
            raise BusFull
        self._inboxes += 1
        inbox = f"{link.inbox}.{self._inboxes}"
        request = link.requests[inbox] = _Request(subject, last)
        link.urgent.append((subject, data, inbox, None if headers is None else dict(headers)))
        link.filled.set()
        try:
            with trio.move_on_after(REQUEST_S):
                await request.over.wait()
        finally:
            del link.requests[inbox]
        if request.failure is not None:
            raise request.failure
        if not request.over.is_set():
            raise BusUnavailable("no answer came")
        return request.answers

    @asynccontextmanager
    async def subscribe(
        self,
        subject: str,
        *,
        group: str = "",
        limit_messages: int = QUEUE_MESSAGES,
        limit_bytes: int = QUEUE_BYTES,
    ) -> AsyncIterator[Subscription]:
        if len(subject) > _SUBJECT_LIMIT or not _PATTERN.fullmatch(subject):
            raise ValueError(f"not a subject to listen on: {subject!r}")
        queue = _Queue(subject, group, limit_messages, limit_bytes)
        self._queues.add(queue)
        try:
            # Without a connection, the next one begins with it.
            link = self._link
            if link is not None:
                await self._listen(link, queue)
                await self._flush(link)
            yield queue
        finally:
            self._queues.discard(queue)
            if self._link is not None:
                await self._stop_listening(self._link, queue)

    def _present(self, connection: int | None) -> _Link:
        link = self._link
        if link is None or connection not in (None, link.number):
            raise BusUnavailable("not connected" if link is None else "the connection has ended")
        return link

    # Subscriptions of a connection

    async def _listen_for_answers(self, link: _Link) -> None:
        """One subscription for the answers to all requests."""

        async def take(message: Msg) -> None:
            link.client.answered = True  # type: ignore[attr-defined]
            request = link.requests.get(message.subject)
            if request is not None:
                request.take(_message(message))

        with suppress(BusUnavailable), _translated():
            await self._loop.run_aio_coroutine(
                link.client.subscribe(f"{link.inbox}.*", cb=take, pending_msgs_limit=0)
            )

    async def _listen(self, link: _Link, queue: _Queue) -> None:
        async def take(message: Msg) -> None:
            queue.put(_message(message))

        with suppress(BusUnavailable), _translated():  # the next connection begins with it
            subscription = await self._loop.run_aio_coroutine(
                link.client.subscribe(
                    queue.subject,
                    queue=queue.group,
                    cb=take,
                    # The queue of nats-py is not used.
                    pending_msgs_limit=0,
                    pending_bytes_limit=0,
                )
            )
            link.subscriptions[queue] = subscription

    async def _flush(self, link: _Link) -> None:
        """Waits until the server knows the subscriptions, or the connection has ended."""
        with suppress(BusUnavailable), _translated():
            await self._loop.run_aio_coroutine(link.client.flush(timeout=int(CONNECT_S)))

    async def _stop_listening(self, link: _Link, queue: _Queue) -> None:
        subscription = link.subscriptions.pop(queue, None)
        if subscription is None:
            return
        with trio.move_on_after(CLOSE_S, shield=True), suppress(BusUnavailable), _translated():
            await self._loop.run_aio_coroutine(subscription.unsubscribe())

    # Connections

    async def run(self) -> None:
        """Connects again and again, to one URL after the other."""
        number = 0
        while True:
            url = self._urls[number % len(self._urls)]
            number += 1
            link = await self._connected(url)
            if link is None:
                await trio.sleep(RETRY_S)
                continue
            try:
                await self._serve(link)
            finally:
                self._lose(link)
                with trio.CancelScope(shield=True):
                    await self._loop.run_aio_coroutine(_discard(link.client))

    async def _connected(self, url: str) -> _Link | None:
        """A new connection to the server; None if it can't be made."""
        client = self._client_class()
        number = self._numbers + 1
        link = _Link(number, client, f"_INBOX.{self._prefix}.{number}")
        client.on_loss = lambda _: link.broken.set()  # type: ignore[attr-defined]

        async def failed(error: Exception) -> None:
            self._note(link, error)

        async def closed() -> None:
            link.broken.set()

        made = False
        try:
            with trio.move_on_after(CONNECT_S), suppress(BusUnavailable), _translated():
                await self._loop.run_aio_coroutine(
                    client.connect(
                        url,
                        name=self._name,
                        tls=self._tls,
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        connect_timeout=int(CONNECT_S),
                        ping_interval=PING_S,
                        max_outstanding_pings=PINGS,
                        # No bound of nats-py: a wait for it swallows cancellation. `_pump` waits.
                        pending_size=-1,
                        error_cb=failed,
                        closed_cb=closed,
                    )
                )
                made = True
        finally:
            if not made:
                with trio.CancelScope(shield=True):
                    await self._loop.run_aio_coroutine(_discard(client))
        if not made:
            return None
        self._numbers += 1
        return link

    def _note(self, link: _Link, error: Exception) -> None:
        """nats-py reports an error of a connection."""
        reason = f"{type(error).__name__}: {error}"
        if reason != self._reason:  # while NATS is away, each attempt fails
            self._reason = reason
            _log.warning(log_events.BUS_FAILED, reason=reason)

    async def _serve(self, link: _Link) -> None:
        """Uses the connection until it ends."""
        async with plain_nursery() as nursery:
            nursery.start_soon(self._end_when_broken, link, nursery.cancel_scope)
            await self._listen_for_answers(link)
            while not link.broken.is_set() and self._queues != link.subscriptions.keys():
                for queue in self._queues - link.subscriptions.keys():
                    queue.lose(None)
                    await self._listen(link, queue)
                for queue in link.subscriptions.keys() - self._queues:
                    await self._stop_listening(link, queue)
                await self._flush(link)
                if not link.client.is_connected:
                    link.broken.set()
            if not link.broken.is_set():
                self._link = link
                self._announce()
                self._reason = ""
                _log.info(log_events.BUS_CONNECTED, connection=link.number)
            nursery.start_soon(self._pump, link)

    async def _end_when_broken(self, link: _Link, scope: trio.CancelScope) -> None:
        await link.broken.wait()
        scope.cancel()

    async def _pump(self, link: _Link) -> None:
        """Moves publications from the outbox to nats-py."""

        async def pump() -> None:
            while True:
                await link.filled.wait()
                link.filled.clear()
                while link.urgent or link.outbox:
                    if link.urgent:
                        subject, data, reply, headers = link.urgent.popleft()
                        await link.client.publish(subject, data, reply=reply, headers=headers)
                        continue
                    if link.client.pending_data_size > BUFFER_BYTES:
                        await asyncio.sleep(PAUSE_S)  # nats-py has no event for it
                        continue
                    subject, data, reply, headers = link.outbox[0]
                    await link.client.publish(subject, data, reply=reply, headers=headers)
                    link.outbox.popleft()
                    link.outbox_bytes -= _size(subject, data, headers) + MESSAGE_OVERHEAD_BYTES

        with suppress(BusUnavailable), _translated():
            await self._loop.run_aio_coroutine(pump())
        link.broken.set()

    def _lose(self, link: _Link) -> None:
        """The connection has ended."""
        if self._link is link:
            self._link = None
            self._announce()
            if link.broken.is_set():  # else the bus is being closed
                _log.warning(log_events.BUS_LOST, connection=link.number)
        for request in link.requests.values():
            request.fail(BusUnavailable("the connection ended before the answer came"))

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def _discard(client: Client) -> None:
    """Ends a connection at once, whatever its server does; runs on asyncio.

    `close` alone would wait for a server that hangs to take what is in the buffers.
    """
    from nats.errors import Error

    writer = getattr(client._transport, "_io_writer", None)
    if writer is None:
        return  # it never had a connection, and `close` would fail
    client._pending.clear()
    client._pending_data_size = 0
    writer.transport.abort()
    with suppress(Error, OSError, asyncio.TimeoutError):
        await asyncio.wait_for(client.close(), CLOSE_S)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the errors of nats-py into those of the bus."""
    from nats.errors import Error

    try:
        yield
    # asyncio was cancelled and Trio was not: the loop, or the client, is being closed.
    except (Error, OSError, asyncio.CancelledError) as error:
        raise BusUnavailable(type(error).__name__) from error


def _message(message: Msg) -> BusMessage:
    headers = message.headers
    return BusMessage(
        message.subject,
        message.data,
        message.reply or None,
        _NO_HEADERS if headers is None else MappingProxyType(headers),
    )


def _checked_size(link: _Link, subject: str, data: bytes, headers: Headers | None) -> int:
    """The message's size. Raises BusTooLarge, and ValueError for a subject or header that NATS
    would take for something else."""
    if len(subject) > _SUBJECT_LIMIT or not _SUBJECT.fullmatch(subject):
        raise ValueError(f"not a subject: {subject!r}")
    size_bytes = _size("", data, headers)
    if headers is not None:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name) or not value.isprintable():
                raise ValueError(f"not a header: {name!r}")
    if size_bytes > link.client.max_payload:
        raise BusTooLarge(size_bytes, link.client.max_payload)
    return size_bytes + len(subject)


def _size(subject: str, data: bytes, headers: Headers | None) -> int:
    """The bytes that count against the server's limit, and the subject's."""
    size_bytes = len(subject) + len(data)
    if headers:
        size_bytes += _HEADER_LINE_BYTES
        size_bytes += sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return size_bytes
