"""One task that reads for all sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import ClassVar

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from actors.delivery.batch import Batch
from actors.delivery.pacing import REST_S, CoreLoad
from actors.runtime.rounds import Rounds
from api.ws.transport.base import HELD, TransportClosed, Upgraded
from api.ws.transport.tcp import EpollReader, EpollTransport
from reileta.observability.metrics import Metrics
from reileta.protocol.close_codes import CloseCode
from tests.conftest import PATIENCE_S


class Listener:
    """Takes what it is given, but holds what begins with `hold` and fails on `fail`."""

    def __init__(self) -> None:
        self.taken: list[bytes | None] = []
        self.charged = 0

    def take(self, payload: bytes | None) -> bool:
        self.taken.append(payload)
        if payload == b"fail":
            raise ValueError("a bug")
        return payload is None or not payload.startswith(b"hold")

    def charge_overhead(self) -> None:
        self.charged += 1


class End:
    """Both ends of a connection: our wire, and the client's bare socket."""

    def __init__(self, pump: EpollReader, nursery: trio.Nursery) -> None:
        ours, theirs = socket.socketpair()
        self.client = trio.socket.from_stdlib_socket(theirs)
        self.listener = Listener()
        self.wire = EpollTransport(
            pump,
            ours,
            Upgraded(
                ServerProtocol(state=State.OPEN, max_size=65_536),
                nursery,
                Metrics(),
                backlog_limit_bytes=1 << 20,
                remote="test",
            ),
        )
        self.wire.listen(self.listener)

    async def send(self, *texts: bytes, opcode: Opcode = Opcode.TEXT) -> None:
        frames = [Frame(opcode, text).serialize(mask=True) for text in texts]
        await self.client.send(b"".join(frames))


class HandPauses:
    """`Pauses` that end when the test says so."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self._over = trio.Event()

    async def take(self, seconds: float) -> None:
        self.lengths.append(seconds)
        await self._over.wait()
        self._over = trio.Event()

    def end(self) -> None:
        self._over.set()


class HandTimer:
    """A `PreciseTimer` that ends when the test says so."""

    made: ClassVar[list[HandTimer]] = []

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self.delays: list[float | None] = []
        self.made.append(self)

    def set(self, delay_s: float | None) -> None:
        self.delays.append(delay_s)
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def end(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        os.close(self.descriptor)


@pytest.fixture
async def pump(nursery: trio.Nursery) -> AsyncIterator[EpollReader]:
    pump = EpollReader()
    nursery.start_soon(pump.run)
    yield pump
    nursery.cancel_scope.cancel()


@pytest.fixture
async def connect(pump: EpollReader, nursery: trio.Nursery) -> AsyncIterator[Callable[[], End]]:
    ends: list[End] = []

    def make() -> End:
        ends.append(End(pump, nursery))
        return ends[-1]

    yield make
    for end in ends:
        end.client.close()
        await end.wire.finish()


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.001)


async def test_messages_reach_the_listener_without_waking_the_sockets_task(
    connect: Callable[[], End], nursery: trio.Nursery
) -> None:
    end = connect()
    nursery.start_soon(end.wire.receive)
    await wait_all_tasks_blocked()
    await end.send(b"one", b"two")
    await end.send(b"three")
    await _until(lambda: len(end.listener.taken) == 3)
    assert end.listener.taken == [b"one", b"two", b"three"]


async def test_what_must_be_waited_for_is_held_with_all_that_came_behind_it(
    connect: Callable[[], End], pump: EpollReader
) -> None:
    end = connect()
    await end.send(b"one", b"hold it", b"two", b"three")
    with trio.fail_after(PATIENCE_S):
        assert await end.wire.receive() == [HELD, b"two", b"three"]
    assert end.listener.taken == [b"one", b"hold it"]
    assert len(pump) == 0  # nothing more is read until its task asks again
    await end.send(b"four")
    await wait_all_tasks_blocked()
    assert end.listener.taken == [b"one", b"hold it"]


async def test_the_end_of_the_stream_is_the_wires_end(connect: Callable[[], End]) -> None:
    end = connect()
    await end.send(b"last")
    end.client.close()
    with trio.fail_after(PATIENCE_S), pytest.raises(TransportClosed):
        await end.wire.receive()
    assert end.listener.taken == [b"last"]
    with pytest.raises(TransportClosed):
        await end.wire.receive()


async def test_a_clients_goodbye_is_the_wires_end_after_what_came_before_it(
    connect: Callable[[], End],
) -> None:
    end = connect()
    await end.client.send(
        Frame(Opcode.TEXT, b"last").serialize(mask=True)
        + Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True)
    )
    with trio.fail_after(PATIENCE_S), pytest.raises(TransportClosed):
        await end.wire.receive()
    assert end.listener.taken == [b"last"]


async def test_frames_that_are_no_messages_are_charged(
    connect: Callable[[], End], nursery: trio.Nursery
) -> None:
    end = connect()
    nursery.start_soon(end.wire.receive)
    await end.send(b"", opcode=Opcode.PING)
    await _until(lambda: end.listener.charged == 1)
    assert end.listener.taken == []


async def test_a_wire_whose_reading_fails_is_cut_and_the_others_go_on(
    connect: Callable[[], End], nursery: trio.Nursery, pump: EpollReader
) -> None:
    failing, other = connect(), connect()

    async def serve(end: End) -> None:
        with end.wire.scope:
            await end.wire.receive()

    nursery.start_soon(serve, failing)
    nursery.start_soon(serve, other)
    await wait_all_tasks_blocked()
    with capture_logs() as logs:
        await failing.send(b"fail")
        await _until(lambda: failing.wire.scope.cancelled_caught)
    assert [line["event"] for line in logs] == ["connection.failed"]
    await other.send(b"fine")
    await _until(lambda: other.listener.taken == [b"fine"])
    assert len(pump) == 1


async def test_a_finished_wire_is_read_for_no_more(
    connect: Callable[[], End], nursery: trio.Nursery, pump: EpollReader
) -> None:
    end = connect()
    with trio.move_on_after(0):
        await end.wire.receive()
    assert len(pump) == 1
    end.client.close()
    await end.wire.finish()
    await end.wire.finish()
    assert len(pump) == 0


async def test_a_wire_nobody_listens_to_is_read_by_its_own_task(
    connect: Callable[[], End], pump: EpollReader
) -> None:
    end = connect()
    end.wire.listen(None)
    await end.send(b"one")
    with trio.fail_after(PATIENCE_S):
        assert await end.wire.receive() == [b"one"]
    assert len(pump) == 0


async def test_on_a_busy_core_messages_are_gathered_in_a_pause(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = HandPauses()
    monkeypatch.setattr("api.ws.transport.tcp.Pauses", lambda: pauses)
    monkeypatch.setattr(CoreLoad, "share", lambda _: 1.0)
    monkeypatch.setattr("actors.delivery.pacing.PACED_FROM_S", PATIENCE_S)
    began = 0

    class Counted(Rounds):
        def begin(self, now: float) -> None:
            nonlocal began
            began += 1
            super().begin(now)

    pump = EpollReader(Counted(), CoreLoad())
    nursery.start_soon(pump.run)
    ends = [End(pump, nursery) for _ in range(3)]
    for end in ends:
        nursery.start_soon(end.wire.receive)
    await wait_all_tasks_blocked()
    await ends[0].send(b"one")
    await _until(lambda: bool(pauses.lengths))
    assert ends[0].listener.taken == [b"one"]
    assert pauses.lengths == [REST_S]
    for end in ends:
        await end.send(b"two")
    await wait_all_tasks_blocked()
    assert began == 1
    pauses.end()
    await _until(lambda: all(end.listener.taken[-1:] == [b"two"] for end in ends))
    assert began == 2
    await _until(lambda: len(pauses.lengths) == 2)
    pauses.end()  # nothing came in this one, so the next round begins when something does
    await _until(lambda: began == 3)
    await ends[1].send(b"three")
    await _until(lambda: ends[1].listener.taken[-1] == b"three")
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        for end in ends:
            end.client.close()
            await end.wire.finish()
    pump.close()


@pytest.mark.parametrize("together", [False, True])
async def test_a_timer_that_has_ended_is_found_once(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.setattr("api.ws.transport.tcp.PreciseTimer", HandTimer)
    monkeypatch.setattr(HandTimer, "made", [])
    pauses = HandPauses()
    monkeypatch.setattr("api.ws.transport.tcp.Pauses", lambda: pauses)
    share = 0.0
    monkeypatch.setattr(CoreLoad, "share", lambda _: share)
    monkeypatch.setattr("actors.delivery.pacing.PACED_FROM_S", PATIENCE_S)
    due, began = trio.current_time() + 3600, 0

    class Counted(Rounds):
        def begin(self, now: float) -> None:
            nonlocal began
            began += 1
            super().begin(due if began == 2 else now)

    rounds = Counted()
    rounds.later(due, lambda: None)
    pump = EpollReader(rounds, CoreLoad())
    nursery.start_soon(pump.run)
    end = End(pump, nursery)
    nursery.start_soon(end.wire.receive)
    await wait_all_tasks_blocked()
    await end.send(b"one")
    await _until(lambda: bool(HandTimer.made))
    (timer,) = HandTimer.made
    assert (began, len(timer.delays)) == (1, 1)
    share = 1.0  # from here on, there are pauses
    timer.end()
    if together:
        await end.send(b"two")
    await _until(lambda: began == 2)
    await wait_all_tasks_blocked()
    assert timer.delays[1:] == [None]
    if together:
        pauses.end()
        await _until(lambda: began == 3)
        await wait_all_tasks_blocked()
    assert pauses.lengths == ([REST_S] if together else [])
    assert (began, HandTimer.made) == (3 if together else 2, [timer])
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        end.client.close()
        await end.wire.finish()
    pump.close()


async def test_bytes_go_to_the_socket_directly_only_while_nothing_waits(
    connect: Callable[[], End], nursery: trio.Nursery
) -> None:
    end = connect()
    nursery.start_soon(end.wire.receive)
    assert end.wire.direct is not None
    assert end.wire.direct(b"first") == 5
    batch = Batch([b"x" * 5_000_000], snapshot=True)
    piece = (batch, 0, len(batch))
    sent = end.wire.direct(batch.buffer)
    assert 0 < sent < len(batch)
    end.wire.taken_in_part([piece], sent)
    assert end.wire.waiting_bytes == len(batch) - sent
    assert _direct(end) is None
    end.wire.send(b"last")
    expected, got = b"first" + batch.buffer + b"last", b""
    with trio.fail_after(PATIENCE_S):
        while len(got) < len(expected):
            got += await end.client.recv(1 << 20)
    assert got == expected
    await _until(lambda: end.wire.direct is not None)
    assert end.wire._metrics.bytes_out == len(expected) - len(b"first")  # noqa: SLF001
    end.wire.close(CloseCode.GOING_AWAY)
    assert _direct(end) is None


def _direct(end: End) -> object:
    """It changes between two looks, which mypy does not expect."""
    return end.wire.direct
