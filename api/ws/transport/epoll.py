"""The pump: one task reads for all sockets, and waits for all of them at once.

Trio wakes a task for each readable socket, and asks the system anew each time: that costs more than
what most messages need to be read, checked and passed on. The pump keeps the sockets in an epoll of
its own, waits for that, and then reads each socket that has something, in a row. A message that
must be waited for takes its socket out of the pump, and into the hands of the socket's own task,
until it is done; so commands keep their order, and a client that is ahead of the server finds its
TCP window closed.
"""

from __future__ import annotations

import select
import socket
from time import perf_counter
from typing import Final

import structlog
import trio

from actors.runtime.failures import CapturedFailure
from api.ws.transport.base import HELD, Messages, TransportClosed, Upgraded
from api.ws.transport.transports import RECEIVE_BYTES, SocketTransport
from reileta.observability.log_events import CONNECTION_FAILED

ROUND: Final = 64
"""Sockets that are read before everyone else gets a turn. The system names those that are ready in
turn, so none is passed over; and what clients send can't keep actors from handling it."""
SHARE_S: Final = 0.004
"""Seconds of a round for the sockets of one address; the rest of them wait for the next round."""

SMALL_RECEIVE_BYTES: Final = 4_096
"""Read at a time, unless frames turn out to be large: the smallest ones have six bytes."""
LARGE_FRAME_BYTES: Final = 512

_log = structlog.get_logger()


class EpollReader:
    """Reads for the transports that were added. `run` is its task."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._transports: dict[int, EpollTransport] = {}
        self._spent_s: dict[str, float] = {}
        """What each address has taken of this round."""

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, transport: EpollTransport, descriptor: int) -> None:
        """Reads for the transport from now on."""
        if descriptor not in self._transports:
            self._transports[descriptor] = transport
            self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Reads no more for it; one that is not read for is no error."""
        if self._transports.pop(descriptor, None) is not None and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Reads until cancelled. A transport whose reading fails is cut; the others go on."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                self._spent_s.clear()
                for descriptor, _ in self._epoll.poll(0, ROUND):
                    self._read(descriptor)
        finally:
            self._epoll.close()

    def _read(self, descriptor: int) -> None:
        transport = self._transports.get(descriptor)
        if transport is None:
            return  # it went in this round
        spent_s = self._spent_s.get(transport.remote, 0.0)
        if spent_s > SHARE_S:
            return
        began_s = perf_counter()
        with CapturedFailure() as contained:
            transport.readable()
        self._spent_s[transport.remote] = spent_s + perf_counter() - began_s
        if contained.error is not None:
            _log.error(CONNECTION_FAILED, exc_info=contained.error)
            self.remove(descriptor)
            transport.cut()


class EpollTransport(SocketTransport):
    """A socket's transport that a pump reads for."""

    __slots__ = ("_held", "_large", "_pump", "_task")

    def __init__(self, pump: EpollReader, sock: socket.socket, upgraded: Upgraded) -> None:
        super().__init__(sock, upgraded)
        self._pump = pump
        self._held: Messages = []
        self._large = False
        """The last read was of large frames: more of them can be read at once."""
        self._task: trio.lowlevel.Task | None = None

    def readable(self) -> None:
        """Something came in, or the end: passes on what can be, and keeps the rest for the task."""
        size = RECEIVE_BYTES if self._large else SMALL_RECEIVE_BYTES
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        listener = self._listener
        assert listener is not None
        if data:
            messages = self._feed(data)
            frames = len(messages) + self.overhead
            self._large = len(data) == size and frames * LARGE_FRAME_BYTES <= size
            for number, payload in enumerate(messages):
                if self.refusing:
                    break
                if payload is HELD or not listener.take(payload):
                    self._held = [HELD, *messages[number + 1 :]]
                    break
            if self.overhead:
                listener.charge_overhead()
        else:
            self._over = True
        if self._held or self._over:
            self._pump.remove(self._socket.fileno())
            if self._task is not None:
                trio.lowlevel.reschedule(self._task)
                self._task = None

    async def receive(self) -> Messages:
        if self._early or self._listener is None:
            return await super().receive()
        if not self._held and not self._over:
            self._pump.add(self, self._socket.fileno())
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abandon)
        held, self._held = self._held, []
        if not held:
            raise TransportClosed
        return held

    def _abandon(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def finish(self) -> None:
        if self._socket.fileno() >= 0:
            self._pump.remove(self._socket.fileno())
            await super().finish()
