"""A way to PostgreSQL on which a statement arrives after the request to cancel it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import trio

_CANCEL_REQUEST = (80877102).to_bytes(4, "big")


class LateStatements:
    """Forwards connections to a PostgreSQL at a Unix socket.

    After `hold()`, what clients send waits until a request to cancel has gone through.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._released = trio.Event()
        self._released.set()
        self.held = trio.Event()
        """Set when a statement has come and waits."""

    def hold(self) -> None:
        self._released = trio.Event()

    async def serve(self, client: trio.SocketStream) -> None:
        async with client, await trio.open_unix_socket(self._target) as server:
            first = await client.receive_some()
            cancels = first[4:8] == _CANCEL_REQUEST
            await server.send_all(first)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._to_server, client, server)
                with suppress(trio.BrokenResourceError):  # either side may hang up
                    async for data in server:
                        await client.send_all(data)
                nursery.cancel_scope.cancel()
        if cancels:
            self._released.set()

    async def _to_server(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in client:
                if not self._released.is_set():
                    self.held.set()
                    await self._released.wait()
                await server.send_all(data)
            await server.send_eof()


@asynccontextmanager
async def late_statements(url: str, folder: Path) -> AsyncIterator[tuple[LateStatements, str]]:
    """Such a way to the PostgreSQL of the URL, and its own URL. Its socket is in the folder."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    name = f".s.PGSQL.{query['port']}"
    way = LateStatements(f"{query['host']}/{name}")
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await listening.bind(str(folder / name))
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, way.serve, [trio.SocketListener(listening)])
        yield way, urlunsplit(parts._replace(query=urlencode({**query, "host": str(folder)})))
        nursery.cancel_scope.cancel()
