"""A way for TCP that can be cut in silence: nobody is told, as when a cable is pulled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

BLOCK_BYTES: Final = 65_536
LOST: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)

Open = Callable[[], Awaitable[trio.SocketStream]]


class Valve:
    """Lets bytes of one direction through, or keeps them."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._opened.set()

    def cut(self) -> None:
        if self._opened.is_set():
            self._opened = trio.Event()

    def heal(self) -> None:
        self._opened.set()

    async def passable(self) -> None:
        await self._opened.wait()


class Gate:
    """Passes connections on to a server. While a direction is cut, nothing of it is read, so that
    the sender's system keeps what is sent; it arrives when the cut heals, as it does with TCP.

    New connections meet the same cut: they are opened, and nothing comes.
    """

    def __init__(self, target: Open) -> None:
        self._target = target
        self.forth = Valve()
        """From the client to the server."""
        self.back = Valve()
        self._scopes: set[trio.CancelScope] = set()

    def cut(self) -> None:
        """Both ways."""
        self.forth.cut()
        self.back.cut()

    def heal(self, *, forget: bool = False) -> None:
        """Both ways; `forget`: connections of before end, and what they kept is lost."""
        if forget:
            for scope in self._scopes:
                scope.cancel()
        self.forth.heal()
        self.back.heal()

    async def serve(self, listeners: list[trio.SocketListener]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._pass_on, listeners)

    async def _pass_on(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with client:
                    await self.forth.passable()
                    await self.back.passable()
                    try:
                        server = await self._target()
                    except LOST:
                        return
                    async with server, trio.open_nursery() as nursery:
                        nursery.start_soon(_copy, client, server, self.forth, nursery.cancel_scope)
                        nursery.start_soon(_copy, server, client, self.back, nursery.cancel_scope)
            finally:
                self._scopes.discard(scope)


async def _copy(
    source: trio.SocketStream, sink: trio.SocketStream, valve: Valve, both: trio.CancelScope
) -> None:
    """One direction, until either side ends; that ends both."""
    with suppress(*LOST):
        while True:
            await valve.passable()
            data = await source.receive_some(BLOCK_BYTES)
            await valve.passable()
            if not data:
                break
            await sink.send_all(data)
    await valve.passable()
    both.cancel()


def tcp(host: str, port: int) -> Open:
    """To a port."""

    async def connect() -> trio.SocketStream:
        return await trio.open_tcp_stream(host, port)

    return connect


def unix(path: Path) -> Open:
    """To a Unix socket."""

    async def connect() -> trio.SocketStream:
        return await trio.open_unix_socket(path)

    return connect


async def listen_on(path: Path) -> list[trio.SocketListener]:
    """A listener on a Unix socket, for everyone."""
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    path.chmod(0o777)
    sock.listen(128)
    return [trio.SocketListener(sock)]
