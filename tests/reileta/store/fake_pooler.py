"""A connection pooler that behaves like PgBouncer, in front of a PostgreSQL at a Unix socket.

In transaction mode it lends a client a session of PostgreSQL for one transaction. So statements
that a client prepared can be missing in its next one, or belong to another client. In session mode
the loan lasts as long as the client's connection.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import trio

Mode = Literal["transaction", "session"]
_SSL_REQUEST = 80877103
_TERMINATE = b"X"
_ENDS_A_STEP = (b"Q", b"S")
"""Query and Sync: PostgreSQL answers each with one ReadyForQuery."""
_FLUSH = b"H"
_DESCRIBED = b"TnE"
"""The end of an answer to Describe: columns, none, or an error."""
_READY = b"Z"
_IDLE = b"I"


class Reader:
    """Messages of PostgreSQL's protocol: their type, and the whole message."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def startup(self) -> bytes:
        """The first message, which has no type."""
        await self._have(4)
        return await self._cut(int.from_bytes(self._buffer[:4]))

    async def message(self) -> tuple[bytes, bytes]:
        await self._have(5)
        whole = await self._cut(1 + int.from_bytes(self._buffer[1:5]))
        return whole[:1], whole

    async def _have(self, size: int) -> None:
        while len(self._buffer) < size:
            data = await self._stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._buffer += data

    async def _cut(self, size: int) -> bytes:
        await self._have(size)
        whole = bytes(self._buffer[:size])
        del self._buffer[:size]
        return whole


@dataclass
class Session:
    """A session of PostgreSQL that is lent to clients."""

    stream: trio.SocketStream
    reader: Reader


@dataclass
class FakePooler:
    """The pooler. The sessions in `idle` are lent in the order `first`."""

    target: str
    mode: Mode
    first: Literal["last used", "first used"]
    idle: list[Session] = field(default_factory=list)

    async def serve(self, client: trio.SocketStream) -> None:
        reader = Reader(client)
        session: Session | None = None
        try:
            startup = await reader.startup()
            if int.from_bytes(startup[4:8]) == _SSL_REQUEST:
                await client.send_all(b"N")
                startup = await reader.startup()
            session = await self._session()
            await client.send_all(await self._welcome(session, startup))
            if self.mode == "transaction":
                self.idle.append(session)
                session = None
            while True:
                kind, message = await reader.message()
                if kind == _TERMINATE:
                    return
                if session is None:
                    session = self.idle.pop(-1 if self.first == "last used" else 0)
                await session.stream.send_all(message)
                if kind == _FLUSH:
                    await self._answer(session, client, until=_DESCRIBED)
                elif kind in _ENDS_A_STEP:
                    status = await self._answer(session, client, until=_READY)
                    if status == _IDLE and self.mode == "transaction":
                        self.idle.append(session)
                        session = None
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(client)
            if session is not None:
                await trio.aclose_forcefully(session.stream)

    async def _session(self) -> Session:
        stream = await trio.open_unix_socket(self.target)
        return Session(stream, Reader(stream))

    async def _welcome(self, session: Session, startup: bytes) -> bytes:
        """Starts the session; returns its welcome, with a key of the pooler's own."""
        await session.stream.send_all(startup)
        welcome = b""
        while True:
            kind, message = await session.reader.message()
            if kind == b"K":
                message = b"K" + (12).to_bytes(4) + secrets.token_bytes(8)
            welcome += message
            if kind == b"Z":
                return welcome

    async def _answer(self, session: Session, client: trio.SocketStream, until: bytes) -> bytes:
        """Passes an answer on, to one of these messages; returns the rest of that."""
        while True:
            kind, message = await session.reader.message()
            await client.send_all(message)
            if kind in until:
                return message[5:]


@asynccontextmanager
async def fake_pooler(
    url: str, folder: Path, mode: Mode, first: Literal["last used", "first used"] = "last used"
) -> AsyncIterator[str]:
    """The URL of such a pooler in front of the PostgreSQL of `url`. Its socket is in `folder`."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    name = f".s.PGSQL.{query['port']}"
    pooler = FakePooler(f"{query['host']}/{name}", mode, first)
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(str(folder / name))
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, pooler.serve, [trio.SocketListener(listening)])
        yield urlunsplit(parts._replace(query=urlencode({**query, "host": str(folder)})))
        nursery.cancel_scope.cancel()
    for session in pooler.idle:
        await trio.aclose_forcefully(session.stream)
