"""A hostile HTTP server: what it answers, as functions of a stream.

Each behaviour reads the head of the request, and then sends or withholds what it wants. They work
over sockets and over the streams of `trio.testing`.
"""

from __future__ import annotations

import gzip
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Protocol

import trio

Behaviour = Callable[["Peer"], Awaitable[None]]
HEAD_LIMIT: Final = 64 * 1024

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Sender(Protocol):
    async def send_all(self, data: bytes, /) -> None: ...


class Peer:
    """The peer's end of one connection. `sent` are the bytes that the other side took."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.sent = 0
        self.head = b""

    async def read_head(self) -> bytes:
        """The head of the next request, whose body is read, too. Empty at the end."""
        data, end, size = b"", -1, 0
        while end < 0 or len(data) < end + 4 + size:
            some = bytes(await self.stream.receive_some(HEAD_LIMIT))
            if not some:
                return b""
            data += some
            end = data.find(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: (\d+)\r\n", data)
            size = int(length[1]) if length else 0
        self.head = data[:end]
        return self.head

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)
        self.sent += len(data)


def answers(*parts: bytes) -> Behaviour:
    """Sends these bytes, and waits for the next request or the end."""

    async def behave(peer: Peer) -> None:
        for part in parts:
            await peer.send(part)
        await peer.read_head()

    return behave


def ends(*parts: bytes) -> Behaviour:
    """Sends these bytes, and closes the connection."""

    async def behave(peer: Peer) -> None:
        for part in parts:
            await peer.send(part)

    return behave


def repeats(first: bytes, again: bytes, *, times: int | None = None) -> Behaviour:
    """Sends `first`, and then `again` for ever, or so many times."""

    async def behave(peer: Peer) -> None:
        await peer.send(first)
        for _ in itertools.count() if times is None else range(times):
            await peer.send(again)

    return behave


def drips(text: bytes, every_s: float = 0.5) -> Behaviour:
    """Sends one byte at a time, and the last one for ever."""

    async def behave(peer: Peer) -> None:
        for number in itertools.count():
            place = min(number, len(text) - 1)
            await peer.send(text[place : place + 1])
            await trio.sleep(every_s)

    return behave


def compressed(size: int) -> bytes:
    """An answer that is small, and large when it is unpacked."""
    body = gzip.compress(bytes(size))
    return OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _with(headers: str, body: bytes = b"{}") -> bytes:
    return OK + headers.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


SILENT: Final[dict[str, Behaviour]] = {
    "nothing": ends(),
    "half a line": ends(b"HTTP/1.1 2"),
}
"""No answer, or not enough of one."""

SLOW: Final[dict[str, Behaviour]] = {
    "never answers": answers(),
    "never ends its head": answers(OK + b"Server: x\r\n"),
    "never ends its body": answers(_with("Content-Length: 20")),
    "never ends its chunk": answers(CHUNKED + b"20\r\n{}"),
    "never ends its chunks": answers(CHUNKED + b"2\r\n{}\r\n"),
    "drips its head": drips(OK + b"Server: x"),
    "drips its body": drips(_with("Content-Length: 1000", b"x")),
    "drips its chunks": drips(CHUNKED + b"1\r\nx\r\n" * 1000),
    "drips interim answers": drips(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + OK),
}
"""Answers that do not end in time."""

ENDLESS: Final[dict[str, Behaviour]] = {
    "a line that never ends": repeats(OK + b"X: ", b"x" * 4096),
    "a reason that never ends": repeats(b"HTTP/1.1 200 ", b"x" * 4096),
    "headers that never end": repeats(OK, b"X: y\r\n" * 512),
    "empty headers that never end": repeats(OK, b"a:\n" * 1024),
    "interim answers that never end": repeats(b"", b"HTTP/1.1 100 \r\n\r\n" * 256),
    "hints that never end": repeats(b"", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * 128),
    "empty lines that never end": repeats(b"", b"\r\n" * 2048),
    "a body that never ends": repeats(OK + b"\r\n", b"x" * 4096),
    "a body of HTTP/1.0 that never ends": repeats(b"HTTP/1.0 200 OK\r\n\r\n", b"x" * 4096),
    "a body with a huge length": repeats(_with("Content-Length: 99999999999"), b"x" * 4096),
    "chunks that never end": repeats(CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "chunks of one byte": repeats(CHUNKED, b"1\r\nx\r\n" * 512),
    "a huge chunk": repeats(CHUNKED + b"fffffff\r\n", b"x" * 4096),
    "extensions that never end": repeats(CHUNKED + b"1;", b"x" * 4096),
    "chunks with long extensions": repeats(CHUNKED, b"1;" + b"x" * 4096 + b"\r\nx\r\n"),
    "trailers that never end": repeats(CHUNKED + b"0\r\n", b"a:\n" * 1024),
    "a length of zeros that never ends": repeats(CHUNKED, b"0" * 4096),
    "one body after the other": repeats(b"", _with("Content-Length: 2") * 64),
}
"""Answers that are too large."""

MALFORMED: Final[dict[str, Behaviour]] = {
    name: ends(text)
    for name, text in {
        "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
        "a greeting of SMTP": b"220 mail.example ESMTP\r\n",
        "an error of Redis": b"-ERR unknown command 'GET'\r\n",
        "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
        "zeros": bytes(4096),
        "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        "HTTP/0.9": b"<html></html>\n",
        "a version of the future": b"HTTP/3.0 200 OK\r\n\r\n",
        "a status that is not one": b"HTTP/1.1 abc OK\r\n\r\n",
        "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
        "a status of zeros": b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\n{}",
        "a header without a name": _with(": x\nContent-Length: 2"),
        "a header with a space": _with("Content Length: 2"),
        "a header that is folded at once": _with(" x: y\nContent-Length: 2"),
        "a header with a zero byte": _with("X: a\0b\nContent-Length: 2"),
        "two lengths": _with("Content-Length: 2\nContent-Length: 3"),
        "two lengths in one": _with("Content-Length: 2, 3"),
        "a negative length": _with("Content-Length: -2"),
        "a length with a sign": _with("Content-Length: +2"),
        "a length in hexadecimal": _with("Content-Length: 0x2"),
        "a length of many digits": _with(f"Content-Length: {'9' * 5000}"),
        "a length in other digits": _with("Content-Length: \xb2"),
        "a length and chunks": _with(
            "Content-Length: 2\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"
        ),
        "chunks and a length": _with(
            "Transfer-Encoding: chunked\nContent-Length: 2", b"2\r\n{}\r\n0\r\n\r\n"
        ),
        "two encodings": _with("Transfer-Encoding: gzip, chunked"),
        "an encoding that is not known": _with("Transfer-Encoding: identity"),
        "encodings in two lines": _with("Transfer-Encoding: chunked\nTransfer-Encoding: chunked"),
        "a chunk without a size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
        "a chunk with a negative size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
        "a chunk with a prefix": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
        "a chunk with a huge size": CHUNKED + b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n",
        "a chunk that is longer": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
        "a body that is shorter": _with("Content-Length: 20"),
        "chunks without an end": CHUNKED + b"2\r\n{}\r\n",
        "an upgrade": b"HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "gzip": compressed(10 * 1024 * 1024),
        "gzip in gzip": _with("Content-Encoding: gzip, gzip\nContent-Length: 2"),
        "another compression": _with("Content-Encoding: br\nContent-Length: 2"),
    }.items()
}
"""Answers that are not HTTP as this server speaks it."""


def redirect(location: str, status: int = 302) -> Behaviour:
    """A redirect."""
    head = f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    return answers(head.encode())


async def serve(behaviour: Behaviour, peers: list[Peer], stream: trio.abc.Stream) -> None:
    """Serves one connection; adds its `Peer` to the list."""
    peer = Peer(stream)
    peers.append(peer)
    async with stream:
        try:
            if await peer.read_head():
                await behaviour(peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side had enough


@asynccontextmanager
async def listening(
    behaviour: Behaviour, *, host: str = "127.0.0.2"
) -> AsyncIterator[tuple[str, list[Peer]]]:
    """The address of a peer on a socket, and its connections."""
    peers: list[Peer] = []
    async with trio.open_nursery() as nursery:
        listeners: Iterable[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, partial(serve, behaviour, peers), 0, host=host)
        )
        (name,) = [listener.socket.getsockname() for listener in listeners]
        yield f"{host}:{name[1]}", peers
        nursery.cancel_scope.cancel()
