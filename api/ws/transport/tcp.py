"""Transports on non-blocking TCP sockets, and the one task that reads all of them.

Trio wakes a task for each readable socket, and registers the socket anew each time. That costs more
than reading, checking and passing on most messages. The `EpollReader` keeps the sockets in an epoll
of its own, waits for that, and then reads all readable sockets in a row. While a message has to
wait, its socket leaves the reader, and the socket's own task finishes the message. So commands keep
their order, and a client that is ahead of the server finds its TCP window closed.

Actors write to the socket at once, without waiting. The backlog keeps the rest.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from time import perf_counter
from typing import Final

import structlog
import trio

from actors.delivery.batch import Piece
from actors.delivery.pacing import CoreLoad
from actors.runtime.failures import CapturedFailure
from actors.runtime.rounds import Rounds
from api.ws.transport.backlog import MAX_VIEWS
from api.ws.transport.base import (
    HELD,
    Messages,
    ProtocolTransport,
    TransportClosed,
    TransportState,
    Upgraded,
)
from api.ws.transport.pauses import Pauses
from api.ws.transport.precise_timer import PreciseTimer
from reileta.observability.log_events import CONNECTION_FAILED

RECEIVE_BYTES: Final = 16_384
"""Bytes that are read at a time. Parsing so many of the smallest frames is still quick."""
ROUND: Final = 64
"""Sockets that are read before other tasks get a turn, so that reading can't starve the actors. The
system names ready sockets in turn, so none is passed over."""
SHARE_S: Final = 0.004
"""Seconds of a round for the sockets of one address; its other sockets wait for the next round."""

SMALL_RECEIVE_BYTES: Final = 4_096
"""Bytes that are read at a time, unless frames are large. The smallest frame has six bytes."""
LARGE_FRAME_BYTES: Final = 512

SOON_S: Final = 0.000_7
"""A round that is due so soon is waited for in a pause, and not with a timer."""
NEVER: Final = -1.0
"""No round is due at this time."""

_log = structlog.get_logger()


class SocketTransport(ProtocolTransport):
    """Writes to a non-blocking TCP socket. `EpollTransport` adds a faster way to read."""

    __slots__ = ("_socket",)

    def __init__(self, sock: socket.socket, upgraded: Upgraded) -> None:
        super().__init__(upgraded)
        # Trio's socket object would try, wait and check for cancellation on every call.
        self._socket = sock
        self._socket.setblocking(False)
        self._find_direct()

    def _find_direct(self) -> None:
        free = self.state is TransportState.OPEN and not self._backlog.size and not self._deflate
        self.direct = self._socket.send if free else None

    async def _receive_bytes(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    def _write_now(self, pieces: Sequence[Piece]) -> None:
        try:
            if len(pieces) == 1:
                batch, start, end = pieces[0]
                sent = self._socket.send(batch.view[start:end])
            else:
                sent = self._socket.sendmsg([one.view[a:b] for one, a, b in pieces[:MAX_VIEWS]])
        except BlockingIOError:
            sent = 0
        except OSError:
            self.cut()
            return
        self._metrics.bytes_out += sent
        if sent < sum(end - start for _, start, end in pieces):
            self._keep(pieces, sent)

    async def _flush(self) -> None:
        while self._backlog.size:
            await trio.lowlevel.wait_writable(self._socket)
            try:
                sent = self._socket.sendmsg(self._next_views())
            except BlockingIOError:
                continue
            self._taken(sent)
            self._progressed(sent)

    async def finish(self) -> None:
        with trio.move_on_after(self._patience_s, shield=True):
            await self._wait_flushed()
            try:
                self._socket.shutdown(socket.SHUT_WR)
                if self._protocol.close_rcvd is None:
                    # Unread bytes of the client would make the system reset the connection, and
                    # the close frame would be lost.
                    while await self._receive_bytes():
                        pass
            except OSError:
                pass
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._end()


class EpollReader:
    """Reads for the transports in it, in rounds. `run` is its task.

    Unless the core is idle, it pauses after a round, so that the next one finds more messages
    (`pauses.py`). Where other tasks have much to do, it does not: messages come while they run.
    """

    def __init__(self, rounds: Rounds | None = None, load: CoreLoad | None = None) -> None:
        self._rounds = rounds or Rounds()
        self._load = load or CoreLoad()
        self._pauses = Pauses()
        self._epoll = select.epoll()
        self._transports: dict[int, EpollTransport] = {}
        self._spent_s: dict[str, float] = {}
        """The time that each address has taken of this round."""
        self._timer: PreciseTimer | None = None
        """Made when the first round is due at a time."""
        self._timer_at: float | None = None

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, transport: EpollTransport, descriptor: int) -> None:
        """Reads for the transport from now on; nothing changes if it does already."""
        if descriptor not in self._transports:
            self._transports[descriptor] = transport
            self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Stops reading the descriptor; nothing changes if it is not read."""
        if self._transports.pop(descriptor, None) is not None and not self._epoll.closed:
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Reads until cancelled. A transport whose reading fails is cut; the others go on."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            while (pause_s := self._read_all()) is not None:
                await self._pauses.take(pause_s)

    def _read_all(self) -> float | None:
        """One round: reads what is ready. Returns the pause until the next one in seconds; None: it
        comes when something is ready, or when the timer says, which is set then."""
        began_s = perf_counter()
        now = trio.current_time()
        self._rounds.begin(now)
        ready = self._epoll.poll(0, ROUND)
        if len(ready) == 1:
            self._read(ready[0][0])
        elif ready:
            self._read_fairly(ready)
        due = self._rounds.end()
        ended = self._timer_at == NEVER
        if ended:  # each round would find it ended until it is set anew
            self._set_timer(due)
        took_s = perf_counter() - began_s
        self._load.traffic_s += took_s
        if self._load.traffic_dominates:
            if len(ready) == ROUND:
                return 0.0  # there are more
            if due is not None and (left_s := due - trio.current_time()) <= SOON_S:
                return left_s
            if len(ready) > ended and (pause_s := self._load.pause_s(took_s)):
                return pause_s
        if due != self._timer_at:
            self._set_timer(due)
        return None

    def _set_timer(self, due: float | None) -> None:
        self._timer_at = due
        if self._timer is None:
            self._timer = PreciseTimer()
            self._epoll.register(self._timer.descriptor, select.EPOLLIN)
        self._timer.set(None if due is None else due - trio.current_time())

    def _read_fairly(self, ready: Sequence[tuple[int, int]]) -> None:
        """Reads until an address has taken its share."""
        transports, spent_s = self._transports, self._spent_s
        spent_s.clear()
        since_s = perf_counter()
        for descriptor, _ in ready:
            transport = transports.get(descriptor)
            if transport is None:
                self._pass_over(descriptor)
                continue
            spent = spent_s.get(transport.remote, 0.0)
            if spent > SHARE_S:
                continue
            self._read(descriptor)
            now_s = perf_counter()
            spent_s[transport.remote] = spent + now_s - since_s
            since_s = now_s

    def close(self) -> None:
        """Stops for good; a later `remove` does nothing."""
        self._epoll.close()
        if self._timer is not None:
            self._timer.close()

    def _pass_over(self, descriptor: int) -> None:
        """The descriptor was removed in this round, or is the timer, which has ended."""
        if self._timer is not None and descriptor == self._timer.descriptor:
            self._timer_at = NEVER

    def _read(self, descriptor: int) -> None:
        transport = self._transports.get(descriptor)
        if transport is None:
            self._pass_over(descriptor)
            return
        with CapturedFailure() as contained:
            transport.readable()
        if contained.error is not None:
            _log.error(CONNECTION_FAILED, exc_info=contained.error)
            self.remove(descriptor)
            transport.cut()


class EpollTransport(SocketTransport):
    """A transport on a TCP socket that an `EpollReader` reads."""

    __slots__ = ("_held", "_large", "_reader", "_task")

    def __init__(self, reader: EpollReader, sock: socket.socket, upgraded: Upgraded) -> None:
        super().__init__(sock, upgraded)
        self._reader = reader
        self._held: Messages = []
        self._large = False
        """Whether the last frames were large: then more bytes are read at once."""
        self._task: trio.lowlevel.Task | None = None

    def readable(self) -> None:
        """Reads the socket, passes messages on, and keeps the rest for the socket's task."""
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
            self._reader.remove(self._socket.fileno())
            if self._task is not None:
                trio.lowlevel.reschedule(self._task)
                self._task = None

    async def receive(self) -> Messages:
        if self._early or self._listener is None:
            return await super().receive()
        if not self._held and not self._over:
            self._reader.add(self, self._socket.fileno())
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
            self._reader.remove(self._socket.fileno())
            await super().finish()
