"""A cut is silent, can be one-way, and heals with what was sent meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from tests.cluster.gate import Gate, listen_on, tcp, unix
from tests.conftest import PATIENCE_S

A_WHILE_S = 0.05
"""So long nothing comes, though it could."""


async def _echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data.upper())


@asynccontextmanager
async def echoing() -> AsyncIterator[tuple[Gate, int]]:
    """A gate to a server that answers in capitals, and its port."""
    async with trio.open_nursery() as nursery:
        servers = await nursery.start(trio.serve_tcp, _echo, 0)
        gate = Gate(tcp("127.0.0.1", servers[0].socket.getsockname()[1]))
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(gate.serve, listeners)
        yield gate, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def told(stream: trio.SocketStream, size: int) -> bytes:
    """The next bytes."""
    found = b""
    with trio.fail_after(PATIENCE_S):
        while len(found) < size:
            more = await stream.receive_some(size - len(found))
            assert more
            found += more
    return found


async def silent(stream: trio.SocketStream) -> bool:
    """Whether nothing comes, not even an end."""
    with trio.move_on_after(A_WHILE_S):
        await stream.receive_some(1)
        return False
    return True


async def test_it_passes_bytes_on() -> None:
    async with echoing() as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"hello")
        assert await told(stream, 5) == b"HELLO"


async def test_a_cut_is_silent_and_heals() -> None:
    async with echoing() as (gate, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        gate.cut()
        await stream.send_all(b"hello")
        assert await silent(stream)
        gate.heal()
        assert await told(stream, 5) == b"HELLO"


async def test_one_way_is_cut_alone() -> None:
    async with echoing() as (gate, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"-")
        assert await told(stream, 1) == b"-"
        gate.back.cut()
        await stream.send_all(b"a")
        assert await silent(stream)
        gate.forth.cut()
        gate.back.heal()
        assert await told(stream, 1) == b"A"
        await stream.send_all(b"b")
        assert await silent(stream)
        gate.heal()
        assert await told(stream, 1) == b"B"


async def test_new_connections_meet_the_cut() -> None:
    async with echoing() as (gate, port):
        gate.cut()
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            assert await silent(stream)
            gate.heal()
            assert await told(stream, 5) == b"HELLO"


async def test_what_was_sent_meanwhile_can_be_forgotten() -> None:
    async with echoing() as (gate, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"a")
        assert await told(stream, 1) == b"A"
        gate.cut()
        await stream.send_all(b"b")
        gate.heal(forget=True)
        with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            assert await stream.receive_some(1) == b""


async def test_an_end_is_passed_on() -> None:
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def serve(stream: trio.SocketStream) -> None:
            assert await stream.receive_some(1) == b""
            ended.set()

        servers = await nursery.start(trio.serve_tcp, serve, 0)
        gate = Gate(tcp("127.0.0.1", servers[0].socket.getsockname()[1]))
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(gate.serve, listeners)
        stream = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        await stream.aclose()
        with trio.fail_after(PATIENCE_S):
            await ended.wait()
        nursery.cancel_scope.cancel()


async def test_a_unix_socket_has_a_gate_too(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, _echo, await listen_on(tmp_path / "server"))
        gate = Gate(unix(tmp_path / "server"))
        nursery.start_soon(gate.serve, await listen_on(tmp_path / "gate"))
        async with await trio.open_unix_socket(str(tmp_path / "gate")) as stream:
            await stream.send_all(b"hello")
            assert await told(stream, 5) == b"HELLO"
        nursery.cancel_scope.cancel()
