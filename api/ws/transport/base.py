"""Transports: WebSockets to which actors write without waiting.

`Transport` has the backlog and the closing handshake. `ProtocolTransport` adds the WebSocket
protocol. Its subclasses move the bytes: `SocketTransport` and `EpollTransport` (`tcp.py`), and
`StreamTransport` (`tls.py`). Nothing else serves a WebSocket, since nothing else
has these bounds.

States: OPEN → CLOSING (a close frame is on its way or came in; nothing more is sent) → CLOSED.
"""

from __future__ import annotations

import enum
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast
from zlib import MAX_WBITS

import structlog
import trio
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CloseCode as WireCode
from websockets.frames import Frame, Opcode
from websockets.protocol import State as ProtocolState
from websockets.server import ServerProtocol

from actors.delivery.batch import Batch, Piece
from actors.delivery.sink import InstanceHandle
from actors.runtime.failures import capture_failure
from api.listen.timeouts import PROGRESS_BYTES, PROGRESS_S
from api.ws.message_rate import FRAMES_PER_MESSAGE, MESSAGE_BYTES
from api.ws.transport.backlog import Backlog
from api.ws.transport.text_frames import FrameTracker, begins_text, text_frames
from reileta.observability.log_events import CONNECTION_FAILED
from reileta.observability.metrics import Metrics
from reileta.protocol.close_codes import CloseCode

CLOSE_TIMEOUT_S: Final = 5.0
"""How long the closing handshake may take before the connection is cut."""
SLOW_CLOSE_TIMEOUT_S: Final = 60.0
"""The same for a client that is too slow: it must first read the bytes in the system's buffers."""
EARLY_BYTES: Final = 512
"""Bytes that are parsed at a time of those that came right behind the upgrade."""
ANSWER_S: Final = 1.0
"""How long a client has to answer when the server must know whether it is there."""
READ_SHARE: Final = 0.05
"""Then the server reads what has come for this share of the time. It may not have run itself."""
LEAVING: Final = frozenset(
    {
        WireCode.NORMAL_CLOSURE,
        WireCode.GOING_AWAY,
        WireCode.NO_STATUS_RCVD,  # `close()` without arguments, in browsers
    }
)
"""The codes with which a client closes that goes on purpose."""
_GONE: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""The errors that writing raises when the client has gone."""
FRAME_BYTES: Final = MESSAGE_BYTES // FRAMES_PER_MESSAGE
"""So many bytes that are not text count as one frame."""
_NO_LIMIT: Final = 2**63
TAIL_BYTES: Final = 2048
"""The rest of a larger text is put together by the parser."""
DATA_OPCODES: Final = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})

_log = structlog.get_logger()


class _Question:
    """A ping that waits for its pong."""

    __slots__ = ("answered", "payload", "settled")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.answered = False
        self.settled = trio.Event()


class TransportState(enum.Enum):
    OPEN = enum.auto()
    CLOSING = enum.auto()
    CLOSED = enum.auto()


class HeldMessage(enum.Enum):
    """The type of `HELD`: a message that the listener has begun to take."""

    HELD = enum.auto()


ClosedBy = Literal["server", "client", "nobody"]
ABNORMAL: Final = 1006
"""The close code of a connection that ended without a close frame (RFC 6455, 7.4.1)."""

HELD: Final = HeldMessage.HELD
Messages = list[bytes | HeldMessage | None]
"""Messages that came in: the bytes of a text, or None for a message that was not text (after
`take_binary`: binary). `HELD` comes
first if the listener has taken the message already, and only its `handle` must still run."""


class MessageListener(Protocol):
    """Takes messages as they come, without waiting."""

    def take(self, payload: bytes | None) -> bool:
        """Takes a message; False when it holds it, and its `handle` must finish it."""
        ...

    def charge_overhead(self) -> None:
        """Counts frames that were not messages: as many as `Transport.overhead`."""
        ...


class TransportClosed(Exception):
    """The connection has ended, or is about to; nothing more comes in."""


class Transport(ABC):
    """One client's WebSocket. A `Sink` for actors; messages and its end for the gateway.

    Attributes:
        direct: sends to the socket itself; only where that is the same as `write`, which is while
            the transport is open, nothing waits and nothing is compressed.
        heard_at, pinged_at, closing_at: seconds of Trio's clock, for the gateway's watch.
        progress_by: the time by which the client must have read more of what waits; None: nothing
            waits.
        refusing: this side closed, and takes no more messages. Messages that came before the
            client's own close frame are still taken.
        barred: a rule refuses the client.
        overhead: the number of frames that came in without being a message (pings, pongs, parts of
            messages), for the limit of the message rate.
        scope: cancelling it ends the connection at once. The gateway serves the transport inside.
        over_limit: the server has no room for the connection, and only tells it so.
        busy: whether the server carries something out for the client, and reads nothing meanwhile.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_deflate",
        "_flushing",
        "_listener",
        "_lost_frames",
        "_metrics",
        "_nursery",
        "_owed",
        "_question",
        "barred",
        "busy",
        "close_timeout_s",
        "closing_at",
        "direct",
        "heard_at",
        "opened_at",
        "over_limit",
        "overhead",
        "pinged_at",
        "progress_by",
        "refusing",
        "remote",
        "scope",
        "seats",
        "state",
    )

    def __init__(
        self, nursery: trio.Nursery, metrics: Metrics, *, backlog_limit_bytes: int, remote: str
    ) -> None:
        self.state = TransportState.OPEN
        self.direct: Callable[[bytes], int] | None = None
        self.remote = remote
        self.scope = trio.CancelScope()
        self.seats: dict[str, InstanceHandle] = {}
        self.opened_at = self.heard_at = trio.current_time()
        self.pinged_at: float | None = None
        self.closing_at: float | None = None
        self.close_timeout_s = CLOSE_TIMEOUT_S
        self.refusing = False
        self.barred = False
        self.over_limit = False
        self.overhead = 0
        self._nursery = nursery
        self._metrics = metrics
        self._backlog = Backlog(backlog_limit_bytes)
        self.progress_by: float | None = None
        self._owed = 0
        self._flushing = False
        self._listener: MessageListener | None = None
        self._deflate = False
        self.busy = True  # until it is read for the first time
        self._lost_frames = False
        self._question: _Question | None = None

    # What actors use ---------------------------------------------------------------------------

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait for the client to read."""
        return self._backlog.size

    @property
    def lost_frames(self) -> bool:
        """Whether frames that were written may not have reached the client."""
        waiting = self.state is TransportState.OPEN and self._backlog.size > 0
        return self._lost_frames or waiting

    @property
    def left(self) -> bool:
        """Whether the client closed the socket itself, as one that goes does (1000, 1001)."""
        return False

    @property
    def vanished_at(self) -> float | None:
        """When the client was last heard of, if it went without closing the socket: what was
        written since may not have reached it, although the system has taken it. None: it closed
        the socket, and has read all that came before the server's answer to that."""
        return self.heard_at

    async def responds(self) -> bool:
        """Asks the client with a ping: whether anything is heard of it in `ANSWER_S`."""
        asked_at = trio.current_time()
        return await self.answers() or self.heard_at > asked_at

    async def answers(self) -> bool:
        """Asks the client with a ping: whether it answers with a pong in `ANSWER_S`.

        A client that the server does not read at the moment (`busy`) counts as one that answers. If
        it is asked already, this waits for the answer to that. Returns False as soon as the
        connection ends.
        """
        if self.state is not TransportState.OPEN or self.scope.cancel_called:
            return False
        question = self._question
        if question is None:
            question = self._question = _Question(os.urandom(8))
            self._ask(question.payload)
        for wait_s in (ANSWER_S, ANSWER_S * READ_SHARE):
            with trio.move_on_after(wait_s):
                await question.settled.wait()
        if not question.settled.is_set():
            self._settle(answered=self.busy)
        return question.answered

    def _ask(self, payload: bytes) -> None:
        """Sends a ping with that payload. A transport whose pings have no answer always settles."""
        self.ping()
        if self.pinged_at is None:
            self._settle(answered=True)

    def _settle(self, *, answered: bool) -> None:
        """Ends the question that is open, if there is one."""
        question, self._question = self._question, None
        if question is not None:
            question.answered = answered
            question.settled.set()

    def write(self, pieces: Sequence[Piece]) -> None:
        """Sends the pieces, or keeps them until the client reads. Too many bytes: code 4008."""
        if self.state is not TransportState.OPEN:
            self._lost_frames = True
            return
        if self._deflate:
            pieces = [batch.deflated(start, end) for batch, start, end in pieces]
        if self._backlog.size:
            self._keep(pieces, 0)
        else:
            self._write_now(pieces)

    def taken_in_part(self, pieces: Sequence[Piece], sent: int) -> None:
        """As `Sink.taken_in_part`."""
        self._metrics.bytes_out += sent
        self._keep(pieces, sent)

    def send(self, frame: bytes) -> None:
        """Sends one frame, after everything that waits."""
        self.write(((Batch((frame,)), 0, len(frame)),))

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Begins the closing handshake, after everything that waits, unless it has begun."""
        if code is CloseCode.CLIENT_BLOCKED:
            self.barred = True
        if self.state is TransportState.OPEN:
            self._lost_frames = self.lost_frames
            self._leave_open(TransportState.CLOSING)
            self.refusing = True
            self.closing_at = trio.current_time()
            self._settle(answered=False)
            self._begin_close(code, reason.encode()[:123].decode(errors="ignore"))

    def give_up(self) -> None:
        """Ends the connection of a client that does not read, however often it answers pings."""
        self._drop_backlog()
        self.close(CloseCode.TOO_SLOW, "too slow")

    def cut(self) -> None:
        """Ends the connection at once."""
        self._lost_frames = True
        self._settle(answered=False)
        self.scope.cancel()

    # What the gateway uses ---------------------------------------------------------------------

    @property
    def ended_with(self) -> tuple[int, ClosedBy]:
        """The close code, and which side sent it first. 1006: neither side has, so far."""
        return ABNORMAL, "nobody"

    def listen(self, listener: MessageListener | None) -> None:
        """Sets the listener to which the transport may hand messages by itself."""
        self._listener = listener
        self.busy = False

    def take_binary(self, limit_bytes: int) -> None:
        """Takes binary messages of up to that size from here on, instead of texts."""
        raise NotImplementedError

    @abstractmethod
    async def receive(self) -> Messages:
        """The messages that came in since, and that no listener took.

        The list may be empty. Raises `TransportClosed` at the end.
        """

    @abstractmethod
    def ping(self) -> None:
        """Asks whether the client is there; any bytes that come in then are an answer."""

    @abstractmethod
    async def finish(self) -> None:
        """Sends the backlog, ends the connection, and frees it, in bounded time."""

    # For subclasses ----------------------------------------------------------------------------

    @abstractmethod
    def _write_now(self, pieces: Sequence[Piece]) -> None:
        """Writes without waiting, and passes the rest to `_keep`."""

    @abstractmethod
    def _begin_close(self, code: int, reason: str) -> None: ...

    @abstractmethod
    async def _flush(self) -> None:
        """Writes the backlog until it is empty. Raises OSError or Trio's errors when it can't."""

    def _leave_open(self, state: TransportState) -> None:
        self.state = state
        self.direct = None

    def _find_direct(self) -> None:
        """Sets `direct`, if the transport has such a way and it would be the same as `write`."""
        self.direct = None

    def _keep(self, pieces: Sequence[Piece], sent: int) -> None:
        self.direct = None
        backlog = self._backlog
        before, conflated = backlog.size, backlog.conflated
        fits = backlog.push(pieces, sent)
        self._account(before, conflated)
        if self.progress_by is None:
            self._expect_progress()
        if not fits and self.state is TransportState.OPEN:
            self._drop_backlog()
            self.close_timeout_s = SLOW_CLOSE_TIMEOUT_S
            self.close(CloseCode.TOO_SLOW, "too slow")
        elif not fits:
            self.cut()
        if not self._flushing:
            self._flushing = True
            self._nursery.start_soon(self._flush_contained)

    def _drop_backlog(self) -> None:
        """Drops the backlog of a client that is too slow."""
        before = self._backlog.size
        self._backlog.clear()
        self._lost_frames = True
        self._account(before, self._backlog.conflated)
        self._metrics.too_slow += 1

    def _expect_progress(self) -> None:
        """Gives the client its time anew to read 64 KiB of the backlog, or all of it."""
        self._owed = min(PROGRESS_BYTES, self._backlog.size)
        self.progress_by = trio.current_time() + PROGRESS_S

    def _progressed(self, sent: int) -> None:
        """Notes that so many bytes of the backlog are on their way to the client."""
        self._owed -= sent
        if not self._backlog.size:
            self.progress_by = None
        elif self._owed <= 0:
            self._expect_progress()

    def _account(self, before: int, conflated: int) -> None:
        self._metrics.backlog_bytes += self._backlog.size - before
        self._metrics.conflated += self._backlog.conflated - conflated

    async def _flush_contained(self) -> None:
        """Writes the backlog. A failure ends this transport, and no other."""
        try:
            failure = await capture_failure(self._flush)
        finally:
            self._flushing = False
        if failure is None:
            self._find_direct()
        else:
            if not isinstance(failure, _GONE):
                _log.error(CONNECTION_FAILED, exc_info=failure)
            self.cut()

    def _next_views(self, limit_bytes: int | None = None) -> list[memoryview]:
        """The buffers to write next, conflated."""
        before, conflated = self._backlog.size, self._backlog.conflated
        self._backlog.conflate()
        self._account(before, conflated)
        return self._backlog.views(limit_bytes)

    def _taken(self, sent: int) -> None:
        self._backlog.taken(sent)
        self._metrics.backlog_bytes -= sent
        self._metrics.bytes_out += sent

    def _end(self) -> None:
        """Forgets the backlog, because the connection is gone."""
        self._lost_frames = self.lost_frames
        self._settle(answered=False)
        self._leave_open(TransportState.CLOSED)
        self._metrics.backlog_bytes -= self._backlog.size
        self._backlog = Backlog(0)

    @property
    def _patience_s(self) -> float:
        """How long `finish` may take; 0 once this connection, or every connection, was cut."""
        cut = self.scope.cancel_called or trio.current_effective_deadline() == -math.inf
        return 0 if cut else CLOSE_TIMEOUT_S

    async def _wait_flushed(self) -> None:
        while self._flushing:  # noqa: ASYNC110  # rare, and an Event for each transport costs memory
            await trio.sleep(0.01)


def free(protocol: ServerProtocol) -> None:
    """Breaks the reference cycles of a protocol that is no longer needed.

    Its parser is a generator that refers to it, and so do the tracebacks of a handshake's error.
    With these cycles, a connection's memory would wait for the garbage collector, which comes to
    old objects only after minutes.
    """
    protocol.parser.close()
    error: BaseException | None = protocol.handshake_exc
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A connection after its upgrade, as its transport gets it.

    Attributes:
        nursery: runs the task that writes the backlog.
        remote: the address that limits count: the client's, or its /64 of IPv6.
        early: the bytes that came right behind the upgrade, in the same packet.
        over_limit: the server has no room for the connection.
        take_turn: waits until the next piece of the early bytes may be parsed.
    """

    protocol: ServerProtocol
    nursery: trio.Nursery
    metrics: Metrics
    backlog_limit_bytes: int
    remote: str
    early: bytes = b""
    over_limit: bool = False
    take_turn: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint


class ProtocolTransport(Transport):
    """A transport that speaks WebSocket itself, through the sans-I/O `ServerProtocol`."""

    __slots__ = (
        "_early",
        "_fragments",
        "_limit_bytes",
        "_over",
        "_protocol",
        "_tail",
        "_tail_limit_bytes",
        "_take_turn",
        "_takes",
        "_tracker",
    )

    def __init__(self, upgraded: Upgraded) -> None:
        super().__init__(
            upgraded.nursery,
            upgraded.metrics,
            backlog_limit_bytes=upgraded.backlog_limit_bytes,
            remote=upgraded.remote,
        )
        self._protocol = upgraded.protocol
        self._fragments: list[bytes] | None = None
        self._limit_bytes = upgraded.protocol.max_message_size or _NO_LIMIT
        self._tail = b""
        """The beginning of a small text of which the rest has not come."""
        self._tail_limit_bytes = min(self._limit_bytes, TAIL_BYTES)
        self._tracker: FrameTracker | None = None
        """Follows what the parser gets; None while it has all frames as a whole."""
        self._takes = Opcode.TEXT
        self._over = False
        self._early = upgraded.early
        self._take_turn = upgraded.take_turn
        self.over_limit = upgraded.over_limit
        # All clients that compress share one copy. It needs the largest window, which not every
        # client accepts.
        self._deflate = any(
            isinstance(one, PerMessageDeflate) and one.local_max_window_bits == MAX_WBITS
            for one in upgraded.protocol.extensions
        )

    def take_binary(self, limit_bytes: int) -> None:
        """Takes binary messages of up to that size from here on, instead of texts; nothing is
        compressed."""
        self._takes, self._deflate = Opcode.BINARY, False
        self._find_direct()
        self._limit_bytes = self._tail_limit_bytes = -1
        self._protocol.max_message_size = limit_bytes

    @property
    def fragment_count(self) -> int:
        """How many fragments of an incomplete message are kept, with its type as one of them."""
        return len(self._fragments or ())

    async def receive(self) -> Messages:
        if self._over:
            raise TransportClosed
        if self._early:
            # A piece at a time, like bytes that come later.
            await self._take_turn()
            early, self._early = self._early[:EARLY_BYTES], self._early[EARLY_BYTES:]
            return self._feed(early)
        return self._feed(await self._receive_bytes())

    def ping(self) -> None:
        self.pinged_at = trio.current_time()
        self._protocol.send_ping(b"")
        self._send_protocol()

    @property
    def left(self) -> bool:
        protocol = self._protocol
        close = protocol.close_rcvd
        return close is not None and bool(protocol.close_rcvd_then_sent) and close.code in LEAVING

    @property
    def vanished_at(self) -> float | None:
        return self.heard_at if self._protocol.close_rcvd is None else None

    @property
    def ended_with(self) -> tuple[int, ClosedBy]:
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        if received is not None and (sent is None or self._protocol.close_rcvd_then_sent):
            return received.code, "client"
        return (ABNORMAL, "nobody") if sent is None else (sent.code, "server")

    def _ask(self, payload: bytes) -> None:
        if self.pinged_at is None:  # else it is being asked already, and must not get more time
            self.pinged_at = trio.current_time()
        self._protocol.send_ping(payload)
        self._send_protocol()

    @abstractmethod
    async def _receive_bytes(self) -> bytes:
        """The bytes that came in since; empty at the end of the stream."""

    def _end(self) -> None:
        super()._end()
        free(self._protocol)

    def _begin_close(self, code: int, reason: str) -> None:
        if self._protocol.state is ProtocolState.OPEN:
            self._protocol.send_close(code, reason)
            self._send_protocol()

    def _feed(self, data: bytes) -> Messages:
        if not data:
            raise TransportClosed
        self.heard_at = trio.current_time()
        self.pinged_at = None
        self._metrics.bytes_in += len(data)
        if self._tail:
            data, self._tail = self._tail + data, b""
        messages: Messages
        if self._tracker is None and self._fragments is None and self.state is TransportState.OPEN:
            texts, end = text_frames(data, self._limit_bytes)
            messages = cast(Messages, texts)
            if end < len(data):
                rest = data[end:] if end else data
                if begins_text(rest, self._tail_limit_bytes):
                    self._tail = rest
                else:
                    messages += self._parse(rest)
        else:
            messages = self._parse(data)
        return [] if self.refusing else messages

    def _parse(self, data: bytes) -> Messages:
        """The messages in bytes of which the parser makes frames."""
        tracker = self._tracker or FrameTracker()
        tracker.follow(data)
        self._tracker = None if tracker.between_frames else tracker
        self._protocol.receive_data(data)
        return self._collect()

    def _collect(self) -> Messages:
        """The messages in the bytes fed so far, put together from their fragments."""
        messages: Messages = []
        frames = self._protocol.events_received()
        for frame in frames:
            if isinstance(frame, Frame):
                if frame.opcode in DATA_OPCODES:
                    self._collect_frame(frame, messages)
                elif self._question is not None and frame.opcode is Opcode.PONG:
                    self._ponged(bytes(frame.data))
        self.overhead += len(frames) - len(messages)
        closing = self._protocol.eof_sent
        if closing:
            self._lost_frames = self.lost_frames  # without the close frame, which may wait
        self._send_protocol()
        if closing:
            # The client closed, or broke the protocol and got a close frame.
            self._over = True
            if self.state is TransportState.OPEN:
                self._leave_open(TransportState.CLOSING)
                self.closing_at = trio.current_time()
                self._settle(answered=False)
        return messages

    def _ponged(self, payload: bytes) -> None:
        if self._question is not None and self._question.payload == payload:
            self._settle(answered=True)

    def _collect_frame(self, frame: Frame, messages: Messages) -> None:
        data = bytes(frame.data)
        if frame.opcode is not Opcode.CONT:
            kind = b"data" if frame.opcode is self._takes else b""
            if frame.fin:
                messages.append(data if kind else None)
                if not kind:
                    self.overhead += len(data) // FRAME_BYTES
            else:
                self._fragments = [kind, data]
            return
        assert self._fragments is not None
        if data:  # the limit of size does not count empty fragments
            self._fragments.append(data)
        if frame.fin:
            kind, *parts = self._fragments
            self._fragments = None
            messages.append(b"".join(parts) if kind else None)
            if not kind:
                self.overhead += sum(map(len, parts)) // FRAME_BYTES

    def _send_protocol(self) -> None:
        """Sends the protocol's own frames (pongs, close frames) behind the backlog."""
        # An empty one means the end of the stream, which `finish` handles.
        frames = [data for data in self._protocol.data_to_send() if data]
        if frames:
            batch = Batch(frames)
            pieces = ((batch, 0, len(batch)),)
            if self._backlog.size:
                self._keep(pieces, 0)
            else:
                self._write_now(pieces)
