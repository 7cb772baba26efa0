"""A client of HTTP/2 for tests, on the `h2` library, that does what a client should not."""

from __future__ import annotations

import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

import h2.config
import h2.connection
import h2.events
import trio
from h2.errors import ErrorCodes

from tests.conftest import PATIENCE_S

Headers = list[tuple[bytes, bytes]]


@dataclass
class Reply:
    """What one request was answered so far."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: ErrorCodes | int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[b":status"])


def get(path: bytes = b"/x", method: bytes = b"GET", *more: tuple[bytes, bytes]) -> Headers:
    """The head of a request."""
    pseudo = [(b":method", method), (b":path", path), (b":scheme", b"http")]
    return [*pseudo, (b":authority", b"x"), *more]


class H2Client:
    """One connection. Unless `reads` is false, it makes room for what it reads."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                split_outbound_cookies=False,
            )
        )
        self.replies: dict[int, Reply] = defaultdict(Reply)
        self.goodbye: ErrorCodes | int | None = None
        self.settings = 0
        """Settings of the server's that have come."""
        self.pongs = 0
        self.reads = True
        self.over = False
        self._sending = trio.Lock()

    @classmethod
    @asynccontextmanager
    async def to(
        cls, port: int, *, tls: ssl.SSLContext | None = None, begin: bool = True
    ) -> AsyncIterator[Self]:
        """A client of this machine's port; `begin` sends preface and settings."""
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream: trio.abc.Stream = tcp
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
            secure = trio.SSLStream(tcp, tls, server_hostname="127.0.0.1", https_compatible=True)
            await secure.do_handshake()
            assert secure.selected_alpn_protocol() == "h2"
            stream = secure
        client = cls(stream)
        try:
            if begin:
                client.h2.initiate_connection()
                await client.flush()
            yield client
        finally:
            await trio.aclose_forcefully(stream)

    async def flush(self) -> None:
        """Sends what h2 has to say."""
        data = self.h2.data_to_send()
        if data:
            await self.send(data)

    async def send(self, data: bytes) -> None:
        """Sends whatever it is told to."""
        async with self._sending:
            await self.stream.send_all(data)

    async def request(self, headers: Headers, *, end: bool = True) -> int:
        """Begins a request, and returns its number."""
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, headers, end_stream=end)
        await self.flush()
        return number

    async def upload(self, number: int, data: bytes, *, end: bool = True) -> None:
        """Sends a body as the server makes room for it."""
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                await self.receive()
                continue
            part, data = data[:room], data[room:]
            self.h2.send_data(number, part, end_stream=end and not data)
            await self.flush()

    async def receive(self) -> bool:
        """Takes what comes next; False at the end."""
        try:
            with trio.fail_after(PATIENCE_S):
                data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.over = True
            return False
        for event in self.h2.receive_data(bytes(data)):
            self._take(event)
        with suppress(trio.BrokenResourceError):  # what it said before is still to be read
            await self.flush()
        return True

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(id_), headers=headers):
                self.replies[id_].headers = {
                    bytes(name): bytes(value) for name, value in headers or ()
                }
            case h2.events.DataReceived(stream_id=int(id_), data=data):
                self.replies[id_].body += data or b""
                if self.reads and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, id_)
            case h2.events.StreamEnded(stream_id=int(id_)):
                self.replies[id_].ended = True
            case h2.events.StreamReset(stream_id=int(id_), error_code=code):
                self.replies[id_].reset = code
            case h2.events.ConnectionTerminated(error_code=code):
                self.goodbye = code
            case h2.events.RemoteSettingsChanged():
                self.settings += 1
            case h2.events.PingAckReceived():
                self.pongs += 1
            case _:
                pass

    async def reply(self, number: int) -> Reply:
        """The whole answer to a request, or what came of it before the end."""
        reply = self.replies[number]
        while not reply.ended and reply.reset is None and not self.over:
            await self.receive()
        return reply

    async def ask(self, headers: Headers) -> Reply:
        """Sends a request without a body and returns its whole answer."""
        return await self.reply(await self.request(headers))

    async def end(self) -> ErrorCodes | int | None:
        """Reads until the server has closed; what it said as a goodbye."""
        while await self.receive():
            pass
        return self.goodbye


async def goodbye(stream: trio.abc.Stream) -> int | None:
    """Reads frames until the server has closed; the code of the `GOAWAY` among them."""
    data, code = bytearray(), None
    with suppress(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
        while more := await stream.receive_some():
            data += more
            while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3]):
                size = 9 + int.from_bytes(data[:3])
                if data[3] == 7:
                    code = int.from_bytes(data[13:17])
                del data[:size]
    return code


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """One frame, right or wrong."""
    return (
        len(payload).to_bytes(3)
        + bytes([kind, flags])
        + (stream & 0xFFFFFFFF).to_bytes(4)
        + payload
    )
