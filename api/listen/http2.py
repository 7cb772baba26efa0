"""HTTP/2 connections, on the sans-I/O library `h2`.

A connection has three kinds of tasks, in one nursery under `scope`: one reads, one writes, and one
answers each request. Flow control bounds memory: a client gets room to send when the handler has
taken its data, and the body of an answer is read from its file as the client makes room. This
module adds the limits that h2 leaves to its user. A client that sends too many frames without data
loses its connection.

WebSockets over HTTP/2 (RFC 8441), server push and the upgrade from HTTP/1.1 (`h2c`) are not
supported.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import structlog
import trio
from h2.errors import ErrorCodes

from actors.runtime.failures import capture_failure
from api.http.answer import Answer
from api.http.bodies import ReceivedBody
from api.listen.byte_stream import ByteStream, ClientGone
from api.listen.exchange import (
    LAST_WORD_S,
    RETRY_AFTER_S,
    Listening,
    Peer,
    request_of,
    unfinished,
)
from api.listen.frames import FULL_BYTES, Frame, FrameReader, FrameRefused, FrameType
from api.listen.http1 import LINGER_BYTES, PREFACE, date_header
from api.listen.request_head import (
    HEAD_LIMIT_BYTES,
    BadRequest,
    Headers,
    RequestHead,
    checked,
    request_line_of,
)
from api.listen.timeouts import PROGRESS_BYTES, ConnectionDeadline
from reileta.errors import HeadTooLarge, MessageInvalid, Overloaded
from reileta.observability.log_events import CONNECTION_FAILED
from reileta.settings import KIB

STREAMS: Final = 100
"""Concurrent requests of a connection, as announced. Many clients assume at least 100."""
STREAMS_TAKEN: Final = 200
"""Concurrent requests that are accepted. A finished request counts here a moment longer than at the
client. Further requests are refused, and the client may send them again."""
STREAMS_LIMIT: Final = 1_000
"""Number of concurrent requests at which the connection is closed."""
STREAM_WINDOW_BYTES: Final = 128 * KIB
"""Bytes of one body that a client may send before the handler has taken them."""
CONNECTION_WINDOW_BYTES: Final = 512 * KIB
"""The same for all bodies of a connection together."""
_DEFAULT_WINDOW_BYTES: Final = 65_535
_ENTRY_BYTES: Final = 32
"""Bytes that RFC 9113, 6.5.2 adds to each header's size."""
FRAMES_A_STEP: Final = 16
"""Frames, other than requests, that are processed per turn."""
TABLE_BYTES: Final = 4 * KIB
"""Limit of the table that compresses the headers of answers, even if the client allows more: the
library searches the whole table."""
SMALL_BYTES: Final = 256
"""If the window is smaller than this, and than the rest of the data, no frame is sent."""
CHUNK_BYTES: Final = 16 * KIB
ANSWER_CREDIT: Final = 4
"""Frames that a client may send for each answered request: the request itself, window updates and
settings."""
DATA_CREDIT: Final = 2
"""Frames that a client may send for each data frame it receives: most clients send two window
updates. Data frames that are smaller than `FULL_BYTES` give no credit, so that a client with tiny
windows can't earn any number of frames."""

_log = structlog.get_logger()


class Stream:
    """One request, from its head to the end of its answer."""

    __slots__ = (
        "arrived",
        "arrived_bytes",
        "body",
        "expects_continue",
        "give_up_at",
        "head",
        "held_bytes",
        "id",
        "paced_bytes",
        "peer",
        "room",
        "scope",
        "waited_s",
    )

    def __init__(self, id_: int, peer: Peer) -> None:
        self.id = id_
        self.peer = peer
        """The client of the request; before its head was checked, that of the connection."""
        self.scope = trio.CancelScope()
        self.head: RequestHead | None = None
        self.body: ReceivedBody | None = None
        self.expects_continue = False
        self.held_bytes = 0
        """Bytes of the body that were not acknowledged for flow control yet."""
        self.arrived = trio.Event()
        """Set when more of the body has arrived."""
        self.arrived_bytes = 0
        self.waited_s = 0.0
        """Seconds that the handler has waited for the next `PROGRESS_BYTES` of the body."""
        self.room = trio.Event()
        """Set when the client has made room for more of the answer."""
        self.paced_bytes = 0
        self.give_up_at = math.inf
        """When the client must have read `PROGRESS_BYTES` (Trio's clock, in seconds)."""


class Http2Connection:
    """One connection. `run` serves it to its end.

    Args:
        early: data that was already read from it.
    """

    def __init__(
        self, listening: Listening, byte_stream: ByteStream, peer: Peer, early: bytes
    ) -> None:
        self.scope = trio.CancelScope()
        self._listening = listening
        self._timeouts = listening.timeouts
        self._byte_stream = byte_stream
        self._peer = peer
        self._early = early
        self._deadline = ConnectionDeadline()
        self._frames = FrameReader()
        self._streams: dict[int, Stream] = {}
        self._dirty = trio.Event()
        self._written = trio.Event()
        self._ending = trio.Event()
        """The connection ends once the frames in h2's buffer are written."""
        self._reading = trio.CancelScope()
        self._read_over = trio.Event()
        self._leaving = False
        """The client has sent GOAWAY, and begins no more requests."""
        self._has_frame = False
        """Whether a frame was read that is not taken yet."""
        self._given_up = False
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = _settings(STREAMS)
        # Headers over the limit are refused with 431; far over it, h2 ends the connection.
        self._h2.decoder.max_header_list_size = 4 * HEAD_LIMIT_BYTES

    # Called by the server ----------------------------------------------------------------------

    @property
    def expires_at(self) -> float:
        """When the connection is closed for inactivity (Trio's clock, in seconds)."""
        return min(self._deadline.at, self._byte_stream.deadline.at)

    def hung_up(self, broken: bool) -> None:
        """The client has hung up. The reader notices it itself, except while it waits to write."""
        if broken:
            self.scope.cancel()

    def expire(self) -> None:
        """Ends the connection at its deadline, unless data of the client waits to be read or for
        its turn: this process may have been paused, or have had no time."""
        reads = trio.current_time() < self._byte_stream.deadline.at
        if not (reads and (self._has_frame or self._byte_stream.is_readable())):
            self.scope.cancel()

    def drain(self) -> None:
        """Ends the connection when the requests in progress are answered."""
        if not self._streams:
            self._end(ErrorCodes.NO_ERROR)

    def give_up(self) -> None:
        """Cancels the handlers, answers that the server stops, and ends the connection."""
        self._given_up = True
        for stream in self._streams.values():
            stream.scope.cancel()

    # Main loop ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves requests until the connection ends. Its owner closes the byte stream."""
        try:
            await self._run()
        finally:
            # h2 has reference cycles. Clients can make connections faster than the garbage
            # collector finds these.
            vars(self._h2).clear()

    async def _run(self) -> None:
        self._deadline.set(self._timeouts.head_s)
        self._h2.initiate_connection()
        # h2 would end a connection with more requests than announced, also before the client has
        # seen the announcement. `_begin` refuses only the requests.
        self._h2.local_settings = _settings(STREAMS_LIMIT)
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW_BYTES)
        async with trio.open_nursery() as tasks:
            tasks.start_soon(self._write)
            tasks.start_soon(self._read, tasks)
            self._dirty.set()
            await self._ending.wait()
            for stream in self._streams.values():
                stream.scope.cancel()
            with trio.move_on_after(self._timeouts.linger_s):
                await self._flush()
                await self._flush()  # the first flush may have waited for an earlier write
                await self._linger()
            tasks.cancel_scope.cancel()

    def _end(self, code: ErrorCodes) -> None:
        """Sends GOAWAY, and ends the connection."""
        with suppress(h2.exceptions.ProtocolError):  # it was sent already
            self._h2.close_connection(code)
        self._ending.set()

    async def _linger(self) -> None:
        """Waits until the client has read GOAWAY. Closing a socket with unread data resets the
        connection, and GOAWAY would be lost."""
        self._reading.cancel()
        await self._read_over.wait()
        await self._byte_stream.end()
        discarded = 0
        while discarded < LINGER_BYTES and (data := await self._byte_stream.receive()):
            discarded += len(data)
            await trio.lowlevel.checkpoint()

    async def _read(self, tasks: trio.Nursery) -> None:
        try:
            with self._reading:
                await self._read_all(tasks)
        finally:
            self._read_over.set()

    async def _read_all(self, tasks: trio.Nursery) -> None:
        data, self._early = self._early, b""
        if not data:
            data = await self._byte_stream.receive()
        take = self._listening.turns.take
        self._h2.receive_data(PREFACE)  # `FrameReader` has checked and removed it
        taken = 0
        while data:
            self._frames.feed(data)
            while (frame := self._next_frame()) is not None:
                taken += 1
                if frame.ends_headers or taken >= FRAMES_A_STEP:
                    self._has_frame = True
                    await take(self._peer.network)
                    self._has_frame = False
                    taken = 0
                self._take_frame(frame, tasks)
            await self._flush()
            if self._ending.is_set():
                return
            data = await self._byte_stream.receive()
        self.scope.cancel()

    def _next_frame(self) -> Frame | None:
        """The next complete frame; None if there is none, or if the connection ends."""
        if self._ending.is_set():
            return None
        try:
            return self._frames.next(trio.current_time())
        except FrameRefused as refused:
            self._end(refused.code)
            return None

    def _take_frame(self, frame: Frame, tasks: trio.Nursery) -> None:
        if frame.type == FrameType.GOAWAY:
            # h2 would not let the requests in progress be answered.
            self._leaving = True
            if not self._streams:
                self._end(ErrorCodes.NO_ERROR)
            return
        try:
            events = self._h2.receive_data(frame.data)
        except h2.exceptions.ProtocolError:
            self._ending.set()  # h2 has queued GOAWAY
            return
        for event in events:
            self._handle(event, tasks)

    def _handle(self, event: h2.events.Event, tasks: trio.Nursery) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(id_), headers=headers):
                named = [(bytes(name), bytes(value)) for name, value in headers or ()]
                self._begin(id_, named, event.stream_ended is None, tasks)
            case h2.events.DataReceived(stream_id=int(id_), data=data):
                length = event.flow_controlled_length or 0
                stream = self._streams.get(id_)
                if stream is None or stream.body is None or stream.body.whole:
                    self._h2.acknowledge_received_data(length, id_)
                else:
                    stream.held_bytes += length
                    stream.arrived_bytes += length
                    if stream.arrived_bytes >= PROGRESS_BYTES:
                        stream.arrived_bytes, stream.waited_s = 0, 0.0
                    stream.body.append(bytes(data or b""))
                    stream.arrived.set()
            case h2.events.StreamEnded(stream_id=int(id_)):
                stream = self._streams.get(id_)
                if stream is not None and stream.body is not None:
                    stream.body.set_complete()
                    stream.arrived.set()
            case h2.events.StreamReset(stream_id=int(id_)):
                stream = self._streams.get(id_)
                if stream is not None:
                    stream.scope.cancel()
            case h2.events.WindowUpdated(stream_id=int(id_)) if id_:
                stream = self._streams.get(id_)
                if stream is not None:
                    stream.room.set()
            case h2.events.WindowUpdated():
                for stream in self._streams.values():
                    stream.room.set()
            case h2.events.RemoteSettingsChanged():
                encoder = self._h2.encoder
                encoder.header_table_size = min(encoder.header_table_size, TABLE_BYTES)
                for stream in self._streams.values():
                    stream.room.set()
            case h2.events.ConnectionTerminated():
                self._ending.set()
            case _:
                pass

    def _begin(self, id_: int, headers: Headers, has_body: bool, tasks: trio.Nursery) -> None:
        """Starts to answer a request."""
        if self._listening.stopping or self._leaving or len(self._streams) >= STREAMS_TAKEN:
            self._reset(id_, ErrorCodes.REFUSED_STREAM)
            return
        self._deadline.clear()
        stream = self._streams[id_] = Stream(id_, self._peer)
        app = self._listening.app
        try:
            head = _head(headers)
            if head.content_length and not has_body:
                raise BadRequest(
                    MessageInvalid.field("Content-Length", "must be the body's length")
                )
        except BadRequest as bad:
            refuse = partial(app.refuse, bad.error, request_line_of(bad.target), self._peer.address)
            tasks.start_soon(self._serve, stream, partial(_at_once, refuse))
            return
        stream.head = head
        stream.expects_continue = head.expects_continue
        client = stream.peer = self._listening.enter(self._peer, head)
        refusal = client.refusal
        if refusal is None and not self._listening.unsent.has_room(client.network):
            refusal = Overloaded(retry_after_s=RETRY_AFTER_S)
        if refusal is not None:
            line = request_line_of(head.target)
            refuse = partial(app.refuse, refusal, line, client.address)
            tasks.start_soon(self._serve, stream, partial(_at_once, refuse))
            return
        request = request_of(self._listening, client, head)
        stream.body = request.body
        stream.body.receive_with(partial(self._receive_body, stream))
        tasks.start_soon(self._serve, stream, partial(app.answer, request))

    # Writing -----------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Writes the data that h2 has queued. Only this task writes, so that a cancelled request
        never leaves an incomplete frame."""
        while True:
            await self._dirty.wait()
            self._dirty = trio.Event()
            data = self._h2.data_to_send()
            if data:
                try:
                    await self._byte_stream.send(data)
                except ClientGone:
                    self.scope.cancel()
            written, self._written = self._written, trio.Event()
            written.set()
            await trio.lowlevel.checkpoint()

    async def _flush(self) -> None:
        """Waits until the queued data is written, and so until the client has made room."""
        written = self._written
        self._dirty.set()
        await written.wait()

    def _reset(self, id_: int, code: ErrorCodes) -> None:
        if self._ending.is_set():
            return
        try:
            self._h2.reset_stream(id_, code)
        except h2.exceptions.ProtocolError:
            return  # the stream or the connection has ended
        self._dirty.set()

    # One request -------------------------------------------------------------------------------

    async def _serve(self, stream: Stream, answer: Callable[[], Awaitable[Answer]]) -> None:
        """Answers one request. If it fails, only its stream is reset."""

        async def work() -> None:
            turns = self._listening.turns
            result: Answer | None = None
            try:
                await turns.take(stream.peer.network)
                with turns.charged(stream.peer.network):
                    result = await answer()
            finally:
                if result is None and self._given_up:
                    await self._refuse_unfinished(stream)
            # Reuse the variable, so that a refused answer is freed while the refusal waits.
            result = self._listening.affordable(result, stream.peer, stream.head)
            await self._send(stream, result)

        try:
            with stream.scope:
                failure = await capture_failure(work)
                if failure is not None:
                    if not isinstance(failure, (ClientGone, h2.exceptions.ProtocolError)):
                        _log.error(CONNECTION_FAILED, exc_info=failure)
                    self._reset(stream.id, ErrorCodes.INTERNAL_ERROR)
        finally:
            self._listening.leave(stream.peer)
            stream.body = None  # break the reference cycle, also of a request that was cancelled
        if stream.scope.cancelled_caught:
            self._reset(stream.id, ErrorCodes.CANCEL)  # does nothing if the client has reset it
        self._finish(stream)

    async def _refuse_unfinished(self, stream: Stream) -> None:
        """Answers a request whose handler was cancelled because the server stops."""
        line = "" if stream.head is None else request_line_of(stream.head.target)
        answer = self._listening.app.refuse(unfinished(), line, stream.peer.address)
        with trio.move_on_after(LAST_WORD_S, shield=True):
            await self._send(stream, answer)

    def _finish(self, stream: Stream) -> None:
        """Cleans up after a request that was answered or reset."""
        del self._streams[stream.id]
        if stream.held_bytes:
            self._acknowledge(stream)
        self._dirty.set()
        if not self._streams:
            if self._listening.stopping or self._leaving or self._peer.refusal is not None:
                self._end(ErrorCodes.NO_ERROR)
            else:
                self._deadline.set(self._timeouts.idle_s)

    async def _receive_body(self, stream: Stream) -> None:
        """Waits for more of a body, for the handler that reads it. The handler has taken all data
        so far, so the client gets room to send more."""
        stream.arrived = trio.Event()
        if stream.expects_continue:
            stream.expects_continue = False
            self._h2.send_headers(stream.id, [(b":status", b"100")])
            await self._flush()
        if stream.held_bytes:
            self._acknowledge(stream)
            await self._flush()
        began_s = trio.current_time()
        with trio.move_on_after(self._timeouts.progress_s - stream.waited_s) as timeout:
            await stream.arrived.wait()
        stream.waited_s += trio.current_time() - began_s
        if timeout.cancelled_caught:
            stream.scope.cancel()
            await trio.lowlevel.checkpoint()

    def _acknowledge(self, stream: Stream) -> None:
        """Acknowledges the taken data of the body, so that the client gets room to send more."""
        held, stream.held_bytes = stream.held_bytes, 0
        if self._ending.is_set():
            return  # nothing is sent after GOAWAY
        with suppress(h2.exceptions.ProtocolError):  # the stream has ended
            self._h2.acknowledge_received_data(held, stream.id)

    async def _send(self, stream: Stream, answer: Answer) -> None:
        """Writes an answer."""
        network, unsent = stream.peer.network, self._listening.unsent
        status, body = answer.status, answer.body
        headers = [(b":status", b"%d" % status), (b"date", date_header()), *answer.headers]
        bare = status in (204, 304)
        if bare:
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        elif isinstance(body, bytes) and all(name != b"content-length" for name, _ in headers):
            headers.append((b"content-length", b"%d" % len(body)))
        head = stream.head
        bodiless = bare or (head is not None and head.method == "HEAD")
        empty = bodiless or body == b""
        self._h2.send_headers(stream.id, headers, end_stream=empty)
        self._frames.allow(ANSWER_CREDIT)
        if empty:
            await self._flush()
        elif isinstance(body, bytes):
            await self._send_data(stream, body, last=True)
        else:
            await self._flush()
            length = next(
                (int(value) for name, value in headers if name == b"content-length"), None
            )
            sent = 0
            with unsent.streaming(network):
                async with body as parts:
                    async for part in parts:
                        sent += len(part)
                        await self._send_data(stream, part, last=False)
            if length is not None and sent != length:
                raise ClientGone  # the body has the wrong length: only a reset tells the client
            self._h2.end_stream(stream.id)
            await self._flush()
        if stream.body is not None and not stream.body.whole:
            await self._drop_body(stream, stream.body)

    async def _drop_body(self, stream: Stream, body: ReceivedBody) -> None:
        """Tells the client to stop sending a body that the answer did not need (RFC 9113, 8.1).

        First receives and drops data that is on its way, because many clients drop an answer that
        is followed by a reset at once.
        """
        dropped = 0
        with trio.move_on_after(self._timeouts.linger_s):
            while not (body.whole or stream.expects_continue) and dropped < LINGER_BYTES:
                dropped += len(body.take())
                await self._receive_body(stream)
        if not body.whole:
            self._reset(stream.id, ErrorCodes.NO_ERROR)

    async def _send_data(self, stream: Stream, data: bytes, *, last: bool) -> None:
        """Sends data as the client makes room for it. Raises ClientGone if the client is too slow:
        if it reads less than `PROGRESS_BYTES`, or the rest, in `Timeouts.progress_s`."""
        with self._listening.unsent.holding(stream.peer.network, len(data)):
            await self._send_as_there_is_room(stream, data, last=last)

    async def _send_as_there_is_room(self, stream: Stream, data: bytes, *, last: bool) -> None:
        view = memoryview(data)
        while view:
            room = min(self._h2.local_flow_control_window(stream.id), CHUNK_BYTES)
            room = min(room, self._h2.max_outbound_frame_size, len(view))
            if room < min(SMALL_BYTES, len(view)):
                await self._wait_for_room(stream)
                continue
            part, view = view[:room], view[room:]
            self._h2.send_data(stream.id, bytes(part), end_stream=last and not view)
            if room >= FULL_BYTES:
                self._frames.allow(DATA_CREDIT)
            stream.paced_bytes += room
            if stream.paced_bytes >= PROGRESS_BYTES:
                stream.paced_bytes, stream.give_up_at = 0, math.inf
            await self._flush()

    async def _wait_for_room(self, stream: Stream) -> None:
        if stream.give_up_at == math.inf:
            stream.give_up_at = trio.current_time() + self._timeouts.progress_s
        stream.room = trio.Event()
        with trio.move_on_at(stream.give_up_at) as timeout:
            await stream.room.wait()
        if timeout.cancelled_caught:
            raise ClientGone
        await self._listening.turns.take(stream.peer.network)


def _settings(streams: int) -> h2.settings.Settings:
    """The server's settings, with that number of concurrent streams."""
    return h2.settings.Settings(
        client=False,
        initial_values={
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_LIMIT_BYTES,
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
        },
    )


async def _at_once(refuse: Callable[[], Answer]) -> Answer:
    return refuse()


def _head(headers: Headers) -> RequestHead:
    """Makes the head from pseudo-headers and headers. Raises BadRequest."""
    pseudo: dict[bytes, bytes] = {}
    plain: Headers = []
    size = sum(len(name) + len(value) + _ENTRY_BYTES for name, value in headers)
    if size > HEAD_LIMIT_BYTES:
        raise BadRequest(HeadTooLarge.field("headers", f"must be at most {HEAD_LIMIT_BYTES} bytes"))
    for name, value in headers:
        if name.startswith(b":"):
            pseudo[name] = value
        else:
            plain.append((name, value))
    if b":protocol" in pseudo or b":path" not in pseudo or b":method" not in pseudo:
        raise BadRequest(MessageInvalid.field("method", "must not be CONNECT"))
    if pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise BadRequest(MessageInvalid.field("scheme", "must be http or https"))
    cookies = [value for name, value in plain if name == b"cookie"]
    if len(cookies) > 1:  # RFC 9113, 8.2.3
        plain = [pair for pair in plain if pair[0] != b"cookie"]
        plain.append((b"cookie", b"; ".join(cookies)))
    return checked(
        pseudo[b":method"], pseudo[b":path"], "2", plain, authority=pseudo.get(b":authority")
    )
