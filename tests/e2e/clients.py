"""Clients of a server under test: one that others wrote, and one for what no client should send."""

from __future__ import annotations

import base64
import itertools
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.conftest import PATIENCE_S

Json = dict[str, Any]


TEXT, BINARY, CONT, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def strict(text: str | bytes) -> Any:
    """The value of a JSON text that anyone's parser takes: UTF-8, no NaN."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    return json.loads(text, parse_constant=_no_constant)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until something is so, in this process."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.005)


class Address(Protocol):
    """Where a server is; a `House`, or a server in another process."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Credentials(Protocol):
    @property
    def token(self) -> str: ...


class Player:
    """A well-behaved client, on trio-websocket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.socket = socket
        self.skipped: list[Json] = []
        self.id = ""
        self.session = ""
        self._states = itertools.count(1)

    async def send(self, command: str, data: object = None, **more: object) -> None:
        message: Json = {"command": command, **more}
        if data is not None:
            message["data"] = data
        await self.socket.send_message(json.dumps(message))

    async def receive(self) -> Json:
        """The next message."""
        with trio.fail_after(PATIENCE_S):
            message: Json = strict(await self.socket.get_message())
        return message

    async def until(self, wanted: Callable[[Json], bool]) -> Json:
        """The next message that is wanted; what came before it goes to `skipped`."""
        with trio.fail_after(PATIENCE_S):
            while True:
                message = await self.receive()
                if wanted(message):
                    return message
                self.skipped.append(message)

    async def event(self, command: str) -> Json:
        """The next event of that name."""
        return await self.until(lambda one: one.get("command") == command and "state" not in one)

    async def event_or_answer(self, command: str) -> Json:
        """The next message of that command."""
        return await self.until(lambda one: one.get("command") == command)

    async def ask(self, command: str, data: object = None, **more: object) -> Json:
        """Sends a request and returns its answer."""
        state = f"q{next(self._states)}"
        await self.send(command, data, state=state, **more)
        return await self.until(lambda one: one.get("state") == state)

    async def join(self, instance: str) -> Json:
        """Enters an instance, and returns the answer's data."""
        answer = await self.ask("instance-join", {"instance": instance})
        assert "error" not in answer, answer
        self.id = answer["data"]["player"]
        data: Json = answer["data"]
        return data

    async def say(self, instance: str, data: object, **more: object) -> None:
        await self.send("instance-data", data, subgroup=instance, **more)

    async def hear(self) -> Json:
        """The `data` of the next `instance-data` event."""
        data: Json = (await self.event("instance-data"))["data"]
        return data

    async def closed(self) -> tuple[int, str]:
        """Reads until the server has closed, and returns the close code and reason."""
        with trio.fail_after(PATIENCE_S):
            while (message := await self._message()) is not None:
                self.skipped.append(strict(message))
        reason = self.socket.closed
        assert reason is not None, "the connection ended without a close frame"
        return reason.code, reason.reason or ""

    async def _message(self) -> str | bytes | None:
        try:
            return await self.socket.get_message()
        except ConnectionClosed:
            return None


@asynccontextmanager
async def connected(
    house: Address,
    account: Credentials | None = None,
    *,
    ssl_context: ssl.SSLContext | None = None,
    path: str = "/api/ws",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> AsyncIterator[Player]:
    """A client on `/api/ws`; with an account, one that has been told that it is authenticated."""
    sent = list(headers or [])
    if account is not None:
        sent.append((b"Authorization", f"Bearer {account.token}".encode()))
    tcp = await trio.open_tcp_stream(house.host, house.port)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = tcp
    if ssl_context is not None:
        stream = trio.SSLStream(tcp, ssl_context, server_hostname=house.host, https_compatible=True)
    async with trio.open_nursery() as nursery:
        try:
            socket = await wrap_client_stream(nursery, stream, house.host, path, extra_headers=sent)
            player = Player(socket)
            if account is not None:
                told = await player.event("authenticated")
                player.session = told["data"]["session"]
            yield player
            await socket.aclose()
        finally:
            # The client leaves it open when the server closed first.
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    masked: bool = True,
    reserved: int = 0,
    length: bytes | None = None,
) -> bytes:
    """One frame as a client sends it, right or wrong. `length` overrides the bytes that say it."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    size = len(payload)
    if length is None:
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + size.to_bytes(2)
        else:
            length = b"\x7f" + size.to_bytes(8)
    if not masked:
        return bytes([first]) + length + payload
    mask = os.urandom(4)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + body


def text(message: object) -> bytes:
    """A message as one text frame; `bytes` as they are."""
    return frame(TEXT, message if isinstance(message, bytes) else json.dumps(message).encode())


@dataclass(frozen=True)
class Frame:
    """A frame of the server's. `reserved` are the three reserved bits."""

    fin: bool
    reserved: int
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2])


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the names of `headers` are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def envelope(self) -> Json:
        assert self.headers["content-type"] == "application/json", self
        envelope: Json = strict(self.body)
        assert {"request", "time", "message"} <= envelope.keys(), envelope
        return envelope

    @property
    def code(self) -> int:
        code: int = self.envelope["error"]["code"]
        return code


@dataclass
class RawClient:
    """A client on a bare stream, which sends whatever it is told to."""

    stream: trio.abc.Stream
    buffer: bytearray = field(default_factory=bytearray)

    @classmethod
    @asynccontextmanager
    async def connected(
        cls,
        house: Address,
        *,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Self]:
        """`receive_buffer`: what the system buffers for this client, in bytes; `tls`: whom it
        trusts, over TLS."""
        with trio.socket.socket() as socket:
            if receive_buffer is not None:
                socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
            await socket.connect((house.host, house.port))
            stream: trio.abc.Stream = trio.SocketStream(socket)
            if tls is not None:
                secure = trio.SSLStream(
                    trio.SocketStream(socket),
                    tls,
                    server_hostname=house.host,
                    https_compatible=True,
                )
                await secure.do_handshake()
                stream = secure
            yield cls(stream)

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Self]:
        """A client of this machine's port."""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield cls(stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def take(self, size: int) -> bytes:
        """The next bytes."""
        with trio.fail_after(PATIENCE_S):
            return await self._exactly(size)

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return False
        self.buffer += data
        return bool(data)

    async def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not await self._more():
                raise EOFError
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        return taken

    async def answer(self) -> Answer:
        """The next HTTP answer."""
        with trio.fail_after(PATIENCE_S):
            while b"\r\n\r\n" not in self.buffer:
                if not await self._more():
                    raise EOFError(bytes(self.buffer))
            head, _, _ = bytes(self.buffer).partition(b"\r\n\r\n")
            del self.buffer[: len(head) + 4]
            line, *rest = head.decode("latin-1").split("\r\n")
            headers = {}
            for one in rest:
                name, _, value = one.partition(":")
                headers[name.lower()] = value.strip()
            size = int(headers.get("content-length", "0"))
            return Answer(int(line.split(" ")[1]), headers, await self._exactly(size))

    async def frame(self) -> Frame:
        """The next frame. Raises EOFError at the end of the connection."""
        with trio.fail_after(PATIENCE_S):
            first, second = await self._exactly(2)
            size = second & 0x7F
            assert second < 0x80, "a server's frames carry no mask"
            if size == 126:
                size = int.from_bytes(await self._exactly(2))
            elif size == 127:
                size = int.from_bytes(await self._exactly(8))
            payload = await self._exactly(size)
        return Frame(bool(first & 0x80), first >> 4 & 7, first & 15, payload)

    async def message(self, command: str) -> Json:
        """The next message of that command."""
        while True:
            one = await self.frame()
            if one.opcode == TEXT:
                message: Json = strict(one.payload)
                if message.get("command") == command:
                    return message

    async def close_frame(self) -> Frame:
        """The close frame; all before it is passed over, and it is answered as it must be."""
        while (one := await self.frame()).opcode != CLOSE:
            pass
        # One that failed us does not wait for it; one that floods has no room for it.
        with suppress(trio.BrokenResourceError, trio.BusyResourceError):
            await self.send(frame(CLOSE, one.payload[:2]))
        return one

    async def ended(self) -> bytes:
        """Waits until the server has ended the connection; returns what still came."""
        with trio.fail_after(PATIENCE_S):
            while await self._more():
                pass
        return bytes(self.buffer)

    async def upgrade(
        self, account: Credentials | None = None, *lines: str, after: bytes = b""
    ) -> Answer:
        """Asks for `/api/ws`; `after` is sent in the same packet."""
        await self.send(upgrade_head(account, *lines) + after)
        return await self.answer()

    async def enter(self, account: Credentials, instance: str | None = None) -> str:
        """Upgrades, and enters an instance; returns the player's id."""
        answer = await self.upgrade(account)
        assert answer.status == 101, answer
        if instance is None:
            return ""
        await self.send(
            text({"command": "instance-join", "state": 1, "data": {"instance": instance}})
        )
        player: str = (await self.message("instance-join"))["data"]["player"]
        return player


def upgrade_head(
    account: Credentials | None = None,
    *lines: str,
    path: str = "/api/ws",
    without: str = "",
    host: str = "localhost",
) -> bytes:
    """The head of an upgrade, with further lines, and without one that begins with `without`."""
    head = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *lines,
    ]
    if account is not None:
        head.append(f"Authorization: Bearer {account.token}")
    kept = [line for line in head if not without or not line.startswith(without)]
    return ("\r\n".join(kept) + "\r\n\r\n").encode("utf-8", "surrogateescape")
