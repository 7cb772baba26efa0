"""What all visitors of a soak share: the ways to the server, faults, counts, and what they hold."""

from __future__ import annotations

import json
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.utilities import LocalProtocolError

Json = dict[str, Any]

PATIENCE_S: Final = 30.0
PASSWORD: Final = "correct horse"
GONE: Final = (
    httpx.HTTPError,
    OSError,
    ConnectionClosed,
    HandshakeError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""What a client sees when its connection, or the server's database, is gone."""
DURING_FAULTS: Final = (122, 36, 101)
"""Errors that a fault explains: the database is unavailable; or what a request made that failed is
not there."""
AFTER_S: Final = 3.0
"""Seconds after the end of a fault in which its consequences may still show; and as many more as
the visitors were late meanwhile."""
TICK_S: Final = 0.1
STARVED_S: Final = 2.0
"""If the visitors' process was so many seconds late, it may have missed the server's deadlines,
which are 5 s: then the machine explains an error."""
MESSAGES_UNREAD: Final = 65_536
"""Messages that a visitor's library reads ahead. While fewer wait, it answers pings, whatever the
visitor does meanwhile."""


class Refused(Exception):
    """An answer that the visitor did not expect."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: error {code}")
        self.code = code


class Broken(Exception):
    """The server broke a promise; no fault explains that."""


@dataclass
class Fault:
    """A fault of the database, from its beginning until the server was ready again."""

    kind: str
    began: float
    ended: float | None = None


@dataclass
class Tally:
    """Counts of what was done, and of errors."""

    done: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    """Errors during a fault, by visitor and kind."""
    unexplained: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def failed(self, name: str, error: Exception, took_s: float, *, explained: bool) -> None:
        """Sorts why a visit failed. `explained`: there was a fault."""
        for leaf in leaves(error):
            what = f"{name}: {type(leaf).__name__}: {leaf}"[:300]
            if isinstance(leaf, LocalProtocolError):
                # trio-websocket answers a ping after it has sent its close frame.
                self.done["answered a ping while closing"] += 1
            elif isinstance(leaf, Refused) and explained and leaf.code in DURING_FAULTS:
                self.explained[f"{name}: error {leaf.code}"] += 1
            elif isinstance(leaf, GONE) and explained:
                self.explained[f"{name}: {type(leaf).__name__}"] += 1
            elif isinstance(leaf, (Refused, *GONE)):
                self.unexplained.append(f"{what} (after {took_s:.1f} s)")
            else:
                self.broken.append(f"{what} at {_where(leaf)}")


@dataclass
class Way:
    """A port that leads to the server."""

    name: str
    port: int


class Town:
    """The server as its visitors know it. `rooms` are the instances that are open now."""

    def __init__(self, ways: list[Way], certificate: Path, seed: int) -> None:
        self.ways = ways
        # httpx changes the protocols that a context offers.
        plain, one, two = (ssl.create_default_context(cafile=str(certificate)) for _ in range(3))
        two.set_alpn_protocols(["h2"])
        self.tls: Final = plain
        self.http1_tls: Final = one
        self.http2_tls: Final = two
        self.random = random.Random(seed)
        self.rooms: dict[str, set[str]] = {}
        """By id, the users inside whom their host may moderate."""
        self.removed: set[tuple[str, str]] = set()
        """Rooms and the users that a host has removed from them."""
        self.faults: list[Fault] = []
        self.tally = Tally()
        self.late: list[tuple[float, float]] = []
        """When this process was late, and by how many seconds."""
        self.pings: list[tuple[float, float]] = []
        """When a ping was answered, and after how many seconds."""
        self._addresses = 0

    @property
    def direct(self) -> Way:
        """The way without a proxy."""
        return self.ways[0]

    def way(self) -> Way:
        """One of the ways, at random."""
        return self.random.choice(self.ways)

    def address(self) -> str:
        """A further address of this machine."""
        self._addresses += 1
        return f"127.0.{1 + self._addresses // 250}.{1 + self._addresses % 250}"

    def explains(self, began: float, ended: float) -> bool:
        """Whether there was a fault in that time, or shortly before."""
        after_s = AFTER_S + self.lateness(began - AFTER_S, ended)
        return explains(self.faults, began, ended, after_s)

    def lateness(self, began: float, ended: float) -> float:
        """By how many seconds this process was late in that time, at most."""
        late = [late_s for at, late_s in self.late if at >= began and at - late_s <= ended]
        return max(late, default=0.0)

    async def watch_lateness(self) -> None:
        """Notes when this process is late, because the machine is busy."""
        while True:
            due = trio.current_time() + TICK_S
            await trio.sleep_until(due)
            late_s = trio.current_time() - due
            if late_s > TICK_S:
                self.late.append((trio.current_time(), late_s))

    @asynccontextmanager
    async def http(
        self, way: Way, at: str, *, http2: bool = False, token: str = ""
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client with connections that are kept."""
        transport = httpx.AsyncHTTPTransport(
            verify=self.http2_tls if http2 else self.http1_tls,
            http1=not http2,
            http2=http2,
            local_address=at,
        )
        async with httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{way.port}",
            transport=transport,
            timeout=PATIENCE_S,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        ) as client:
            yield client

    async def stream(self, way: Way, at: str) -> trio.SSLStream[trio.SocketStream]:
        """A TLS connection."""
        tcp = await trio.open_tcp_stream("127.0.0.1", way.port, local_address=at)
        secure = trio.SSLStream(tcp, self.tls, server_hostname="127.0.0.1", https_compatible=True)
        try:
            with trio.fail_after(PATIENCE_S):
                await secure.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return secure

    @asynccontextmanager
    async def socket(self, way: Way, at: str, path: str, token: str) -> AsyncIterator[Socket]:
        """A WebSocket, which is closed in order at the end, unless it was lost."""
        stream = await self.stream(way, at)
        try:
            async with trio.open_nursery() as nursery:
                headers = [(b"Authorization", f"Bearer {token}".encode())]
                with trio.fail_after(PATIENCE_S):
                    connection = await wrap_client_stream(
                        nursery,
                        stream,
                        f"127.0.0.1:{way.port}",
                        path,
                        extra_headers=headers,
                        message_queue_size=MESSAGES_UNREAD,
                    )
                one = Socket(connection, stream)
                yield one
                if not one.lost:
                    with trio.move_on_after(2):
                        await connection.aclose()
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(stream)

    async def forever(self, name: str, visit: Callable[[], Awaitable[None]]) -> None:
        """Repeats visits. Each may fail while there is a fault."""
        while True:
            began = trio.current_time()
            try:
                await visit()
                self.tally.done[name] += 1
            except Exception as error:  # noqa: BLE001 - sorted below
                ended = trio.current_time()
                starved = self.lateness(began, ended) >= STARVED_S
                explained = starved or self.explains(began, ended)
                self.tally.failed(name, error, ended - began, explained=explained)
                if starved:
                    self.tally.done["visit that was starved"] += 1
                await trio.sleep(0.2 + self.random.random())
            await trio.sleep(self.random.random() * 0.2)


def explains(faults: Iterable[Fault], began: float, ended: float, after_s: float = AFTER_S) -> bool:
    """Whether one of the faults was in that time, or up to `after_s` before."""
    return any(
        fault.began <= ended and (fault.ended is None or fault.ended + after_s >= began)
        for fault in faults
    )


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions of a group."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in leaves(one)]
    return [error]


class Socket:
    """A WebSocket of a visitor. Only one task may receive."""

    def __init__(
        self, connection: WebSocketConnection, stream: trio.SSLStream[trio.SocketStream]
    ) -> None:
        self.connection = connection
        self.lost = False
        self._stream = stream
        self._states = 0

    async def send(self, message: Json) -> None:
        await self.connection.send_message(json.dumps(message))

    async def receive(self, within_s: float = PATIENCE_S) -> Json:
        with trio.fail_after(within_s):
            message: Json = json.loads(await self.connection.get_message())
        return message

    async def until(self, wanted: Callable[[Json], bool]) -> Json:
        """The next message that is wanted."""
        with trio.fail_after(PATIENCE_S):
            while not wanted(message := await self.receive()):
                pass
        return message

    async def ask(self, command: str, data: object, **more: object) -> Json:
        """A request's whole answer, which may be an error."""
        self._states += 1
        state = self._states
        await self.send({"state": state, "command": command, "data": data, **more})
        return await self.until(lambda one: one.get("state") == state)

    async def lose(self, *, reset: bool) -> None:
        """Loses the network: the connection ends without a close frame."""
        self.lost = True
        raw = self._stream.transport_stream.socket
        if reset:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self._stream.transport_stream)


async def data(answer: Awaitable[httpx.Response], *expected: int) -> Any:
    """The answer's body; of the registry API, its `data`. An expected error gives None.

    Raises Refused for another error.
    """
    response = await answer
    try:
        body: Json = response.json()
    except ValueError:
        # nginx answers so while the server is away.
        raise Refused(f"{response.request.url.path}: status {response.status_code}", 0) from None
    if "error" in body:
        code: int = body["error"]["code"]
        if code in expected:
            return None
        request = response.request
        raise Refused(f"{request.method} {request.url.path}: {body['error']}", code)
    return body.get("data", body)


def code_of(answer: Json) -> int:
    """The code of a WebSocket's answer; 0 without an error."""
    error: Json = answer.get("error", {"code": 0})
    code: int = error["code"]
    return code


async def quietly(work: Awaitable[object]) -> None:
    """Does something that may fail."""
    with suppress(*GONE):
        await work
