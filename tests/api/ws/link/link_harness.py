"""A node with players, and the far end of its links: in memory, by a clock that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
import trio

from api.ws.link.connection import LinkConnection
from reileta.protocol.frames import payload_of
from reileta.protocol.node_link import (
    Fan,
    Hello,
    Hold,
    Host,
    Say,
    Welcome,
    from_server,
    messages_of,
)
from reileta.records import HostKind, HostNode
from tests.actors.node_harness import (
    ADDRESS,
    EPOCH_MS,
    ROOM,
    NodeHarness,
    account,
    open_harness,
    settle,
)
from tests.api.ws.fake_transport import FakeTransport

NODE = "n_00000000-0000-4000-8000-00000000000a"
OTHER_NODE = "n_00000000-0000-4000-8000-00000000000b"
T = TypeVar("T")


def host_node(id_: str = NODE, *, kind: HostKind = "hosted", owner: int = 0) -> HostNode:
    return HostNode(
        id=id_,
        title="Ada's machine",
        owner=account(owner).id,
        kind=kind,
        region=None,
        capacity=100,
        direct=None,
        link=0,
        server=None,
        draining=False,
        version=None,
        created_at=EPOCH_MS,
        updated_at=EPOCH_MS,
        seen_at=None,
        status="offline",
    )


class LinkTransport(FakeTransport):
    """A socket that a test may stop from being read."""

    stalled = False

    @property
    def waiting_bytes(self) -> int:
        return 1 << 30 if self.stalled else 0


@dataclass
class NodeEnd:
    """An instance node, as far as a link shows it: it says what a test says."""

    connection: LinkConnection
    transport: LinkTransport
    heard: list[Any] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    hosted: Host | None = None
    """The instance that a test has the node speak for."""

    async def send(self, *items: object) -> None:
        for message in messages_of(items):
            await self.send_raw(message)

    async def send_raw(self, message: bytes | None) -> None:
        self.transport.heard_at = trio.current_time()
        if not self.connection.take(message):
            await self.connection.handle()
        await settle()
        self.read()

    async def hello(self, *holds: Hold) -> Welcome:
        await self.send(Hello([1], "test/1", holds=list(holds)))
        return self.one(Welcome)

    def read(self) -> list[Any]:
        frames, self.transport.frames = self.transport.frames, []
        items = [one for frame in frames for one in from_server.decode(payload_of(frame))]
        self.heard += items
        return items

    def take(self, kind: type[T]) -> list[T]:
        """The items of that kind that came since the last time."""
        self.read()
        found = [one for one in self.heard if isinstance(one, kind)]
        self.heard = [one for one in self.heard if not isinstance(one, kind)]
        return found

    def one(self, kind: type[T]) -> T:
        (found,) = self.take(kind)
        return found

    def fan(self, host: Host, player: str, data: bytes = b"1", **more: Any) -> Fan:
        """The next item of an instance."""
        number = self.numbers.get(host.instance, 0) + 1
        self.numbers[host.instance] = number
        fields = {"kind": "data", "number": number, **more}
        return Fan(host.instance, host.epoch, player=player, data=data, **fields)

    async def echo(self, host: Host) -> list[Say]:
        """Passes on what players said, as it came."""
        said = self.take(Say)
        for one in said:
            more = {"key": one.key, "at": one.at, "to": one.to, "of": one.number}
            await self.send(self.fan(host, one.player, one.data, **more))
        return said

    def code(self) -> int:
        """The close code; 0 while the link is open."""
        return self.transport.close_code

    async def lose(self) -> None:
        """The connection is cut."""
        self.scope.cancel()
        await settle()


@dataclass
class LinkHarness:
    """The server, and a way to link nodes to it."""

    harness: NodeHarness
    nursery: trio.Nursery

    def add(self, host: HostNode) -> None:
        self.harness.store.host_nodes.hosts[host.id] = host
        self.harness.store.host_nodes.tokens[host.id] = b"token"

    def move_room(self, node: str | None = NODE, room: str = ROOM) -> None:
        """The room lives on that node."""
        records = self.harness.store.instances.records
        records[room] = replace(records[room], node=node)

    def dial(self, node: str = NODE, token: bytes = b"token") -> NodeEnd:
        """A socket of a node, before its hello."""
        server, store = self.harness.node, self.harness.store
        transport = LinkTransport(self.nursery)
        connection = LinkConnection(
            server.host_links,
            transport,
            store.host_nodes.hosts[node],
            token,
            address=ADDRESS,
            public_key="key",
        )
        end = NodeEnd(connection, transport)
        self.nursery.start_soon(self._serve, end)
        return end

    async def _serve(self, end: NodeEnd) -> None:
        """As the route and the gateway do."""
        connection, links = end.connection, self.harness.node.host_links
        with end.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.pump)
                nursery.start_soon(self._watch, end)
                await trio.sleep_forever()
        connection.closed()
        await links.closed(connection, connection.reason)
        if connection.cut_for is not None:
            await links.cut(connection, connection.cut_for)

    async def _watch(self, end: NodeEnd) -> None:
        while True:
            await trio.sleep(1)
            end.connection.check_deadlines(trio.current_time())
            if end.transport.scope.cancel_called or end.code():
                end.scope.cancel()

    async def linked(self, node: str = NODE, *holds: Hold) -> NodeEnd:
        """A node with a link."""
        end = self.dial(node)
        await end.hello(*holds)
        return end


@asynccontextmanager
async def open_links(
    monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[LinkHarness]:
    """A server with a room that lives on `NODE`, which is not linked."""
    async with (
        open_harness(monkeypatch, **settings) as harness,
        trio.open_nursery() as nursery,
    ):
        links = LinkHarness(harness, nursery)
        links.add(host_node())
        links.move_room()
        yield links
        nursery.cancel_scope.cancel()
