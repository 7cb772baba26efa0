"""Opens many WebSockets over raw sockets: connect, upgrade, greet."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

from benchmarks.errors import BenchmarkError, ConnectionLost
from benchmarks.frames import CLOSE, PING, PONG, FrameReader, client_frame, close_code

BATCH: Final = 64
"""Connections that are opened at once: far below any server's accept backlog."""

PORTS_PER_ADDRESS: Final = 20_000
"""Connections from one source address. The system has about 28,000 ports for each."""

_PATIENCE_S: Final = 30.0
_KEY: Final = base64.b64encode(b"reileta-bench-16").decode()
_ACCEPT: Final = base64.b64encode(
    hashlib.sha1(
        f"{_KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    ).digest()
)


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a server, from `ws://host:port` or `wss://host:port`."""

    host: str
    port: int
    secure: bool

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises BenchmarkError unless it is a ws, wss, http or https URL with a host."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BenchmarkError(f"{url!r} is not a URL: {error}") from None
        if parts.scheme not in ("ws", "wss", "http", "https") or not host:
            raise BenchmarkError(f"{url!r} must be a WebSocket URL, such as ws://127.0.0.1:3032")
        secure = parts.scheme in ("wss", "https")
        return cls(host, port or (443 if secure else 80), secure)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def http(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    def connect(self, number: int = 0, *, receive_buffer: int | None = None) -> socket.socket:
        """A blocking TCP (or TLS) connection without Nagle's delay.

        `number` chooses the source address on loopback, so that ports never run out;
        `receive_buffer` (bytes) makes a receiver's kernel buffer small.
        """
        family, kind, proto, _, address = socket.getaddrinfo(
            self.host, self.port, type=socket.SOCK_STREAM
        )[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(_PATIENCE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if str(address[0]).startswith("127.") and number >= PORTS_PER_ADDRESS:
                sock.bind((f"127.0.0.{1 + number // PORTS_PER_ADDRESS}", 0))
            sock.connect(address)
            if self.secure:
                return ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        except OSError as error:
            sock.close()
            raise BenchmarkError(f"cannot connect to {self.authority}: {error}") from error
        return sock


class Client:
    """One open WebSocket, used with blocking calls: for set-up and checks."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames = FrameReader()
        self._inbox: deque[bytes] = deque()

    def send(self, text: bytes) -> None:
        self.sock.sendall(client_frame(text))

    def receive(self) -> bytes:
        """The next text message. Raises ConnectionLost if the connection ends before."""
        while not self._inbox:
            try:
                data = self.sock.recv(1 << 16)
            except OSError as error:
                raise ConnectionLost(f"the server gave no answer: {error}") from error
            if not data:
                raise ConnectionLost("the server hung up")
            self.take(data)
        return self._inbox.popleft()

    def take(self, data: bytes) -> None:
        """Parses received bytes: messages go to the inbox, pings are answered."""
        for frame in self.frames.feed(data):
            if frame.opcode == PING:
                self.sock.sendall(client_frame(frame.data, PONG))
            elif frame.opcode == CLOSE:
                code, why = close_code(frame.data), frame.data[2:].decode(errors="replace")
                raise ConnectionLost(f"the server closed with {code} {why}".rstrip(), code)
            elif frame.opcode != PONG:
                self._inbox.append(frame.data)

    def close(self) -> None:
        self.sock.close()


class Dialect(Protocol):
    """How to talk to one kind of server."""

    def path(self, number: int) -> str:
        """The path that connection `number` requests in its upgrade."""
        ...

    def headers(self, number: int) -> dict[str, str]: ...

    def greeting(self, number: int) -> bytes | None:
        """The message to send when the socket is open; None for no message."""
        ...

    def greeted(self, number: int, message: bytes) -> bool:
        """Whether this message ends the greeting. Raises BenchmarkError if it is a refusal."""
        ...

    def message(self, number: int, payload: bytes) -> bytes:
        """The message by which connection `number` sends `payload` to the others."""
        ...


def open_all(
    target: Target,
    dialect: Dialect,
    numbers: Sequence[int],
    progress: Callable[[float], None] = lambda share: None,
    *,
    greet: bool = True,
) -> list[Client]:
    """Opens a WebSocket for each number, in order. If it raises BenchmarkError, none stays open."""
    clients: list[Client] = []
    try:
        for batch in _batches(numbers, BATCH):
            fresh = []
            for number in batch:
                client = Client(target.connect(number))
                clients.append(client)
                fresh.append((number, client))
                upgrade(client, target, dialect.path(number), dialect.headers(number))
            for _, client in fresh:
                upgraded(client)
            if greet:
                _greet(dialect, fresh)
            progress(len(clients) / len(numbers))
    except BaseException:
        for client in clients:
            client.close()
        raise
    return clients


def upgrade(client: Client, target: Target, path: str, headers: dict[str, str]) -> None:
    """Sends the upgrade request."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {target.authority}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    client.sock.sendall("\r\n".join([*lines, "", ""]).encode())


def upgraded(client: Client) -> None:
    """Reads the answer to the upgrade. Raises BenchmarkError if its status is not 101."""
    answer = bytearray()
    while (end := answer.find(b"\r\n\r\n")) == -1:
        try:
            data = client.sock.recv(1 << 16)
        except OSError as error:
            raise BenchmarkError(f"no answer to the upgrade: {error}") from error
        if not data:
            raise BenchmarkError("the server hung up before it answered the upgrade")
        answer += data
    status = answer.partition(b"\r\n")[0].decode("latin-1")
    if status.split(" ")[1:2] != ["101"]:
        raise BenchmarkError(f"the server refused the upgrade: {status}")
    if _ACCEPT not in answer[:end]:
        raise BenchmarkError("the server's Sec-WebSocket-Accept is wrong")
    client.take(bytes(answer[end + 4 :]))


def _greet(dialect: Dialect, fresh: Iterable[tuple[int, Client]]) -> None:
    waiting = []
    for number, client in fresh:
        greeting = dialect.greeting(number)
        if greeting is not None:
            client.send(greeting)
            waiting.append((number, client))
    deadline = time.monotonic() + _PATIENCE_S
    for number, client in waiting:
        while not dialect.greeted(number, client.receive()):
            if time.monotonic() > deadline:
                raise BenchmarkError("the server did not answer the greeting")


def _batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for begin in range(0, len(numbers), size):
        yield numbers[begin : begin + size]
