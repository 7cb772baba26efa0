from __future__ import annotations

import socket
from contextlib import suppress
from typing import Protocol

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from actors.delivery.batch import Batch
from api.ws.transport.backlog import MAX_VIEWS
from api.ws.transport.base import Messages, TransportClosed, TransportState, Upgraded
from api.ws.transport.tcp import SocketTransport
from api.ws.transport.tls import StreamTransport
from reileta.observability.metrics import Metrics
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import text_frame
from tests.conftest import PATIENCE_S

_URI = parse_uri("ws://localhost/")
KIB = 1024
LIMIT = 64 * KIB


def spoken() -> ServerProtocol:
    """A protocol whose upgrade is over."""
    return ServerProtocol(state=State.OPEN, max_size=LIMIT)


class TransportPair:
    """A wire on one end of a connection, and the client's end of it."""

    def __init__(self, wire: SocketTransport | StreamTransport, far: trio.abc.Stream) -> None:
        self.wire = wire
        self.far = far
        self.client = ClientProtocol(_URI, state=State.OPEN, max_size=None)

    async def __aenter__(self) -> TransportPair:
        return self

    async def __aexit__(self, *_: object) -> None:
        """The client goes, and then the server finishes with it."""
        await trio.aclose_forcefully(self.far)
        if self.wire.state is not TransportState.CLOSED:
            await self.wire.finish()

    async def frames(self, count: int) -> list[Frame]:
        """The next frames that the client gets; more may have come with the last."""
        got: list[Frame] = []
        with trio.fail_after(PATIENCE_S):
            while len(got) < count:
                data = await self.far.receive_some(65_536)
                assert data, f"it ended after {got}"
                self.client.receive_data(bytes(data))
                got += [one for one in self.client.events_received() if isinstance(one, Frame)]
        return got

    async def say(self, data: bytes) -> None:
        await self.far.send_all(data)

    def masked(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
        return Frame(opcode, data, fin).serialize(mask=True)


def on_socket(
    nursery: trio.Nursery, metrics: Metrics, *, early: bytes = b"", limit: int = LIMIT
) -> TransportPair:
    near, far = socket.socketpair()
    for one in (near, far):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    upgraded = Upgraded(spoken(), nursery, metrics, limit, "192.0.2.1", early)
    return TransportPair(
        SocketTransport(near, upgraded), trio.SocketStream(trio.socket.from_stdlib_socket(far))
    )


def on_stream(
    nursery: trio.Nursery, metrics: Metrics, *, early: bytes = b"", limit: int = LIMIT
) -> TransportPair:
    near, far = memory_stream_pair()
    upgraded = Upgraded(spoken(), nursery, metrics, limit, "192.0.2.1", early)
    return TransportPair(StreamTransport(near, upgraded), far)


class MakeTransportPair(Protocol):
    def __call__(
        self, nursery: trio.Nursery, metrics: Metrics, *, early: bytes = b""
    ) -> TransportPair: ...


both = pytest.mark.parametrize("pair_of", [on_socket, on_stream], ids=["socket", "stream"])


async def received(pair: TransportPair) -> Messages:
    with trio.fail_after(PATIENCE_S):
        return await pair.wire.receive()


@both
async def test_frames_go_out_in_order(nursery: trio.Nursery, pair_of: MakeTransportPair) -> None:
    pair = pair_of(nursery, Metrics())
    async with pair:
        batch = Batch([text_frame(b"%d" % n) for n in range(4)])
        pair.wire.send(text_frame(b"first"))
        pair.wire.write([(batch, 0, batch.ends[0]), (batch, batch.ends[1], len(batch))])
        texts = [bytes(one.data) for one in await pair.frames(4)]
        assert texts == [b"first", b"0", b"2", b"3"]


@both
async def test_what_can_not_be_written_waits(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    metrics = Metrics()
    pair = pair_of(nursery, metrics)
    async with pair:
        for number in range(50):
            pair.wire.send(text_frame(b"%04d" % number + b"." * KIB))
        assert metrics.backlog_bytes == pair.wire.waiting_bytes > 0
        texts = [int(bytes(one.data[:4])) for one in await pair.frames(50)]
        assert texts == list(range(50))
        await wait_all_tasks_blocked()
        assert metrics.backlog_bytes == pair.wire.waiting_bytes == 0
        assert metrics.bytes_out > 50 * KIB


async def test_more_pieces_than_the_system_takes_at_once(nursery: trio.Nursery) -> None:
    pair = on_socket(nursery, Metrics())
    async with pair:
        count = MAX_VIEWS * 2 + 10
        batch = Batch([text_frame(b"%04d" % n) for n in range(2 * count)])
        ends = [0, *batch.ends]
        pair.wire.write([(batch, ends[2 * n], ends[2 * n + 1]) for n in range(count)])
        texts = [int(bytes(one.data)) for one in await pair.frames(count)]
        assert texts == [2 * n for n in range(count)]


@both
async def test_too_slow(nursery: trio.Nursery, pair_of: MakeTransportPair) -> None:
    """The frame that was begun is finished, what waits is dropped, and the close frame follows."""
    metrics = Metrics()
    pair = pair_of(nursery, metrics)
    async with pair:
        pair.wire.send(text_frame(b"0" * KIB))
        await wait_all_tasks_blocked()
        for _ in range(200):
            pair.wire.send(text_frame(b"1" * KIB))
        assert metrics.too_slow == 1
        assert pair.wire.state is TransportState.CLOSING
        assert pair.wire.waiting_bytes <= LIMIT
        got: list[Frame] = []
        while not got or got[-1].opcode is not Opcode.CLOSE:
            got += await pair.frames(1)
        assert bytes(got[-1].data[:2]) == (4008).to_bytes(2)
        assert all(len(one.data) == KIB for one in got[:-1])
        await wait_all_tasks_blocked()
        assert metrics.backlog_bytes == 0
        with trio.CancelScope() as scope:
            scope.cancel()


@both
async def test_one_goodbye_and_nothing_after_it(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    pair = pair_of(nursery, Metrics())
    async with pair:
        pair.wire.close(CloseCode.CREDENTIAL_GONE, "é" * 100)
        pair.wire.close(CloseCode.GOING_AWAY)
        pair.wire.send(text_frame(b"too late"))
        (goodbye,) = await pair.frames(1)
        assert goodbye.opcode is Opcode.CLOSE
        assert bytes(goodbye.data[:2]) == (4000).to_bytes(2)
        assert bytes(goodbye.data[2:]).decode() == "é" * 61, "cut to what a close frame holds"
        assert pair.wire.refusing
        await pair.say(pair.masked(Opcode.TEXT, b"ignored"))
        assert await received(pair) == []
        await pair.say(pair.masked(Opcode.CLOSE, b"\x0f\xa0"))
        with suppress(TransportClosed), trio.fail_after(PATIENCE_S):
            while True:
                assert await pair.wire.receive() == []
        with trio.fail_after(1):
            await pair.wire.finish()
        assert not pair.wire.waiting_bytes


@both
async def test_messages_come_in(nursery: trio.Nursery, pair_of: MakeTransportPair) -> None:
    metrics = Metrics()
    first = Frame(Opcode.TEXT, b"early").serialize(mask=True)
    pair = pair_of(nursery, metrics, early=first)
    async with pair:
        assert await received(pair) == [b"early"]
        await pair.say(
            pair.masked(Opcode.TEXT, b"one")
            + pair.masked(Opcode.TEXT, b"t", fin=False)
            + pair.masked(Opcode.CONT, b"", fin=False)
            + pair.masked(Opcode.PING, b"?")
            + pair.masked(Opcode.CONT, b"wo")
            + pair.masked(Opcode.BINARY, b"three")
        )
        messages: Messages = []
        while len(messages) < 3:
            messages += await received(pair)
        assert messages == [b"one", b"two", None]
        assert pair.wire.overhead == 3, "a ping, and two fragments more than messages"
        (pong,) = await pair.frames(1)
        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"?")
        assert metrics.bytes_in > 0


@both
async def test_messages_before_the_clients_goodbye_count(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    pair = pair_of(nursery, Metrics())
    async with pair:
        await pair.say(
            pair.masked(Opcode.TEXT, b"last words")
            + pair.masked(Opcode.CLOSE, b"\x03\xe8")
            + pair.masked(Opcode.TEXT, b"?")
        )
        assert await received(pair) == [b"last words"]
        assert not pair.wire.refusing
        with pytest.raises(TransportClosed):
            await received(pair)
        (echo,) = await pair.frames(1)
        assert bytes(echo.data) == b"\x03\xe8"


@both
async def test_a_broken_frame_ends_it(nursery: trio.Nursery, pair_of: MakeTransportPair) -> None:
    pair = pair_of(nursery, Metrics())
    async with pair:
        await pair.say(pair.masked(Opcode.TEXT, b"good") + b"\xff\xff\xff\xff")
        assert await received(pair) == [b"good"]
        with pytest.raises(TransportClosed):
            await received(pair)
        (goodbye,) = await pair.frames(1)
        assert bytes(goodbye.data[:2]) == (1002).to_bytes(2)


@both
async def test_a_client_that_has_gone_hurts_nobody(
    nursery: trio.Nursery, pair_of: MakeTransportPair
) -> None:
    metrics = Metrics()
    pair = pair_of(nursery, metrics)
    await trio.aclose_forcefully(pair.far)
    for _ in range(5):
        pair.wire.send(text_frame(b"anyone?"))
        await wait_all_tasks_blocked()
    assert pair.wire.scope.cancel_called
    pair.wire.ping()
    pair.wire.close(CloseCode.GOING_AWAY)
    await pair.wire.finish()
    assert metrics.backlog_bytes == 0


@both
async def test_pings(nursery: trio.Nursery, pair_of: MakeTransportPair) -> None:
    pair = pair_of(nursery, Metrics())
    async with pair:
        pair.wire.ping()
        assert pair.wire.pinged_at is not None
        (ping,) = await pair.frames(1)
        assert ping.opcode is Opcode.PING
        await pair.say(pair.masked(Opcode.PONG, b""))
        assert await received(pair) == []
        assert pair.wire.pinged_at is None


async def test_empty_fragments_are_not_kept(nursery: trio.Nursery) -> None:
    pair = on_socket(nursery, Metrics())
    async with pair:
        await pair.say(pair.masked(Opcode.TEXT, b"x", fin=False))
        assert await received(pair) == []
        for _ in range(3):
            await pair.say(pair.masked(Opcode.CONT, b"", fin=False) * 100)
            assert await received(pair) == []
        assert pair.wire.overhead >= 300
        assert pair.wire.fragment_count == 2
        await pair.say(pair.masked(Opcode.CONT, b"y"))
        assert await received(pair) == [b"xy"]


async def test_a_cut_wire_is_not_waited_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    pair = on_socket(nursery, Metrics())
    async with pair:
        for _ in range(50):
            pair.wire.send(text_frame(b"." * KIB))
        pair.wire.cut()
        began = trio.current_time()
        await pair.wire.finish()
        assert trio.current_time() == began
