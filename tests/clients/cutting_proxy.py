"""A proxy that loses connections, and that stops reading from the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import anyio
import anyio.abc

LOST = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError)


class CuttingProxy:
    """Passes connections on to a server, until `cut` ends all that are open, without a word.
    From `pause` to `resume` it reads nothing from the server, as a slow reader."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._cuts = anyio.Event()
        self._reads = anyio.Event()
        self._reads.set()

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[CuttingProxy]:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        host, port = target.hostname, target.port
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        own = listener.extra(anyio.abc.SocketAttribute.local_port)
        proxy = cls(f"http://127.0.0.1:{own}")

        async def handle(client: anyio.abc.ByteStream) -> None:
            cuts = proxy._cuts
            async with (
                client,
                await anyio.connect_tcp(host, port) as server,
                anyio.create_task_group() as tasks,
            ):

                async def end() -> None:
                    await cuts.wait()
                    tasks.cancel_scope.cancel()

                async def pipe(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
                    with suppress(*LOST):
                        async for chunk in source:
                            if source is server:
                                await proxy._reads.wait()
                            await sink.send(chunk)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(end)
                tasks.start_soon(pipe, client, server)
                tasks.start_soon(pipe, server, client)

        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            yield proxy
            tasks.cancel_scope.cancel()

    def cut(self) -> None:
        cuts, self._cuts = self._cuts, anyio.Event()
        cuts.set()

    def pause(self) -> None:
        self._reads = anyio.Event()

    def resume(self) -> None:
        self._reads.set()
