"""The bytes of a connection, plain and over TLS: progress, ends, and who has hung up."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from api.listen.byte_stream import (
    ByteStream,
    ClientGone,
    HangupWatch,
    PlainStream,
    TlsStream,
    TlsTransport,
)
from api.listen.timeouts import PROGRESS_BYTES, Timeouts
from reileta.settings import MIB
from tests.api.listen.fakes import settled

TIMEOUTS = Timeouts(progress_s=60)


ClientStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class ConnectionEnds:
    """Both ends of a connection; `raw` is the client's socket."""

    def __init__(self, ours: ByteStream, client: ClientStream, raw: socket.socket) -> None:
        self.ours = ours
        self.client = client
        self.raw = raw

    def reset(self) -> None:
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        trio.lowlevel.notify_closing(self.raw)
        self.raw.close()


async def pair() -> tuple[socket.socket, socket.socket]:
    """A server's and a client's socket, of TCP."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    listener.close()
    for one in (server, client):
        one.setblocking(False)
    return server, client


@asynccontextmanager
async def plain() -> AsyncIterator[ConnectionEnds]:
    server, client = await pair()
    ours = PlainStream(server, TIMEOUTS)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    yield ConnectionEnds(ours, stream, client)
    ours.close()
    await trio.aclose_forcefully(stream)


@asynccontextmanager
async def secure(
    certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> AsyncIterator[ConnectionEnds]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    server, client = await pair()
    theirs = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(client)),
        trusting,
        server_hostname="127.0.0.1",
        https_compatible=True,
    )
    ours = trio.SSLStream(
        TlsTransport(
            trio.SocketStream(trio.socket.from_stdlib_socket(server)), trio.lowlevel.checkpoint
        ),
        context,
        server_side=True,
        https_compatible=True,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.do_handshake)
        nursery.start_soon(ours.do_handshake)
    stream = TlsStream(ours, TIMEOUTS)
    yield ConnectionEnds(stream, theirs, client)
    stream.close()
    await trio.aclose_forcefully(theirs)


@pytest.fixture(params=["plain", "TLS"])
async def ends(
    request: pytest.FixtureRequest, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> AsyncIterator[ConnectionEnds]:
    opened = plain() if request.param == "plain" else secure(certificate, trusting)
    async with opened as both:
        yield both


async def test_both_ways(ends: ConnectionEnds) -> None:
    await ends.client.send_all(b"ping")
    assert await ends.ours.receive() == b"ping"
    await ends.ours.send(b"pong")
    assert await ends.client.receive_some() == b"pong"


async def test_receiving_waits_and_can_be_cancelled(ends: ConnectionEnds) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.ours.receive)
            await wait_all_tasks_blocked()
            scope.cancel()
    await ends.client.send_all(b"later")
    assert await ends.ours.receive() == b"later"


async def test_nothing_is_lost_when_receiving_is_cancelled(ends: ConnectionEnds) -> None:
    """What has come is given out, or still there."""
    await ends.client.send_all(b"x")
    await wait_all_tasks_blocked(0.01)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await ends.ours.receive() == b"x"
        return
    assert await ends.ours.receive() == b"x"


async def test_one_with_much_to_say_lets_others_have_a_turn() -> None:
    size, turns = PROGRESS_BYTES * 30, 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with plain() as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.client.send_all, bytes(size))
        nursery.start_soon(other)
        received = calls = 0
        while received < size:
            received += len(await ends.ours.receive())
            calls += 1
        assert turns >= calls // 2
        nursery.cancel_scope.cancel()


async def test_the_end_is_empty_however_it_comes(ends: ConnectionEnds) -> None:
    await ends.client.send_all(b"last")
    assert await ends.ours.receive() == b"last"
    ends.raw.shutdown(socket.SHUT_WR)
    assert await ends.ours.receive() == b""
    if isinstance(ends.ours, PlainStream):  # over TLS, that was all
        await ends.ours.send(b"still there")
        assert await ends.client.receive_some() == b"still there"
    ends.reset()
    await wait_all_tasks_blocked(0.01)
    assert await ends.ours.receive() == b""
    with pytest.raises(ClientGone):
        await ends.ours.send(bytes(MIB))


async def test_sending_to_one_that_goes_meanwhile(ends: ConnectionEnds) -> None:
    async def send() -> None:
        with pytest.raises(ClientGone):
            await ends.ours.send(bytes(64 * MIB))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.01)
        ends.reset()


async def test_sending_has_a_deadline_that_progress_moves(
    ends: ConnectionEnds, mock_clock: MockClock
) -> None:
    size = 64 * MIB
    deadline = ends.ours.deadline

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.ours.send, bytes(size))
        await settled(lambda: deadline.at <= trio.current_time() + 60)
        await wait_all_tasks_blocked(0.01)
        at = deadline.at
        mock_clock.jump(30)
        await wait_all_tasks_blocked(0.01)
        assert deadline.at == at  # nothing was read
        received = 0
        while received < 16 * MIB:
            received += len(await ends.client.receive_some())
        await settled(lambda: deadline.at > at)
        while received < size:
            received += len(await ends.client.receive_some())
    assert deadline.at > trio.current_time() + 10_000


async def test_ending_our_side_leaves_the_clients(ends: ConnectionEnds) -> None:
    await ends.ours.send(b"bye")
    await ends.ours.end()
    assert await ends.client.receive_some() == b"bye"
    await ends.client.send_all(b"and bye")
    assert await ends.ours.receive() == b"and bye"
    assert await ends.client.receive_some() == b""


async def test_closing_twice_and_finishing(ends: ConnectionEnds) -> None:
    await ends.ours.finish()
    ends.ours.close()
    ends.ours.close()
    assert await ends.client.receive_some() == b""


async def test_a_socket_that_was_given_up() -> None:
    async with plain() as ends:
        assert isinstance(ends.ours, PlainStream)
        owned = ends.ours.release()
        ends.ours.close()
        assert owned.send(b"x") == 1
        owned.close()


async def test_who_has_hung_up() -> None:
    watch = HangupWatch()
    told: list[tuple[int, bool]] = []

    def note(number: int, broken: bool) -> None:
        told.append((number, broken))

    async with plain() as one, plain() as two, plain() as three, trio.open_nursery() as nursery:
        two.raw.shutdown(socket.SHUT_WR)  # before anybody watches
        for number, ends in enumerate((one, two, three)):
            watch.add(ends.ours.fileno(), partial(note, number))
        nursery.start_soon(watch.run)
        await settled(lambda: told == [(1, False)])
        await one.client.send_all(b"data is no end")
        await wait_all_tasks_blocked(0.01)
        assert told == [(1, False)]
        one.reset()
        await settled(lambda: told[1:] == [(0, True)])
        watch.remove(three.ours.fileno())
        watch.remove(three.ours.fileno())
        three.reset()
        await wait_all_tasks_blocked(0.01)
        assert len(told) == 2
        watch.remove(one.ours.fileno())
        watch.remove(two.ours.fileno())
        assert len(watch) == 0
        nursery.cancel_scope.cancel()


async def test_the_watch_keeps_nothing_of_those_it_told() -> None:
    class Connection:
        told = False

        def hung_up(self, broken: bool) -> None:
            self.told = True

    watch = HangupWatch()
    async with plain() as ends, trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        connection = Connection()
        watch.add(ends.ours.fileno(), connection.hung_up)
        ends.raw.shutdown(socket.SHUT_WR)
        while not connection.told:
            await wait_all_tasks_blocked()
        watch.remove(ends.ours.fileno())
        kept = weakref.ref(connection)
        del connection
        gc.collect()
        assert kept() is None
        nursery.cancel_scope.cancel()
