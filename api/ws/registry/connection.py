"""One client's connection on `/api/ws`: from its messages to the actors and back.

`parse` keeps `data` and `state` of a message as the client's bytes. It checks that they are JSON,
but not that they are UTF-8: `take` checks that first, or the bytes of one client would make the
browsers of all others hang up. `api/ws/registry/commands.py` declares what each command does. See
`docs/protocol.md#messages`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
import trio
from msgspec import Meta, Raw, Struct

from actors.node import Node
from actors.runtime.ask import ask_timeout
from actors.runtime.errors import ActorStopped
from actors.runtime.mailbox import Ref
from actors.runtime.trace import Sampler, Span, current
from actors.session.messages import Attach, Detach, SessionMessage
from api.credentials import Auth
from api.errors import close_code_of
from api.ws.connection_log import ConnectionLog
from api.ws.declarations import Command, CommandReply, Commands
from api.ws.message_rate import FRAMES_PER_MESSAGE, MessageRate, UserRates, weight
from api.ws.registry.inputs import is_instance_ref
from api.ws.transport.base import Transport
from reileta.errors import (
    AlreadyConnected,
    CommandUnknown,
    GuestNotAllowed,
    MessageInvalid,
    NotInInstance,
    NotLoggedIn,
    ReiletaError,
    TooManyRequests,
)
from reileta.ids import At
from reileta.protocol import commands, events
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import EMPTY, answer, encode, event, failure
from reileta.protocol.input_types import Input, check
from reileta.rules.identity import FOR_EVER, Principal, ensure_not_temporary
from reileta.unicode import BOM, is_utf8

I = TypeVar("I", bound=Input)  # noqa: E741 - the input of a command

AVR: Final = "avr"
"""The subgroup of commands that are not about an instance."""
MISSING: Final = Raw(b"")
_TOO_DEEP: Final = "is nested too deeply"
_LOCATION: Final = re.compile(r"(?P<problem>.*) - at `(?:key in )?\$(?P<path>.*)`", re.DOTALL)


class ClientMessage(Struct, gc=False):
    """A message from the client. `key`, `at` and `to` belong to `instance-data` alone."""

    command: Annotated[str, Meta(description="The command's name")]
    state: Annotated[
        Raw,
        Meta(description="Any JSON; the answer carries it. Without it, only errors are answered"),
    ] = MISSING
    subgroup: Annotated[
        str | None,
        Meta(description="The instance's id. Other commands leave it out, or send `avr`"),
    ] = None
    data: Annotated[Raw, Meta(description="The command's data")] = MISSING
    key: Annotated[
        str | None,
        Meta(description="The newest value of this key is retained for players who join later"),
    ] = None
    at: Annotated[
        int | float | None,
        Meta(
            description="A value whose `at` is below that of the retained one is dropped, if both"
            " came by the same socket since it joined"
        ),
    ] = None
    to: Annotated[
        tuple[str, ...] | None,
        Meta(description="The ids of the only players who get the data"),
    ] = None

    @property
    def wanted(self) -> bytes | None:
        """The `state` that the answer carries; None: only errors are answered."""
        if self.state is MISSING:  # the common case
            return None
        state = bytes(self.state)
        return None if state == b"null" else state


class _ReadableFields(Struct):
    """The fields of an invalid message that can still be read."""

    command: Any = None
    state: Raw = MISSING
    subgroup: Any = None


class InvalidMessage(Exception):
    """A message that can't be read. `command`, `state`, `subgroup`: as far as they can."""

    def __init__(self, error: MessageInvalid, fields: _ReadableFields | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        readable = fields or _ReadableFields()
        state = bytes(readable.state)
        self.state = state if state not in (b"", b"null") else None
        self.command = readable.command if isinstance(readable.command, str) else None
        self.subgroup = readable.subgroup if isinstance(readable.subgroup, str) else None


_message: Final = msgspec.json.Decoder(ClientMessage).decode
_readable_fields: Final = msgspec.json.Decoder(_ReadableFields).decode
_fields: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_value: Final = msgspec.json.Decoder().decode


def parse(payload: bytes) -> ClientMessage:
    """The message in a payload that is UTF-8. Raises `InvalidMessage`."""
    try:
        return _message(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        # Messages hardly ever have a byte order mark: only those that fail are searched for it.
        if not payload.startswith(BOM):
            raise _invalid(payload, error) from None
    payload = payload.removeprefix(BOM)
    try:
        return _message(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _invalid(payload, error) from None


def _invalid(payload: bytes, error: Exception) -> InvalidMessage:
    """What the decoder complains of, with the fields that can still be read."""
    try:
        return InvalidMessage(_explained(error), _readable_fields(payload))
    except (msgspec.DecodeError, RecursionError):
        return InvalidMessage(_explained(error))


def parse_data(data: Raw, model: type[I], **instead: Callable[[], object]) -> I:
    """A command's `data`, checked by its model. Data that is null is empty.

    Fields whose type is `Raw` stay the client's bytes. `instead` gives the values of fields that
    are left out, or null. Raises MessageInvalid, which names the fields at fault.
    """
    value: dict[str, object] = {}
    name = ""
    try:
        for name, text in _fields(b"{}" if bytes(data) in (b"", b"null") else data).items():
            field = model.model_fields.get(name)
            if field is not None:
                value[name] = text if field.annotation is Raw else _value(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise MessageInvalid.field("data", _TOO_DEEP) from None
        if name:
            raise MessageInvalid.field(f"data.{name}", _sentence(str(error))) from None
        raise MessageInvalid.field("data", "must be an object") from None
    for name, make in instead.items():
        if value.get(name) is None:
            value[name] = make()
    return check(model, value, MessageInvalid, within="data")


def _explained(error: Exception) -> MessageInvalid:
    """The decoder's complaint, at the field that it is about."""
    if isinstance(error, RecursionError):
        return MessageInvalid.field("message", _TOO_DEEP)
    text = str(error)
    match = _LOCATION.fullmatch(text)
    if match is not None:
        path = re.sub(r"\[(\.\.\.|\d+)\]", "", match["path"]).strip(".")
        return MessageInvalid.field(path or "message", _sentence(match["problem"]))
    required = re.search(r"missing required field `(\w+)`", text)
    if required is not None:
        return MessageInvalid.field(required[1], "is required")
    return MessageInvalid.field("message", f"must be one JSON object: {text}")


def _sentence(problem: str) -> str:
    return problem if problem.startswith("JSON") else problem[:1].lower() + problem[1:]


class CommandContext:
    """One command, as its handler sees it."""

    __slots__ = ("connection", "message")

    def __init__(self, connection: RegistryConnection, message: ClientMessage) -> None:
        self.connection = connection
        self.message = message

    @property
    def node(self) -> Node:
        return self.connection.node

    @property
    def transport(self) -> Transport:
        """The socket, for actors to send to."""
        return self.connection.transport

    @property
    def state(self) -> bytes | None:
        """The `state` that the answer carries; None: only errors are answered."""
        return self.message.wanted

    @property
    def by(self) -> Principal:
        """The user who sent the command. Raises `NotLoggedIn`."""
        if self.connection.principal is None:
            raise NotLoggedIn
        return self.connection.principal

    @property
    def session(self) -> Ref[SessionMessage]:
        """The actor of the user's session. Raises `NotLoggedIn`."""
        if self.connection.principal is None or self.connection.session is None:
            raise NotLoggedIn
        return self.connection.session

    @property
    def instance(self) -> str:
        """The instance that `subgroup` names. Raises `MessageInvalid`."""
        return self.connection.local(self.ensure_subgroup())

    def ensure_subgroup(self) -> str:
        """The `subgroup`, which names an instance. Raises `MessageInvalid`."""
        subgroup = self.message.subgroup
        if subgroup is None or subgroup == AVR or not is_instance_ref(subgroup):
            raise MessageInvalid.field("subgroup", "must be the instance's id")
        return subgroup

    def checked(self, command: Command) -> Input:
        """The message's data, checked by the command's model. Raises `MessageInvalid`.

        If the command needs an instance, `subgroup` is checked first.
        """
        if command.subgroup == "instance":
            self.ensure_subgroup()
        model = command.takes
        assert model is not None
        assert issubclass(model, Input)
        if command.subgroup == "instance or data" and self.message.subgroup not in (None, AVR):
            return parse_data(self.message.data, model, instance=self.ensure_subgroup)
        return parse_data(self.message.data, model)


class RegistryConnection:
    """A socket and the user it acts for. `take` takes each message; `handle` finishes those whose
    commands have to wait."""

    __slots__ = (
        "_attaching",
        "_auth",
        "_commands",
        "_counted",
        "_limited",
        "_log",
        "_message",
        "_message_rate",
        "_metrics",
        "_rates",
        "_relays",
        "_sampler",
        "_span",
        "node",
        "principal",
        "session",
        "transport",
    )

    def __init__(
        self,
        node: Node,
        auth: Auth,
        sampler: Sampler,
        transport: Transport,
        log: ConnectionLog,
        rates: UserRates,
        commands: Commands[Any, Any],
    ) -> None:
        self.transport = transport
        self.node = node
        self.principal: Principal | None = None
        self.session: Ref[SessionMessage] | None = None
        self._attaching = False
        self._log = log
        self._auth = auth
        self._sampler = sampler
        self._commands = commands
        self._relays = commands.relays
        self._message: ClientMessage | None = None
        self._span = current.get()
        self._message_rate = MessageRate(node.settings)
        self._limited = node.settings.rate_limits == "on"
        self._metrics = node.metrics
        self._rates = rates
        self._counted: str | None = None
        """The user whose socket this counts as."""

    # Messages from the client ------------------------------------------------------------------

    def take(self, payload: bytes | None) -> bool:
        """Takes one message; False when `handle` must finish it. Never waits, never raises."""
        self._metrics.messages_in += 1
        span = self._sampler.begin()
        current.set(span)
        if self._limited and not self._message_rate.take(
            1 if payload is None else weight(len(payload))
        ):
            self._exceeded("too many messages")
            return True
        if payload is None:
            self._refuse(None, None, None, MessageInvalid.field("message", "must be text"))
            return True
        if not payload.isascii() and not is_utf8(payload):
            self.transport.close(CloseCode.INVALID_DATA, "not UTF-8")
            return True
        try:
            message = parse(payload)
        except InvalidMessage as invalid:
            if self._log.observes(span):
                self._log.received(span, invalid.command, len(payload))
            self._refuse(invalid.command, invalid.state, invalid.subgroup, invalid.error)
            return True
        if span.sampled or self._log.debug:
            self._log.received(span, message.command, len(payload))
        relay = self._relays.get(message.command)
        if relay is not None:
            relay(self, message)
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
        """Counts frames without a message at a fraction of a message each: a flood of pings or of
        empty fragments costs the server as much as a flood of messages."""
        frames, self.transport.overhead = self.transport.overhead, 0
        if not self._message_rate.take(frames / FRAMES_PER_MESSAGE):
            self._exceeded("too many frames")

    def _exceeded(self, reason: str) -> None:
        """Says once that the client sends too much (102), and closes the socket."""
        self._refuse(None, None, None, TooManyRequests())
        self.transport.close(CloseCode.POLICY_VIOLATION, reason)

    async def handle(self) -> None:
        """Carries out the message that `take` left, and answers it."""
        message, self._message = self._message, None
        assert message is not None
        span, begun = self._span, trio.current_time()
        current.set(span)  # the task that took it may have taken messages of others since
        refused: ReiletaError | None = None
        try:
            with ask_timeout():
                await self._run(message)
        except ReiletaError as error:
            refused = error
            self.refuse(message, error)
            if (
                close_code_of(type(error)) == CloseCode.CREDENTIAL_GONE
                and self.principal is not None
            ):
                self.expire()
        if self._log.observes(span):
            code = None if refused is None else refused.code
            self._log.served(span, message.command, begun, code)

    async def _run(self, message: ClientMessage) -> None:
        command = self._commands.by_name.get(message.command)
        if command is None:
            names = ", ".join(sorted(self._commands.names))
            raise CommandUnknown.field("command", f"must be one of {names}")
        if command.need == "session" and (self.principal is None or self.session is None):
            raise NotLoggedIn
        self._ensure_guest_may(command)
        if command.guests != "yes" and self.principal is not None:
            ensure_not_temporary(self.node.sessions.current(self.principal).user)
        assert command.handler is not None
        call = CommandContext(self, message)
        result = await command.handler(call, call.checked(command))
        if command.answers == "connection":
            reply = result if isinstance(result, CommandReply) else CommandReply(result, b"")
            if message.wanted is not None:
                subgroup = message.subgroup if command.need == "session" else None
                data = encode(reply.data)
                self.send(answer(message.command, message.wanted, subgroup, data))
            if reply.then:
                self.send(reply.then)

    def _ensure_guest_may(self, command: Command) -> None:
        """Raises GuestNotAllowed if the socket acts for a guest, who may not send the command."""
        if self.principal is None or not self.principal.guest or command.guests == "yes":
            return
        if command.guests == "no" or not self.node.settings.guests_own:
            raise GuestNotAllowed

    # What commands do with the connection ------------------------------------------------------

    async def authenticate(self, token: str, state: bytes | None) -> None:
        """Lets the socket act for the token's user; the session answers.

        Raises:
            CredentialInvalid: the token is not valid.
            AlreadyConnected: the socket acts for another session.
            QuotaReached: the user has as many sockets as one may have.
        """
        principal = await self._auth.authenticate_token(token)
        if self.principal is not None and self.principal.session_id != principal.session_id:
            raise AlreadyConnected
        await self._attach(principal, state)

    async def _attach(self, principal: Principal, state: bytes | None) -> None:
        if self._counted is None:
            self._message_rate.shared = self._rates.opened(principal.user.id)
            self._counted = principal.user.id
        self._attaching = True
        try:
            for attempt in (1, 2):
                session = await self.node.sessions.live(principal)
                # Set before asking: if this is cancelled, `closed` detaches anyway.
                self.session = session
                try:
                    await session.ask(Attach(self.transport, principal.token_hash, state))
                except ActorStopped:
                    if attempt == 2:
                        raise
                else:
                    break
            self.principal = principal
        finally:
            self._attaching = False
            if self.principal is None:
                self._uncount()

    def _uncount(self) -> None:
        """The socket does not count as one of a user any more."""
        if self._counted is not None:
            self._message_rate.shared = None
            self._rates.closed(self._counted)
            self._counted = None

    def local(self, address: str) -> str:
        """`id@server` without the server, if that is this server."""
        if "@" not in address[1:]:
            return address
        parsed = At.parse(address)
        return parsed.id if parsed.local_to(self.node.address) else str(parsed)

    def why_not_inside(self, instance: str | None) -> ReiletaError:
        """The error of a message to an instance in which the socket has no seat."""
        if self.principal is None:
            return NotLoggedIn()
        if instance is None or instance == AVR:
            return MessageInvalid.field("subgroup", "must be the instance's id")
        return NotInInstance()

    # Messages to the client --------------------------------------------------------------------

    def refuse(self, message: ClientMessage, error: ReiletaError) -> None:
        """Answers a message with an error."""
        self._refuse(message.command, message.wanted, message.subgroup, error)

    def _refuse(
        self, command: str | None, state: bytes | None, subgroup: str | None, error: ReiletaError
    ) -> None:
        self.send(failure(command, state, subgroup, error))

    def send(self, frame: bytes) -> None:
        """Sends a frame, after everything that waits."""
        self.transport.send(frame)
        span = current.get()
        if self._log.observes(span):
            self._log.sent(span)

    # The connection's life ---------------------------------------------------------------------

    def opened(self) -> None:
        """The socket is open; its first trace begins."""
        span = self._begin()
        if self._log.observes(span):
            self._log.opened(span)

    async def start(self, principal: Principal) -> None:
        """Begins with the credential that came with the upgrade."""
        try:
            with ask_timeout():
                await self._attach(principal, None)
        except ReiletaError as error:
            self.send(failure(commands.AUTHENTICATE, None, None, error))
            self.transport.close(
                close_code_of(type(error)) or CloseCode.TRY_AGAIN_LATER, error.message
            )

    def expire(self) -> None:
        """Closes the socket, because its credential is no longer valid."""
        self.send(event(events.UNAUTHENTICATED, None, EMPTY))
        self.transport.close(CloseCode.CREDENTIAL_GONE, "the credential is no longer valid")

    @property
    def user(self) -> str | None:
        """The id of the user for whom it acts; None before its credential."""
        return None if self.principal is None else self.principal.user.id

    @property
    def lacks_credential(self) -> bool:
        """Whether the client has not sent a valid credential. One that did may still wait for its
        session."""
        return self.principal is None and not self._attaching

    @property
    def expires_at(self) -> int:
        """When the credential expires (ms); far in the future, while there is none."""
        return FOR_EVER if self.principal is None else self.principal.expires_at

    def check_deadlines(self, now: float) -> None:
        """Does nothing: the gateway itself watches for pongs, the only deadline here."""

    def closed(self) -> None:
        """The socket has ended, which has a trace of its own. Never waits."""
        self._log.closed(self._begin(), self.transport, self.principal)
        self._uncount()
        # The session tells its instances, too, but it may be waiting for one of them just now.
        for seat in tuple(self.transport.seats.values()):
            seat.lose(self.transport)
        self.node.resources.socket_closed(self.transport)
        self.node.watches.end(self.transport)
        if self.session is not None:
            self.session.signal(Detach(self.transport))
