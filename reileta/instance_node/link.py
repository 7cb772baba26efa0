"""The link of an instance node: connects, says hello, and goes on until the connection ends."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import SystemRandom
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog
import trio
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidState, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from reileta import __version__
from reileta.instance_node.rooms import Rooms
from reileta.observability import log_events
from reileta.protocol.node_link import (
    MESSAGE_BYTES,
    SUBPROTOCOL,
    Hello,
    Malformed,
    Ping,
    Pong,
    Welcome,
    from_server,
    messages_of,
)

CONNECT_S: Final = 10.0
PING_S: Final = 4.0
SUSPENDED_S: Final = 10.0
"""Players with direct connections are heard for so long after the server was asked whether it is
there, and has answered."""
SILENT_S: Final = 25.0
ASLEEP_S: Final = 1.0
"""A machine that has slept for so long has not heard what the server said meanwhile."""
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
AGAIN_MAX_S: Final = 8.0
"""The longest pause after a link, however short that was: its players wait for so long as the
server's `--link-grace-s`."""
LASTED_S: Final = 60.0
"""A link that lasted so long makes the next wait short again."""
PATH: Final = "/api/nodes/link"
REDIRECT: Final = 307

_log = structlog.get_logger()
_random: Final = SystemRandom()


class _Redirect(msgspec.Struct):
    """Another gateway of the server."""

    secure: bool
    address: str


class _Answer(msgspec.Struct):
    """The answer of a gateway that takes no links now."""

    redirect: _Redirect


class _Error(msgspec.Struct):
    """The error in an answer; other fields are not read."""

    message: str


class _Failed(msgspec.Struct):
    """An answer with an error."""

    error: _Error


def _told(body: bytes | bytearray | None) -> str:
    """The server's error message in an answer's body; empty if it has none."""
    try:
        return msgspec.json.decode(body or b"", type=_Failed).error.message[:200]
    except msgspec.MsgspecError:
        return ""


class Refused(Exception):
    """The server does not take the token: there is no use in trying again."""


class Closed(Exception):
    """The link has ended."""


class Redirected(Closed):
    """Another gateway takes the link."""

    def __init__(self, url: str) -> None:
        super().__init__(f"is sent to {url}")
        self.url = url


def is_gateway(url: str) -> bool:
    """Whether a link can be opened to that address: `wss://` or `ws://`, a host, perhaps a port and
    a path."""
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
        named = parts.port != 0
    except ValueError:
        return False
    plain = url.isprintable() and not any(one in url for one in " ?#@\\")
    return named and plain and parts.scheme in ("ws", "wss") and bool(parts.hostname)


def _reason(why: BaseException) -> str:
    """Why a link ended; Trio says what TLS has found in the cause only."""
    return str(why) or str(why.__cause__ or "") or type(why).__name__


def slept_s() -> float:
    """For how many seconds this machine has slept since it started: its other clock, which Trio
    has, stands still then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class NodeLink:
    """The links of one node, one after the other. `rooms` outlive them."""

    def __init__(
        self,
        gateway: str,
        token: str,
        rooms: Rooms,
        *,
        capacity: int = 100,
        random: Callable[[], float] = _random.random,
        slept: Callable[[], float] = slept_s,
    ) -> None:
        """`gateway`: `wss://host` or `ws://host`, with a path if the server has a base path."""
        self._url = gateway.rstrip("/") + PATH
        self._token = token
        self._capacity = capacity
        self._random = random
        self._slept = slept
        self.rooms = rooms
        self.links = 0
        """How often it was connected."""
        self._alive_at = (-math.inf, 0.0)
        """When the last ping was sent that the server has answered, and `_slept` then."""
        self._pinged: dict[int, tuple[float, float]] = {}
        self._stirred = trio.Event()

    @property
    def live(self) -> bool:
        """Whether there is a link, and the server answered a ping lately. An answer counts from
        when the ping was sent: what the server said until then is known here, also what it had
        said while there was no link."""
        alive_at, slept = self._alive_at
        awake = self._slept() - slept < ASLEEP_S
        return awake and trio.current_time() < alive_at + SUSPENDED_S

    def stir(self) -> None:
        """Direct connections have left something to be sent."""
        self._stirred.set()

    async def run(self, *, linked: Callable[[], None] = lambda: None) -> None:
        """Keeps a link, for ever. Raises Refused."""
        retry_s, instead = RETRY_S, ""
        while True:
            begun, links, reason = trio.current_time(), self.links, "closed"
            url, instead = instead or self._url, ""
            try:
                await self._link(url, linked)
            except Redirected as why:
                if url == self._url:
                    instead = why.url  # at once; if that fails, the usual address is asked again
                    continue
                reason = str(why)
            except (Closed, OSError, trio.TooSlowError, trio.BrokenResourceError, Malformed) as why:
                reason = _reason(why)
            if trio.current_time() - begun >= LASTED_S:
                retry_s = RETRY_S
            elif self.links > links:
                retry_s = min(retry_s, AGAIN_MAX_S)
            wait_s = self._random() * retry_s  # full jitter
            retry_s = min(2 * retry_s, RETRY_MAX_S)
            _log.warning(log_events.LINK_LOST, reason=reason, again_in_s=round(wait_s, 1))
            await trio.sleep(wait_s)

    async def _link(self, url: str, linked: Callable[[], None]) -> None:
        async with _Socket.opened(url, self._token) as socket:
            await self._serve(socket, linked)

    async def _serve(self, socket: _Socket, linked: Callable[[], None]) -> None:
        """Until the link ends. Raises Closed."""
        try:
            await socket.send(
                [Hello([1], f"reileta/{__version__}", self._capacity, 0.0, self.rooms.holds())]
            )
            with trio.fail_after(CONNECT_S):
                first = await socket.receive()
            items = from_server.decode(first)
            if not items or not isinstance(items[0], Welcome):
                raise Malformed("the server does not begin with a welcome")
            await socket.send(self.rooms.welcome(items[0]))
            self.links += 1
            _log.info(log_events.LINK_OPENED, node=items[0].node, link=items[0].link)
            linked()
            await socket.send(self.rooms.hear(items[1:]))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ping, socket)
                nursery.start_soon(self._send_news, socket)
                while True:
                    with trio.fail_after(SILENT_S):
                        message = await socket.receive()
                    heard = from_server.decode(message)
                    for item in heard:
                        if isinstance(item, Pong):
                            asked_at = self._pinged.pop(item.number, self._alive_at)
                            self._alive_at = max(self._alive_at, asked_at)
                    await socket.send(self.rooms.hear(heard))
        except* (Closed, OSError, trio.TooSlowError, trio.BrokenResourceError, Malformed) as group:
            why: BaseException = group.exceptions[0]
            silent = isinstance(why, trio.TooSlowError)
            raise Closed("silent" if silent else _reason(why)) from None
        finally:
            self._alive_at = (-math.inf, 0.0)
            self._pinged.clear()

    async def _send_news(self, socket: _Socket) -> None:
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            await socket.send(self.rooms.news())

    async def _ping(self, socket: _Socket) -> None:
        number, slept = 0, self._slept()
        while True:
            if self._slept() - slept > SILENT_S:
                raise Closed("this machine has slept")
            number += 1
            self._pinged[number] = (trio.current_time(), self._slept())
            await socket.send([Ping(number)])
            await trio.sleep(PING_S)


class _Socket:
    """A WebSocket with binary messages."""

    def __init__(self, stream: trio.abc.Stream, protocol: ClientProtocol, url: str) -> None:
        parts = urlsplit(url)
        self._secure, self._path = parts.scheme == "wss", parts.path
        self._stream = stream
        self._protocol = protocol
        self._messages: list[bytes] = []
        self._fragments: list[bytes] = []
        self._sending = trio.Lock()

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, token: str) -> AsyncIterator[_Socket]:
        """Connects; the connection ends with the block. Raises Refused, Closed, TooSlowError and
        OSError."""
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        with trio.fail_after(CONNECT_S):
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
        if secure:
            context = ssl.create_default_context()
            stream = trio.SSLStream(stream, context, server_hostname=host)
        protocol = ClientProtocol(
            parse_uri(url), subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=MESSAGE_BYTES
        )
        socket = cls(stream, protocol, url)
        try:
            with trio.fail_after(CONNECT_S):
                await socket._upgrade(token)
            yield socket
        finally:
            await trio.aclose_forcefully(stream)

    async def _upgrade(self, token: str) -> None:
        request = self._protocol.connect()
        request.headers.update(Headers({"Authorization": f"Bearer {token}"}))
        self._protocol.send_request(request)
        await self._flush()
        while True:
            for event in await self._events():
                if isinstance(event, Response):
                    error = self._protocol.handshake_exc
                    if isinstance(error, InvalidStatus):
                        status = error.response.status_code
                        self._follow(error.response)
                        told = _told(error.response.body)
                        if status in (400, 401, 403):
                            told = told or "is the token right?"
                            raise Refused(f"the server answers {status}: {told}")
                        raise Closed(f"the server answers {status} {told}".strip())
                    if error is not None:
                        raise Closed(str(error))
                    return

    def _follow(self, response: Response) -> None:
        """Raises Redirected if the server names another gateway, and that keeps the token as safe
        as this one."""
        if response.status_code != REDIRECT:
            return
        try:
            told = msgspec.json.decode(response.body or b"", type=_Answer).redirect
        except msgspec.MsgspecError:
            return
        if told.secure or not self._secure:
            scheme = "wss" if told.secure else "ws"
            url = f"{scheme}://{told.address}{self._path}"
            if is_gateway(url):
                raise Redirected(url)

    async def receive(self) -> bytes:
        """The next message. Raises Closed."""
        while not self._messages:
            for event in await self._events():
                if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                    self._fragments.append(bytes(event.data))
                    if event.fin:
                        self._messages.append(b"".join(self._fragments))
                        self._fragments.clear()
        return self._messages.pop(0)

    async def _events(self) -> list[object]:
        data = await self._stream.receive_some()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        events: list[object] = list(self._protocol.events_received())
        await self._flush()
        fault = self._protocol.parser_exc
        if fault is not None and not isinstance(fault, EOFError):
            raise Closed(f"the server breaks the protocol: {fault}")
        close = self._protocol.close_rcvd
        if close is not None:
            raise Closed(f"closed with {close.code} {close.reason}".strip())
        if not data:
            raise Closed("the connection ended")
        return events

    async def send(self, items: list[object]) -> None:
        """Sends the items; waits while the server does not read."""
        try:
            for message in messages_of(items):
                self._protocol.send_binary(message)
        except InvalidState:
            raise Closed("the connection is closing") from None
        await self._flush()

    async def _flush(self) -> None:
        async with self._sending:
            for data in self._protocol.data_to_send():
                if data:
                    await self._stream.send_all(data)
