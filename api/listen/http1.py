"""HTTP/1.1 and HTTP/1.0 connections.

One task owns the connection. It reads a head, calls the application, writes the answer, and reads
the next head. The handler reads the body itself when it needs more. So nothing is read ahead, and
cancelling `scope` ends everything.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import trio

from api.http.answer import Answer
from api.http.bodies import ReceivedBody
from api.listen.admission import Verdict
from api.listen.byte_stream import (
    LARGE_RECEIVE_BYTES,
    RECEIVE_BYTES,
    ByteStream,
    ClientGone,
)
from api.listen.chunked import ChunkedDecoder, ChunkedError
from api.listen.exchange import (
    LAST_WORD_S,
    RETRY_AFTER_S,
    Listening,
    Peer,
    request_of,
    unfinished,
)
from api.listen.request_head import BadRequest, HeadParser, RequestHead, request_line_of
from api.listen.timeouts import PROGRESS_BYTES
from reileta.errors import MessageInvalid, Overloaded, ReiletaError
from reileta.settings import KIB, MIB

LEFT_OVER_BYTES: Final = 64 * KIB
"""If the handler did not read the whole body, a rest of at most this length is received and
dropped. If the rest is longer, the connection ends after the answer."""
COUNTED_BYTES: Final = 16 * KIB
"""Smaller answers are not counted in `Unsent`: a connection has one at a time."""
LEFT_OVER_S: Final = 0.5
LINGER_BYTES: Final = 8 * MIB
"""Bytes that a client may still send to a connection that ends, before it is reset."""
BLANK_LINES: Final = 8
"""Blank lines that are skipped before a request (RFC 9112, 2.2)."""

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS: Final = frozenset({204, 304})
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client that speaks HTTP/2."""


class Http1Connection:
    """One connection. `run` serves it until it ends or is upgraded."""

    def __init__(self, listening: Listening, stream: ByteStream, peer: Peer) -> None:
        self.scope = trio.CancelScope()
        self.buffer = bytearray()
        """Received data that was not parsed yet."""
        self._listening = listening
        self._timeouts = listening.timeouts
        self._stream = stream
        self._deadline = stream.deadline
        self._peer = peer
        self._client = peer
        """The client of the present request; between requests, the peer."""
        self._answering = False
        self._handling = False
        """The application is working on the answer."""
        self._sending = False
        self._given_up = False
        self._hung_up = False
        self._first = True
        # The body of the present request
        self._to_come = 0
        self._chunks: ChunkedDecoder | None = None
        self._body: ReceivedBody | None = None
        self._starved = False
        """The buffer holds an incomplete line, so more data is needed."""
        self._paced_bytes = 0
        self._waited_s = 0.0
        self._continue = False
        self._broken = False

    # Called by the server ----------------------------------------------------------------------

    @property
    def expires_at(self) -> float:
        """When the connection is closed for inactivity (Trio's clock, in seconds)."""
        return self._deadline.at

    def expire(self) -> None:
        """Ends it at its deadline, unless the client has done its part already.

        This process may have been paused, or have had no time: what the client did meanwhile waits
        in the system. It is left alone until the next look, and goes on before that.
        """
        if self._sending:
            waits = self._stream.is_writable()
        elif self._handling and self._hung_up:
            waits = False  # its time to answer a client that may have gone is over
        else:
            waits = self._has_request() or self._stream.is_readable()
        if not waits:
            self.scope.cancel()

    def drain(self) -> None:
        """Ends it now, or after the present answer. Set `Listening.stopping` before.

        A request that has come, but was not read yet, is answered.
        """
        if not (self._answering or self._has_request() or self._stream.is_readable()):
            self.scope.cancel()

    def give_up(self) -> None:
        """Cancels the handler, answers that the server stops, and ends the connection."""
        self._given_up = True
        self.scope.cancel()

    def _has_request(self) -> bool:
        """Whether the head of a request waits for its turn."""
        return b"\r\n\r\n" in self.buffer

    def hung_up(self, broken: bool) -> None:
        """The client has closed its side, or the connection is broken (`broken`). If the client may
        still read, the handler gets a short time to answer."""
        self._hung_up = True
        if self._answering:
            if broken:
                self.scope.cancel()
            elif self._handling:
                self._deadline.limit(self._timeouts.half_closed_s)

    # Main loop ---------------------------------------------------------------------------------

    async def run(self) -> RequestHead | None:
        """Serves requests until the connection ends, and returns None. Returns the head of a
        request for an upgrade to WebSocket, or of the preface of HTTP/2 (`version` is `2`)."""
        try:
            return await self._run()
        finally:
            self._body = None  # break the reference cycle

    async def _run(self) -> RequestHead | None:
        self._deadline.set(self._timeouts.head_s)
        try:
            while True:
                head = await self._next_head()
                if head is None:
                    return None
                if head.version == "2":
                    self._deadline.clear()
                    return head
                with self._listening.client(self._peer, head) as self._client:
                    refusal = self._client.refusal
                    if head.websocket and self._client.verdict is not Verdict.OVER_SHARE:
                        self._deadline.clear()
                        return head
                    if refusal is not None:
                        await self._refuse(refusal, head.target, upgrade=head.websocket)
                        break
                    if not await self._exchange(head):
                        break
                self._client = self._peer
                if self.buffer:
                    await trio.lowlevel.checkpoint()
                else:
                    self._deadline.set(self._timeouts.idle_s)
        except BadRequest as bad:
            await self._refuse(bad.error, bad.target)
        except ClientGone:
            return None
        await self._linger()
        return None

    async def _next_head(self) -> RequestHead | None:
        """The next request's head; None when the client has closed. Raises BadRequest."""
        buffer = self.buffer
        parser: HeadParser | None = None
        fed = blank = 0
        begun = self._first  # the time for the first head runs from the connection's beginning
        if buffer and not begun:
            self._deadline.set(self._timeouts.head_s)
            begun = True
        while True:
            if fed == 0:
                while blank < BLANK_LINES and buffer.startswith(b"\r\n"):
                    del buffer[:2]
                    blank += 1
            if len(buffer) > fed and not (fed == 0 and buffer == b"\r"):
                end = buffer.find(b"\r\n\r\n", max(0, fed - 3))
                stop = len(buffer) if end < 0 else end + 4
                if parser is None:
                    if self._may_begin_http2 and PREFACE.startswith(buffer[: len(PREFACE)]):
                        if len(buffer) >= len(PREFACE):
                            return RequestHead("PRI", b"*", b"", "2", [])
                        stop = 0
                    else:
                        parser = HeadParser()
                if parser is not None:
                    await self._listening.turns.take(self._peer.network)
                    parser.feed(bytes(buffer[fed:stop]))
                    fed = stop
                    if end >= 0:
                        line = bytes(buffer[: buffer.find(b"\r\n")])
                        del buffer[:stop]
                        return parser.head(line)
            data = await self._stream.receive()
            if not data:
                return None
            if not begun:
                self._deadline.set(self._timeouts.head_s)
                begun = True
            buffer += data

    @property
    def _may_begin_http2(self) -> bool:
        return self._first and self._listening.settings.http2

    async def _exchange(self, head: RequestHead) -> bool:
        """Answers one request. Returns whether the connection can serve another one."""
        self._deadline.clear()
        self._first = False
        self._answering = self._handling = True
        if self._hung_up:
            self._deadline.limit(self._timeouts.half_closed_s)
        if not self._listening.unsent.has_room(self._client.network):
            await self._refuse(Overloaded(retry_after_s=RETRY_AFTER_S), head.target)
            return False
        request = request_of(self._listening, self._client, head)
        body = request.body
        self._begin_body(head, body)
        answer: Answer | None = None
        try:
            with self._listening.turns.charged(self._client.network):
                answer = await self._listening.app.answer(request)
        finally:
            if answer is None and self._given_up:
                await self._refuse_unfinished(head)
        whole = body.whole or await self._left_over()
        answer = self._listening.affordable(answer, self._client, head)
        self._handling = False
        self._deadline.unlimit()
        self._deadline.clear()
        keep_alive = (
            whole
            and head.keep_alive
            and not answer.close
            and not self._broken
            and not self._listening.stopping
        )
        self._sending = True
        keep_alive = await self._send(answer, head, keep_alive=keep_alive)
        self._answering = self._sending = False
        self._body = self._chunks = None
        return keep_alive

    async def _refuse(self, error: ReiletaError, target: str, *, upgrade: bool = False) -> None:
        """Answers input that is not a valid request, or a request that is refused unseen."""
        self._deadline.clear()
        line = request_line_of(target)
        answer = self._listening.app.refuse(error, line, self._client.address, upgrade=upgrade)
        self._sending = True
        try:
            await self._send(answer, None, keep_alive=False)
        except ClientGone:
            return

    async def _refuse_unfinished(self, head: RequestHead) -> None:
        """Answers a request whose handler was cancelled because the server stops."""
        with trio.move_on_after(LAST_WORD_S, shield=True):
            await self._refuse(unfinished(), head.target)
            await self._linger()

    async def _linger(self) -> None:
        """Waits until the client has read the answer. Closing a socket with unread data resets the
        connection, and the answer would be lost."""
        discarded = len(self.buffer)
        self.buffer.clear()
        self._deadline.clear()
        with trio.move_on_after(self._timeouts.linger_s):
            await self._stream.end()
            while discarded < LINGER_BYTES and (data := await self._stream.receive()):
                discarded += len(data)
                await trio.lowlevel.checkpoint()

    # Bodies ------------------------------------------------------------------------------------

    def _begin_body(self, head: RequestHead, body: ReceivedBody) -> None:
        self._to_come = head.content_length or 0
        self._starved = False
        self._paced_bytes, self._waited_s = 0, 0.0
        self._continue = head.expects_continue
        if head.chunked:
            self._chunks = ChunkedDecoder()
        elif not self._to_come:
            body.set_complete()
            return
        self._body = body
        body.receive_with(self._receive_body)
        if self.buffer and self._chunks is None:
            self._take_body()

    async def _receive_body(self) -> None:
        """Waits for more of the body, for the handler that reads it.

        Raises MessageInvalid if the body is not valid. If the client has gone, this cancels the
        handler.
        """
        if self._starved or not self.buffer:
            data = await self._more_of_body()
            if not data:
                self.scope.cancel()
                await trio.lowlevel.checkpoint()
            self.buffer += data
        else:
            await self._listening.turns.take(self._client.network)
            await trio.lowlevel.checkpoint()
        self._take_body()

    async def _more_of_body(self) -> bytes:
        """The next data; empty when the client has gone. The client must make progress."""
        if self._continue:
            self._continue = False
            try:
                await self._stream.send(_CONTINUE)
            except ClientGone:
                return b""
        began_s = trio.current_time()
        self._deadline.set(self._timeouts.progress_s - self._waited_s)
        large = self._to_come >= LARGE_RECEIVE_BYTES
        try:
            data = await self._stream.receive(LARGE_RECEIVE_BYTES if large else RECEIVE_BYTES)
        finally:
            self._deadline.clear()
        self._waited_s += trio.current_time() - began_s
        self._paced_bytes += len(data)
        if self._paced_bytes >= PROGRESS_BYTES:
            self._paced_bytes, self._waited_s = 0, 0.0
        return data

    def _take_body(self) -> None:
        """Moves the buffered data of the body from the buffer to the body."""
        body = self._body
        assert body is not None
        if self._chunks is not None:
            try:
                for part in self._chunks.feed(self.buffer):
                    body.append(part)
            except ChunkedError as error:
                self._broken = True
                raise MessageInvalid.field("body", f"is not chunked correctly: {error}") from None
            if self._chunks.done:
                body.set_complete()
            self._starved = not self._chunks.paused and bool(self.buffer)
            return
        part = bytes(self.buffer[: self._to_come])
        del self.buffer[: self._to_come]
        self._to_come -= len(part)
        body.append(part)
        if not self._to_come:
            body.set_complete()

    async def _left_over(self) -> bool:
        """Receives and drops the unread rest of a body, if it is short. Returns whether the whole
        body has been received."""
        body = self._body
        if body is None or self._broken or self._continue:
            return False
        if self._to_come > LEFT_OVER_BYTES:
            return False
        discarded = 0
        with trio.move_on_after(LEFT_OVER_S):
            while not body.whole and discarded <= LEFT_OVER_BYTES:
                try:
                    await self._receive_body()
                except MessageInvalid:
                    return False
                discarded += len(body.take())
        return body.whole

    # Answers -----------------------------------------------------------------------------------

    async def _send(self, answer: Answer, head: RequestHead | None, *, keep_alive: bool) -> bool:
        """Writes an answer. Returns whether the connection stays open. Raises ClientGone."""
        network, unsent = self._client.network, self._listening.unsent
        status, body = answer.status, answer.body
        bodiless = status in _BODILESS or (head is not None and head.method == "HEAD")
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status]
        lines.append(b"date: %b\r\n" % date_header())
        length: int | None = None
        for name, value in answer.headers:
            if name == b"content-length":
                if status in _BODILESS:
                    continue
                length = int(value)
            lines.append(b"%b: %b\r\n" % (name, value))
        chunked = False
        if length is None and not bodiless:
            if isinstance(body, bytes):
                lines.append(b"content-length: %d\r\n" % len(body))
            elif head is not None and head.version == "1.1":
                lines.append(b"transfer-encoding: chunked\r\n")
                chunked = True
            else:
                keep_alive = False
        if not keep_alive:
            lines.append(b"connection: close\r\n\r\n")
        elif head is not None and head.version == "1.0":
            lines.append(b"connection: keep-alive\r\n\r\n")
        else:
            lines.append(b"\r\n")
        if isinstance(body, bytes):
            if not bodiless:
                lines.append(body)
            data = b"".join(lines)
            if len(data) < COUNTED_BYTES:
                await self._stream.send(data)
            else:
                # Of so many bytes `Listening.affordable` knows that they may wait.
                with unsent.holding(network, len(body)):
                    await self._stream.send(data)
            return keep_alive
        await self._stream.send(b"".join(lines))
        if bodiless:
            return keep_alive
        sent = 0
        with unsent.streaming(network):
            async with body as parts:
                async for part in parts:
                    sent += len(part)
                    if chunked and part:
                        part = b"%x\r\n%b\r\n" % (len(part), part)
                    with unsent.holding(network, len(part)):
                        await self._stream.send(part)
        if chunked:
            await self._stream.send(b"0\r\n\r\n")
        elif length is not None and sent != length:
            raise ClientGone  # the body has the wrong length: only closing tells the client
        return keep_alive


class _Date:
    """The value of the `Date` header, cached for a second."""

    def __init__(self) -> None:
        self._second = 0
        self._value = b""

    def __call__(self) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._value = formatdate(now, usegmt=True).encode()
        return self._value


date_header: Final = _Date()
