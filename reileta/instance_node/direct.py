"""Direct connections to an instance node: players who have a ticket speak and hear here.

A client opens a WebSocket at `/api/ws`, and sends `authenticate` with the ticket. From then on it
sends and gets `instance-data` of that instance, as on a socket of the server. All else goes over
the server, which says who is inside: a player who has left is thrown out here at once.

While the link to the server is down or silent, nothing is passed on: the server may have ended the
instance, or a player's seat.

Bounds: `CONNECTIONS`; of those without a ticket `WAITING`, then the oldest one ends. Of each,
`BACKLOG_BYTES` that the client has not read, then it is closed (4008); `MESSAGES_PER_S` and
`BYTES_PER_S`, more is refused (102); `FRAMES_PER_S`, then it is closed (1008); `AUTHENTICATE_S` to
show a ticket.
"""

from __future__ import annotations

import json
import math
import ssl
from collections import OrderedDict, deque
from collections.abc import Callable
from time import time
from typing import Final, Protocol
from urllib.parse import parse_qs

import msgspec
import structlog
import trio
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from reileta.errors import (
    MessageInvalid,
    NotInInstance,
    Overloaded,
    ReiletaError,
    TicketInvalid,
    TooManyRequests,
)
from reileta.instance_node.rooms import Room, Rooms, Said
from reileta.observability import log_events
from reileta.protocol import commands
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, answer, encode, failure
from reileta.protocol.node_link import DATA_BYTES, Fan
from reileta.rules.nodes.direct import NONCE_LIMIT, PROOF_PATH, SOCKET_PATH, proof
from reileta.rules.nodes.flow import Allowance
from reileta.rules.nodes.form import fault_in
from reileta.security.tickets import VALID_S, Ticket, read

CONNECTIONS: Final = 4096
WAITING: Final = 1024
"""Connections that have shown no ticket yet."""
HANDSHAKE_S: Final = 5.0
AUTHENTICATE_S: Final = 5.0
SEATED_S: Final = 3.0
"""Seconds for the link to tell of a player whose ticket is here already, or to begin."""
SEATED_LOOK_S: Final = 0.02
CLOSING_S: Final = 2.0
"""Seconds for a client to close its side."""
SEND_S: Final = 10.0
"""Seconds for a client to read something."""
PING_S: Final = 10.0
SILENT_S: Final = 25.0
BACKLOG_BYTES: Final = 1024 * 1024
MESSAGE_BYTES: Final = DATA_BYTES + 4096
MESSAGES_PER_S: Final = 200
BYTES_PER_S: Final = 1024 * 1024
FRAMES_PER_S: Final = 1000
"""Of all kinds, so that pings and empty fragments count, too."""
USED: Final = 65_536
"""Ids of tickets that are remembered; while there are more, none is accepted."""
NOT_FOUND: Final = 404

_log = structlog.get_logger()


class Gate(Protocol):
    """The node's link, as direct connections need it (`reileta.instance_node.link.NodeLink`)."""

    @property
    def rooms(self) -> Rooms: ...

    @property
    def live(self) -> bool:
        """Whether the server was heard of lately, so that what it said last still counts."""
        ...

    def stir(self) -> None:
        """Something waits to be sent to the server."""
        ...


NO_STATE: Final = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    """A client's message."""

    command: str
    state: msgspec.Raw = NO_STATE
    """Any JSON, which the answer carries."""
    subgroup: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    key: str | None = None
    at: float | None = None
    to: list[str] | None = None


class _Credential(msgspec.Struct):
    """The data of `authenticate`."""

    ticket: str


_messages: Final = msgspec.json.Decoder(_Message)
_credentials: Final = msgspec.json.Decoder(_Credential)


class DirectServer:
    """Takes direct connections for the rooms behind a link."""

    def __init__(self, gate: Gate, token_hash: bytes, *, now_s: Callable[[], float] = time) -> None:
        self._gate = gate
        self._token_hash = token_hash
        self._now_s = now_s
        self._used: OrderedDict[str, float] = OrderedDict()
        self._waiting: OrderedDict[_Connection, trio.CancelScope] = OrderedDict()
        """Those that have shown no ticket yet, the oldest first."""
        self.connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serves one connection until it ends."""
        if self.connections >= CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        self.connections += 1
        connection = _Connection(self, self._gate, stream)
        try:
            with trio.CancelScope() as scope:
                self._waiting[connection] = scope
                if len(self._waiting) > WAITING:
                    _, oldest = self._waiting.popitem(last=False)
                    oldest.cancel()
                await connection.run()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            pass  # the client is gone
        finally:
            self.connections -= 1
            self.entered(connection)
            await trio.aclose_forcefully(stream)

    def entered(self, connection: _Connection) -> None:
        """A connection has shown its ticket, or has ended."""
        self._waiting.pop(connection, None)

    def prove(self, host: str, nonce: str) -> bytes:
        """The answer to a server that looks whether this node is here."""
        node = self._gate.rooms.node
        return json.dumps({"proof": proof(self._token_hash, node, host, nonce)}).encode()

    def accept(self, text: str) -> Ticket:
        """Takes a ticket, once. Raises TicketInvalid."""
        rooms, now_s = self._gate.rooms, self._now_s()
        ticket = read(text, rooms.public_key, server=rooms.server, node=rooms.node, now_s=now_s)
        while self._used and next(iter(self._used.values())) <= now_s:
            self._used.popitem(last=False)
        if ticket.id in self._used or len(self._used) >= USED:
            raise TicketInvalid
        # Kept for as long as a ticket of any time can be valid here, so they end in this order.
        self._used[ticket.id] = max(
            now_s + VALID_S, ticket.expires_at, next(reversed(self._used.values()), 0.0)
        )
        return ticket


class _Connection:
    """One client: a `Listener` of its room."""

    def __init__(self, server: DirectServer, gate: Gate, stream: trio.abc.Stream) -> None:
        self._server = server
        self._gate = gate
        self._stream = stream
        self._protocol = ServerProtocol(max_size=MESSAGE_BYTES)
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._stirred, self._written = trio.Event(), trio.Event()
        self._over = False
        self._fragments: list[bytes] = []
        self._is_text = True
        self._early: list[object] = []
        """What came together with the head."""
        self._room: Room | None = None
        self._player = ""
        now = trio.current_time()
        self._heard_at = now
        self._authenticate_by = math.inf
        self._allowance = Allowance(MESSAGES_PER_S, BYTES_PER_S, now)
        self._frames = Allowance(FRAMES_PER_S, math.inf, now)

    # As a listener -----------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """As `Listener.send`."""
        if self._over:
            return
        if self._out_bytes + len(frame) > BACKLOG_BYTES:
            self._close(CloseCode.TOO_SLOW, "does not read")
            return
        self._queue(frame)

    def end(self, reason: str) -> None:
        """As `Listener.end`."""
        self._room = None
        self._close(CloseCode.GOING_AWAY, reason)

    # Running -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves the client until it is gone."""
        with trio.move_on_after(HANDSHAKE_S):
            if not await self._upgrade():
                return
            self._authenticate_by = trio.current_time() + AUTHENTICATE_S
        if self._protocol.state is not State.OPEN:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._watch, nursery.cancel_scope)
                await self._read()
                self._over = True
                self._stirred.set()
                with trio.move_on_after(CLOSING_S):
                    await self._written.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._over = True
            room, self._room = self._room, None
            if room is not None:
                room.left(self._player, self)
                self._gate.stir()

    async def _upgrade(self) -> bool:
        """Whether the client has opened a WebSocket. Else it has got its answer."""
        while True:
            events = await self._events()
            for number, event in enumerate(events, 1):
                if not isinstance(event, Request):
                    continue
                self._early = events[number:]
                path, _, query = event.path.partition("?")
                if path.endswith(PROOF_PATH):
                    nonce = parse_qs(query).get("nonce", [""])[0][:NONCE_LIMIT]
                    host = [*event.headers.get_all("Host"), ""][0]
                    response = self._protocol.reject(200, self._server.prove(host, nonce).decode())
                    response.headers["Content-Type"] = "application/json"
                elif path.endswith(SOCKET_PATH):
                    response = self._protocol.accept(event)
                else:
                    response = self._protocol.reject(NOT_FOUND, "nothing is here\n")
                self._protocol.send_response(response)
                for data in self._protocol.data_to_send():
                    if data:
                        await self._stream.send_all(data)
                return self._protocol.state is State.OPEN
            if self._protocol.handshake_exc is not None:
                return False

    async def _events(self) -> list[object]:
        early, self._early = self._early, []
        if early:
            return early
        data = await self._stream.receive_some()
        self._heard_at = trio.current_time()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        events: list[object] = list(self._protocol.events_received())
        if not data and not events:
            raise trio.BrokenResourceError
        return events

    async def _read(self) -> None:
        while True:
            for event in await self._events():
                if isinstance(event, Frame) and not self._over:
                    await self._take_frame(event)
            self._flush_protocol()
            if self._out_bytes > BACKLOG_BYTES:
                self._close(CloseCode.TOO_SLOW, "does not read")
            ended = self._protocol.close_rcvd is not None or self._protocol.state is State.CLOSED
            if ended or self._protocol.parser_exc is not None:
                return

    async def _take_frame(self, frame: Frame) -> None:
        if self._frames.take(0, trio.current_time()) > 0:
            self.send(failure(None, None, None, TooManyRequests()))
            self._close(CloseCode.POLICY_VIOLATION, "too many frames")
            return
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT, Opcode.BINARY):
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if frame.data:
            self._fragments.append(bytes(frame.data))
        if frame.fin:
            payload, self._fragments = b"".join(self._fragments), []
            await self._take(payload)

    async def _take(self, payload: bytes) -> None:
        if not self._is_text:
            error = MessageInvalid.field("message", "must be text")
            self.send(failure(None, None, None, error))
            return
        try:
            payload.decode()
        except UnicodeDecodeError:
            self._close(CloseCode.INVALID_DATA, "not UTF-8")
            return
        try:
            message = _messages.decode(payload)
            encode((message.command, message.subgroup))  # no lone surrogates
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self._close(CloseCode.BAD_FORM, "sends what is not a message")
            return
        state = None if message.state == NO_STATE else bytes(message.state)
        wait_s = self._allowance.take(len(payload), trio.current_time())
        try:
            if wait_s > 0:
                raise TooManyRequests(wait_s)
            if message.command == commands.AUTHENTICATE and self._room is None:
                await self._authenticate(message, state)
            elif message.command == commands.PING:
                self.send(answer(commands.PING, state, None))
            elif message.command == commands.INSTANCE_DATA:
                self._say(message, state)
            else:
                raise MessageInvalid.field("command", "must be instance-data")
        except ReiletaError as error:
            self.send(failure(message.command, state, message.subgroup, error))
            if isinstance(error, TicketInvalid):
                self._close(CloseCode.CREDENTIAL_GONE, "the ticket is not valid")

    async def _authenticate(self, message: _Message, state: bytes | None) -> None:
        try:
            credential = _credentials.decode(message.data)
        except msgspec.MsgspecError:
            raise MessageInvalid.field("data.ticket", "must be a text") from None
        # The link may be a moment behind the client, or have been opened a moment ago.
        ticket: Ticket | None = None
        with trio.move_on_after(SEATED_S):
            while not self._gate.live:  # noqa: ASYNC110  # rarely needed
                await trio.sleep(SEATED_LOOK_S)
            ticket = self._server.accept(credential.ticket)
            while not self._seated(ticket):  # noqa: ASYNC110
                await trio.sleep(SEATED_LOOK_S)
        if ticket is None or not self._gate.live:
            raise Overloaded
        if not self._seated(ticket):
            raise TicketInvalid
        if self._over:
            return
        self._authenticate_by = math.inf
        self._server.entered(self)
        self._player = ticket.player
        place = encode({"instance": ticket.instance, "player": ticket.player})
        self.send(answer(commands.AUTHENTICATE, state, ticket.instance, place))
        self._room = self._gate.rooms.rooms[ticket.instance]
        self._room.connect(ticket.player, self)
        self._gate.stir()
        _log.info(log_events.DIRECT_CONNECTED, instance=ticket.instance, player=ticket.player)

    def _seated(self, ticket: Ticket) -> bool:
        """Whether the ticket's player is inside. Raises TicketInvalid if the ticket is of an
        earlier epoch of the instance: it may have been used."""
        room = self._gate.rooms.rooms.get(ticket.instance)
        if room is None or room.epoch < ticket.epoch:
            return False  # the server has begun anew, and the node is about to hear of it
        if room.epoch > ticket.epoch:
            raise TicketInvalid
        seat = room.players.get(ticket.player)
        return seat is not None and seat.user == ticket.user

    def _say(self, message: _Message, state: bytes | None) -> None:
        room = self._room
        if room is None or message.subgroup not in (None, room.id):
            raise NotInInstance
        if not self._gate.live:
            raise Overloaded
        data = bytes(message.data)
        fan = Fan(
            room.id, room.epoch, 0, "data", self._player, data, message.key, message.at, message.to
        )
        fault = fault_in(fan)
        if fault is not None:
            raise MessageInvalid.field("data", fault)

        def answered(error: ReiletaError | None, dropped: bool) -> None:
            if state is None and error is None:
                return
            told = encode({"dropped": True}) if dropped else EMPTY
            if error is not None:
                self.send(failure(commands.INSTANCE_DATA, state, room.id, error))
            else:
                self.send(answer(commands.INSTANCE_DATA, state, room.id, told))

        room.say_directly(
            Said(self._player, data, message.key, message.at, message.to, answered=answered)
        )
        self._gate.stir()

    # Out ---------------------------------------------------------------------------------------

    def _queue(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        self._stirred.set()

    def _flush_protocol(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._over:
                self._queue(data)

    def _close(self, code: CloseCode, reason: str) -> None:
        if not self._over and self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason[:100])
            self._flush_protocol()
        self._over = True
        self._stirred.set()

    async def _write(self, scope: trio.CancelScope) -> None:
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            while self._out:
                data = b"".join(self._out)
                self._out.clear()
                with trio.move_on_after(SEND_S) as sending:
                    await self._stream.send_all(data)
                self._out_bytes -= len(data)
                if sending.cancelled_caught:
                    scope.cancel()
                    return
            if self._over:
                self._written.set()
                await trio.sleep(CLOSING_S)  # the client closes, too
                scope.cancel()
                return

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Asks whether the client is there."""
        pinged_at = trio.current_time()
        while True:
            await trio.sleep(1)
            now = trio.current_time()
            if now > self._authenticate_by:
                self._close(CloseCode.NO_CREDENTIAL, "no ticket")
            elif now > self._heard_at + SILENT_S:
                scope.cancel()
            elif now >= pinged_at + PING_S and self._protocol.state is State.OPEN:
                pinged_at = now
                self._protocol.send_ping(b"")
                self._flush_protocol()
