"""One client's connection: its commands, from the wire to the actors and back (PROTOCOL §7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from msgspec import Raw, Struct

from actors.hub.messages import Subscribe, Unsubscribe
from actors.node import Node
from actors.runtime.ask import ask_timeout
from actors.runtime.errors import ActorStopped
from actors.runtime.ref import Ref
from actors.runtime.trace import Sampler, Span, current
from actors.session.messages import Attach, Detach, Join, Leave, SessionMessage
from api.credentials import Auth
from api.errors import close_code_of
from api.ws.connection_log import ConnectionLog
from api.ws.message_rate import FRAMES_PER_MESSAGE, MessageRate, UserRates, weight
from api.ws.registry.messages import (
    DATA_DEPTH,
    ClientMessage,
    InstanceData,
    InvalidMessage,
    ModerateData,
    PingData,
    TokenData,
    TopicData,
    is_deep,
    is_utf8,
    parse,
    parse_data,
)
from api.ws.transport.base import Transport
from reileta.errors import (
    AlreadyConnected,
    CommandUnknown,
    EventUnknown,
    MessageInvalid,
    NotInInstance,
    NotLoggedIn,
    Overloaded,
    ReiletaError,
)
from reileta.ids import At
from reileta.protocol import commands, events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, answer, encode, event, failure
from reileta.rules.identity import FOR_EVER, Principal

AVR: Final = "avr"
ADDRESS_LIMIT: Final = 512
"""Characters of an `id@server`."""
_COMMANDS: Final = (
    commands.PING,
    commands.AUTHENTICATE,
    commands.SUBSCRIBE,
    commands.UNSUBSCRIBE,
    commands.INSTANCE_JOIN,
    commands.INSTANCE_LEAVE,
    commands.INSTANCE_DATA,
    commands.INSTANCE_MODERATE,
)


class PongView(Struct):
    client: Raw
    server: int


class RegistryConnection:
    """A socket and who it speaks for. `take` takes each message, `handle` what must wait."""

    __slots__ = (
        "_allowance",
        "_auth",
        "_log",
        "_message",
        "_node",
        "_rates",
        "_sampler",
        "_session",
        "_span",
        "principal",
        "wire",
    )

    def __init__(
        self,
        node: Node,
        auth: Auth,
        sampler: Sampler,
        wire: Transport,
        log: ConnectionLog,
        rates: UserRates,
    ) -> None:
        self.wire = wire
        self._log = log
        self.principal: Principal | None = None
        self._node = node
        self._auth = auth
        self._sampler = sampler
        self._session: Ref[SessionMessage] | None = None
        self._message: ClientMessage | None = None
        self._span = current.get()
        self._allowance = MessageRate(node.settings)
        self._rates = rates

    # From the wire -----------------------------------------------------------------------------

    def take(self, payload: bytes | None) -> bool:
        """Takes one message; False when `handle` must finish it. Never waits, never raises."""
        self._node.metrics.messages_in += 1
        span = self._begin()
        if not self._allowance.take(1 if payload is None else weight(len(payload))):
            self.wire.close(CloseCode.POLICY_VIOLATION, "too many messages")
            return True
        if payload is None:
            self._refuse(None, None, None, MessageInvalid.field("message", "must be text"))
            return True
        if not is_utf8(payload):
            self.wire.close(CloseCode.INVALID_DATA, "not UTF-8")
            return True
        try:
            message = parse(payload)
        except InvalidMessage as broken:
            if self._log.observes(span):
                self._log.received(span, broken.command, len(payload))
            self._refuse(broken.command, broken.state, broken.subgroup, broken.error)
            return True
        if self._log.observes(span):
            self._log.received(span, message.command, len(payload))
        if message.command == commands.INSTANCE_DATA:
            self._speak(message)
            return True
        self._message = message
        self._span = span
        return False

    def _begin(self) -> Span:
        """A new trace, which is the current one from here on."""
        span = self._sampler.begin()
        current.set(span)
        return span

    def charge_overhead(self) -> None:
        """Counts frames that were no messages, at a fraction of a message each: a flood of pings or
        of empty fragments costs the server as much as one of messages."""
        frames, self.wire.overhead = self.wire.overhead, 0
        if not self._allowance.take(frames / FRAMES_PER_MESSAGE):
            self.wire.close(CloseCode.POLICY_VIOLATION, "too many frames")

    def _speak(self, message: ClientMessage) -> None:
        """`instance-data`: straight to the instance."""
        place = message.subgroup
        seat = None if place is None else self.wire.seats.get(place)
        if seat is None:
            seat = self.wire.seats.get(self._local(place or ""))
            if seat is None:
                self._refuse_message(message, self._why_no_seat(place))
                return
        data = bytes(message.data)
        if not data:
            self._refuse_message(message, MessageInvalid.field("data", "is required"))
            return
        if is_deep(data):
            self._refuse_message(
                message, MessageInvalid.field("data", f"is nested deeper than {DATA_DEPTH} levels")
            )
            return
        try:
            seat.send_data(self.wire, data, message.key, message.at, message.to, message.wanted)
        except ActorStopped:
            self._refuse_message(message, NotInInstance())
        except Overloaded as error:
            self._refuse_message(message, error)

    def _why_no_seat(self, place: str | None) -> ReiletaError:
        if self.principal is None:
            return NotLoggedIn()
        if place is None or place == AVR:
            return MessageInvalid.field("subgroup", "must be the instance's id")
        return NotInInstance()

    async def handle(self) -> None:
        """Carries out the message that `take` left, and answers it."""
        message, self._message = self._message, None
        assert message is not None
        span, begun = self._span, trio.current_time()
        current.set(span)  # another task may have taken it, for others as well
        refused: ReiletaError | None = None
        try:
            with ask_timeout():
                await self._command(message)
        except ReiletaError as error:
            refused = error
            self._refuse_message(message, error)
            if (
                close_code_of(type(error)) is CloseCode.CREDENTIAL_GONE
                and self.principal is not None
            ):
                self.expire()
        if self._log.observes(span):
            code = None if refused is None else refused.code
            self._log.served(span, message.command, begun, code)

    # Commands ----------------------------------------------------------------------------------

    async def _command(self, message: ClientMessage) -> None:
        handler = self._handlers().get(message.command)
        if handler is None:
            raise CommandUnknown.field("command", f"is none of {', '.join(sorted(_COMMANDS))}")
        await handler(message)

    def _handlers(self) -> dict[str, Callable[[ClientMessage], Awaitable[None]]]:
        return {
            commands.PING: self._ping,
            commands.AUTHENTICATE: self._authenticate,
            commands.SUBSCRIBE: self._subscribe,
            commands.UNSUBSCRIBE: self._unsubscribe,
            commands.INSTANCE_JOIN: self._join,
            commands.INSTANCE_LEAVE: self._leave,
            commands.INSTANCE_MODERATE: self._moderate,
        }

    async def _ping(self, message: ClientMessage) -> None:
        """Without `state` the pong is an event, for it is all that the asker wants."""
        time = parse_data(message.data, PingData).time
        pong = encode(PongView(time, self._node.clock.now_ms()))
        self._send(answer(commands.PING, message.wanted, None, pong))

    async def _authenticate(self, message: ClientMessage) -> None:
        data = parse_data(message.data, TokenData)
        if (data.token is None) == (data.integrity is None):
            raise MessageInvalid.field("data.token", "give either `token` or `integrity`")
        principal = await self._auth.authenticate_token(data.token or data.integrity or "")
        if self.principal is not None and self.principal.session_id != principal.session_id:
            raise AlreadyConnected
        await self._attach(principal, message.wanted)

    def opened(self) -> None:
        """The socket is there, and its first trace begins."""
        span = self._begin()
        if self._log.observes(span):
            self._log.opened(span)

    async def greet(self, principal: Principal) -> None:
        """Begins with the credential that came with the upgrade."""
        try:
            await self._attach(principal, None)
        except ReiletaError as error:
            self._send(failure(commands.AUTHENTICATE, None, None, error))
            self.wire.close(close_code_of(type(error)) or CloseCode.TRY_AGAIN_LATER, error.message)

    async def _attach(self, principal: Principal, state: bytes | None) -> None:
        for attempt in (1, 2):
            session = await self._node.sessions.live(principal)
            # Before it is asked: should this be cancelled, `gone` detaches all the same.
            self._session = session
            try:
                await session.ask(Attach(self.wire, principal.token_hash, state))
            except ActorStopped:
                if attempt == 2:
                    raise
            else:
                break
        if self._allowance.shared is None:
            self._allowance.shared = self._rates.opened(principal.user.id)
        self.principal = principal

    async def _subscribe(self, message: ClientMessage) -> None:
        topic, names, target = self._topic(message)
        await self._node.hub.ask(Subscribe(self.wire, names, target))
        self._answer(message, encode(topic))
        self._send(event(events.SUBSCRIBED, None, encode(topic)))

    async def _unsubscribe(self, message: ClientMessage) -> None:
        topic, names, target = self._topic(message)
        await self._node.hub.ask(Unsubscribe(self.wire, names, target))
        self._answer(message, encode(topic))
        self._send(event(events.UNSUBSCRIBED, None, encode(topic)))

    def _topic(self, message: ClientMessage) -> tuple[TopicData, frozenset[str], str | None]:
        principal = self._ensure_asker()
        topic = parse_data(message.data, TopicData)
        names = events.members(topic.event)
        if names is None:
            raise EventUnknown.field("data.event", "is no event and no group of events")
        if topic.target is None:
            return topic, names, None
        target = self._local(topic.target)
        return topic, names, principal.user.id if target == "@me" else target

    async def _join(self, message: ClientMessage) -> None:
        session = self._ensure_session()
        place = self._place(message)
        await session.ask(Join(self.wire, place, message.wanted))

    async def _leave(self, message: ClientMessage) -> None:
        session = self._ensure_session()
        place = self._place(message)
        await session.ask(Leave(self.wire, place, message.wanted))

    async def _moderate(self, message: ClientMessage) -> None:
        """As over HTTP. The instance itself answers, in order with the data."""
        principal = self._ensure_asker()
        if message.subgroup in (None, "", AVR):
            raise MessageInvalid.field("subgroup", "must be the instance's id")
        data = parse_data(message.data, ModerateData)
        await self._node.instance_service.moderate(
            self._local(message.subgroup or ""),
            principal,
            data.measure(),
            sink=self.wire,
            state=message.wanted,
        )

    def _place(self, message: ClientMessage) -> str:
        """The instance that a command is about: in `data`, or else the subgroup."""
        if not bytes(message.data) and message.subgroup not in (None, AVR):
            return self._local(message.subgroup or "")
        place = parse_data(message.data, InstanceData).instance
        if not (1 <= len(place) <= ADDRESS_LIMIT and place.isprintable()):
            raise MessageInvalid.field("data.instance", "must be an instance's id or name")
        return self._local(place)

    def _local(self, text: str) -> str:
        """`id@server` without the server, if that is this one."""
        if not text:
            return text
        named = At.parse(text)
        return named.id if named.local_to(self._node.address) else text

    def _ensure_asker(self) -> Principal:
        if self.principal is None:
            raise NotLoggedIn
        return self.principal

    def _ensure_session(self) -> Ref[SessionMessage]:
        if self.principal is None or self._session is None:
            raise NotLoggedIn
        return self._session

    # To the wire -------------------------------------------------------------------------------

    def _answer(self, message: ClientMessage, data: bytes = EMPTY) -> None:
        if message.wanted is not None:
            self._send(answer(message.command, message.wanted, message.subgroup, data))

    def _refuse_message(self, message: ClientMessage, error: ReiletaError) -> None:
        self._refuse(message.command, message.wanted, message.subgroup, error)

    def _refuse(
        self, command: str | None, state: bytes | None, subgroup: str | None, error: ReiletaError
    ) -> None:
        self._send(failure(command, state, subgroup, error))

    def _send(self, frame: bytes) -> None:
        self.wire.send(frame)
        span = current.get()
        if self._log.observes(span):
            self._log.sent(span)

    # The end -----------------------------------------------------------------------------------

    def expire(self) -> None:
        """The credential is no longer valid."""
        self._send(event(events.UNAUTHENTICATED, None, EMPTY))
        self.wire.close(CloseCode.CREDENTIAL_GONE, "the credential is no longer valid")

    @property
    def expires_at(self) -> int:
        """When the credential is no longer valid (ms); far off, while there is none."""
        return FOR_EVER if self.principal is None else self.principal.expires_at

    def look(self, now: float) -> None:
        """Clients owe nothing in time here but pongs, which the gateway sees to."""

    def gone(self) -> None:
        """The socket is gone, which has a trace of its own. Never waits."""
        span = self._begin()
        if self._log.observes(span):
            self._log.closed(span)
        if self._allowance.shared is not None and self.principal is not None:
            self._allowance.shared = None
            self._rates.closed(self.principal.user.id)
        if self._session is not None:
            self._session.signal(Detach(self.wire))
