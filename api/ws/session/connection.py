"""One client's connection on the session API's WebSocket.

The client acknowledges each event within the time that `hello` names, or the server closes the
socket (1008). The server acknowledges each event of the client exactly once, in any order. If it
refuses one, an event of status `error` that names it comes right before the Ack. See
`docs/sessions.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from actors.delivery.batch import Batch, Piece
from actors.delivery.sink import InstanceHandle
from actors.node import Node
from actors.resource.messages import Subscriber
from actors.runtime.ask import ask_timeout
from actors.runtime.errors import ActorStopped
from actors.runtime.mailbox import Ref
from actors.runtime.trace import Sampler, Span, current
from actors.session.messages import Detach, OpenSocket, PatchState, SessionMessage
from api.errors import close_code_of
from api.ws.connection_log import ConnectionLog
from api.ws.message_rate import FRAMES_PER_MESSAGE, MessageRate, UserRates, weight
from api.ws.transport.base import Transport, TransportState
from reileta.errors import Overloaded, QuotaReached, ReiletaError, TooManyRequests
from reileta.protocol import session_frames
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import error_fields
from reileta.protocol.session_frames import (
    ClientAck,
    ClientEvent,
    ClientFrame,
    ClientWatch,
    MessageRefused,
    ack_frame,
    event_frame,
    new_event_id,
    parse,
    refusal_frame,
)
from reileta.rules.identity import Principal
from reileta.rules.resource.resource import ResourceKey

UNANSWERED: Final = 1024
"""How many events of a client may wait for their answer; one more closes the socket."""


class SessionConnection:
    """One socket: a `SessionSink` for the actor, and a `ClientConnection` for the gateway."""

    def __init__(
        self,
        node: Node,
        sampler: Sampler,
        transport: Transport,
        log: ConnectionLog,
        principal: Principal,
        rates: UserRates,
        replaced: SessionConnection | None = None,
    ) -> None:
        self.transport = transport
        self.seats: dict[str, InstanceHandle] = {}
        self._node = node
        self._sampler = sampler
        self._log = log
        self._session: Ref[SessionMessage] | None = None
        self._message_rate = MessageRate(node.settings)
        self._rates = rates
        self._user = principal.user.id
        self._over: QuotaReached | None = None
        self._replaced = replaced
        """The socket of the same token whose place it takes; None once the session knows."""
        self._principal = principal
        self._watch: ClientWatch | None = None
        """The message that `handle` is to finish."""
        self._span = current.get()
        self._owed: dict[str, float] = {}
        """Events without an Ack, and the time by which the client must send it."""
        self._unanswered: set[str] = set()
        """The client's events without an Ack, in lower case: UUIDs ignore case (RFC 9562, 4)."""
        self._out: list[bytes] = []

    # For the gateway ---------------------------------------------------------------------------

    @property
    def user(self) -> str:
        """The id of the user for whom it acts."""
        return self._user

    @property
    def lacks_credential(self) -> bool:
        """False: the upgrade is refused without a valid credential."""
        return False

    @property
    def expires_at(self) -> int:
        """Far in the future: the session itself closes the socket when its token expires."""
        return 1 << 62

    def opened(self) -> None:
        """The socket is open; its first trace begins."""
        # `start` closes a socket over the user's limit: many upgrades may have come at once.
        try:
            self._message_rate.shared = self._rates.opened(self._user)
        except QuotaReached as error:
            self._over = error
        span = self._begin()
        if self._log.observes(span):
            self._log.opened(span)

    async def start(self, principal: Principal) -> None:
        """Gives the socket to the session, which sends `hello`."""
        try:
            if self._over is not None:
                raise self._over
            for attempt in (1, 2):
                session = self._session = await self._node.sessions.live(principal)
                if self._replaced is not None:
                    session.signal(Detach(self._replaced))
                try:
                    await session.ask(
                        OpenSocket(self, principal.token_hash, principal.token_expires)
                    )
                except ActorStopped:
                    if attempt == 2:
                        raise
                else:
                    break
            self._replaced = None
        except ReiletaError as error:
            self.close(close_code_of(type(error)) or CloseCode.TRY_AGAIN_LATER, error.message)

    def take(self, payload: bytes | None) -> bool:
        """Takes one message; False when `handle` must finish it. Never waits, never raises."""
        self._node.metrics.messages_in += 1
        span = self._begin()
        try:
            # Each further KiB counts before the message is parsed, whatever kind it is.
            if not self._message_rate.take(weight(len(payload or b"")) - 1):
                raise MessageRefused(CloseCode.POLICY_VIOLATION, "too many messages")
            frame = parse(payload)
            if self._log.observes(span):
                kind = _kind(frame)
                self._log.received(span, kind, len(payload or b""))
            if isinstance(frame, ClientAck):
                # Acks don't count: the session's other sockets decide how many there are.
                self._acknowledged(frame)
            elif not self._message_rate.take():
                raise MessageRefused(CloseCode.POLICY_VIOLATION, "too many messages")
            elif isinstance(frame, ClientEvent):
                self._change(frame)
            else:
                self._expect_answer(frame.id)
                self._watch, self._span = frame, span
                return False
        except MessageRefused as refused:
            limited = refused.code is CloseCode.POLICY_VIOLATION
            self.close(refused.code, refused.reason, TooManyRequests() if limited else None)
        return True

    async def handle(self) -> None:
        """Begins or ends the watch that `take` left."""
        frame, self._watch = self._watch, None
        assert frame is not None
        current.set(self._span)
        resources = self._node.resources
        try:
            kind = self._node.store.resources.types.of(frame.type)
            name = ResourceKey(kind.name, frame.number)
            if frame.watches:
                who = self._node.sessions.current(self._principal).as_claimant()
                with ask_timeout():
                    await resources.watch(
                        name, who, Subscriber(self, session_sink=self, event_id=frame.id)
                    )
            else:
                resources.unwatch(name, self)
                self.ack(frame.id)
                self.flush()
        except ReiletaError as error:
            if frame.id.lower() in self._unanswered:
                self._refuse_now(frame.id, error)

    def charge_overhead(self) -> None:
        """Counts frames without a message at a fraction of a message each."""
        frames, self.transport.overhead = self.transport.overhead, 0
        if not self._message_rate.take(frames / FRAMES_PER_MESSAGE):
            self.close(CloseCode.POLICY_VIOLATION, "too many frames", TooManyRequests())

    def check_deadlines(self, now: float) -> None:
        """Closes the socket of a client that owes an Ack for too long; `now` in Trio's seconds."""
        if self._owed and next(iter(self._owed.values())) <= now:
            self.close(CloseCode.POLICY_VIOLATION, "an event was not acknowledged in time")

    def expire(self) -> None:
        """Closes the socket, because its credential is no longer valid."""
        self.close(CloseCode.CREDENTIAL_GONE, "the credential is no longer valid")

    def displace(self) -> None:
        """Ends the connection of a client that does not answer. One that is only late may still
        read why."""
        if self.transport.state is TransportState.OPEN:
            self.close(CloseCode.REPLACED, "a newer socket of the token took the place of this one")
            self.transport.cut()
        self._uncount()

    def closed(self) -> None:
        """The socket has ended. Never waits."""
        self._log.closed(self._begin(), self.transport, self._principal)
        self._uncount()
        self._node.resources.socket_closed(self)
        if self._session is not None:
            self._session.signal(Detach(self))

    def _uncount(self) -> None:
        """The socket does not count as one of its user any more."""
        if self._message_rate.shared is not None:
            self._message_rate.shared = None
            self._rates.closed(self._user)

    # Messages from the client ------------------------------------------------------------------

    def _acknowledged(self, ack: ClientAck) -> None:
        if self._owed.pop(ack.id.lower(), None) is None:
            raise MessageRefused(
                CloseCode.FIELD_VALUE, "id must be that of an event that waits for its Ack"
            )

    def _expect_answer(self, event_id: str) -> None:
        """Notes an event that is to be answered."""
        if event_id.lower() in self._unanswered:
            raise MessageRefused(
                CloseCode.FIELD_VALUE, "id must not be that of an event that waits for its answer"
            )
        if len(self._unanswered) >= UNANSWERED:
            raise MessageRefused(
                CloseCode.POLICY_VIOLATION, "too many events wait for their answer"
            )
        self._unanswered.add(event_id.lower())

    def _change(self, event: ClientEvent) -> None:
        self._expect_answer(event.id)
        if self._session is None:
            self._refuse_now(event.id, Overloaded())
            return
        try:
            self._session.tell(PatchState(self, event.id, event.patch))
        except Overloaded as error:
            self._refuse_now(event.id, error)

    def _refuse_now(self, event_id: str, error: ReiletaError) -> None:
        self.refuse(event_id, error)
        self.flush()

    def _begin(self) -> Span:
        span = self._sampler.begin()
        current.set(span)
        return span

    # For the session's actor -------------------------------------------------------------------

    def send_event(self, event_id: str, frame: bytes) -> None:
        """Sends an Event, which the client is to acknowledge in time."""
        self._owed[event_id] = trio.current_time() + self._node.settings.ack_timeout_ms / 1000
        self._out.append(frame)

    def ack(self, event_id: str) -> None:
        """Acknowledges the client's event."""
        self._unanswered.discard(event_id.lower())
        self._out.append(ack_frame(event_id, self._node.clock.now_ms()))

    def refuse(self, event_id: str, error: ReiletaError) -> None:
        """Tells the client why its event was refused, and acknowledges it."""
        id_ = new_event_id()
        self.send_event(id_, refusal_frame(id_, event_id, self._node.clock.now_ms(), error))
        self.ack(event_id)

    def flush(self) -> None:
        """Writes all events and Acks of this round at once."""
        if self._out:
            batch = Batch(self._out)
            self._out = []
            self.transport.write(((batch, 0, len(batch)),))

    # As every sink -----------------------------------------------------------------------------

    @property
    def waiting_bytes(self) -> int:
        return self.transport.waiting_bytes

    @property
    def lost_frames(self) -> bool:
        return self.transport.lost_frames

    @property
    def left(self) -> bool:
        return self.transport.left

    @property
    def barred(self) -> bool:
        return self.transport.barred

    @property
    def vanished_at(self) -> float | None:
        return self.transport.vanished_at

    async def responds(self) -> bool:
        return await self.transport.responds()

    @property
    def direct(self) -> Callable[[bytes], int] | None:
        return self.transport.direct

    def write(self, pieces: Sequence[Piece]) -> None:
        self.transport.write(pieces)

    def taken_in_part(self, pieces: Sequence[Piece], sent: int) -> None:
        self.transport.taken_in_part(pieces, sent)

    def send(self, frame: bytes) -> None:
        self.transport.send(frame)

    def close(self, code: CloseCode, reason: str = "", error: ReiletaError | None = None) -> None:
        """Sends the reason in a last event, which needs no Ack, and closes the socket.

        Its status is not `fatal`, which no side may send. `error`: the limit that was reached.
        """
        self.flush()
        payload: dict[str, Any] = {"kind": session_frames.CLOSING, "code": code}
        if error is not None:
            payload["error"] = error_fields(error)
        now = self._node.clock.now_ms()
        self.transport.send(
            event_frame(new_event_id(), now, payload, status="error", reason=reason)
        )
        self.transport.close(code, reason)


def _kind(frame: ClientFrame) -> str:
    """The kind of a message, as the log names it."""
    match frame:
        case ClientAck():
            return session_frames.ACK
        case ClientEvent():
            return session_frames.STATE
        case ClientWatch(watches=watches):
            return session_frames.WATCH if watches else session_frames.UNWATCH
