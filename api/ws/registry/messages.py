"""What clients send on `/api/ws`, decoded and checked (PROTOCOL §7).

The envelope is decoded into a struct whose `data` and `state` stay the sender's bytes. The decoder
checks that they are JSON, but not that they are UTF-8: that is done first, or one client's bytes
would have all others' browsers hang up.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from actors.instance_service import ModerationRequest
from reileta.errors import MessageInvalid, PlayerNotFound
from reileta.ids import is_id
from reileta.rules.resource.json_values import is_deeper

T = TypeVar("T")

MISSING: Final = Raw(b"")
DATA_DEPTH: Final = 60
"""Arrays and objects within one another in what is relayed, which wraps it in three more."""
_AT: Final = re.compile(r"(?P<what>.*) - at `(?:key in )?\$(?P<path>.*)`", re.DOTALL)


class ClientMessage(Struct):
    """A message on `/api/ws`. `key`, `at` and `to` are of `instance-data` alone."""

    command: Annotated[str, Meta(description="What is asked for")]
    state: Annotated[
        Raw, Meta(description="Comes back with the answer; without it, none comes but errors")
    ] = MISSING
    subgroup: Annotated[
        str | None,
        Meta(description="The instance's id, for what happens in one; else left out, or `avr`"),
    ] = None
    data: Annotated[Raw, Meta(description="As the command says")] = MISSING
    key: Annotated[
        str | None,
        Meta(description="Of `instance-data`: its newest value is kept for those who join later"),
    ] = None
    at: Annotated[
        int | float | None,
        Meta(description="Of `instance-data` with `key`: lower than the kept value's, it is old"),
    ] = None
    to: Annotated[
        tuple[str, ...] | None,
        Meta(description="Of `instance-data`: the players who alone get it"),
    ] = None

    @property
    def wanted(self) -> bytes | None:
        """The `state` that the one answer is to carry; None: no answer but errors."""
        state = bytes(self.state)
        return None if state in (b"", b"null") else state


class _Salvage(Struct):
    """What can be told of a message that is wrong elsewhere."""

    command: Any = None
    state: Raw = MISSING
    subgroup: Any = None


class InvalidMessage(Exception):
    """A message that can't be taken. `command`, `state`, `subgroup`: as far as they can be told."""

    def __init__(self, error: MessageInvalid, salvage: _Salvage | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        found = salvage or _Salvage()
        state = bytes(found.state)
        self.state = state if state not in (b"", b"null") else None
        self.command = found.command if isinstance(found.command, str) else None
        self.subgroup = found.subgroup if isinstance(found.subgroup, str) else None


class InstanceData(Struct):
    """Which instance."""

    instance: Annotated[str, Meta(description="An id or a name, with or without `@server`")]


class TokenData(Struct):
    """A credential: give either."""

    token: Annotated[str | None, Meta(description="A user's of this server")] = None
    integrity: Annotated[str | None, Meta(description="A user's of another server")] = None


class TopicData(Struct, omit_defaults=True):
    """What to hear of."""

    event: Annotated[str, Meta(description="An event, a group of events, or `all`")]
    target: Annotated[
        str | None, Meta(description="The one object to hear of: its id, or `@me`; else of all")
    ] = None


class ModerateData(Struct):
    """What a moderator wants, of a player inside or of a user."""

    type: Annotated[str, Meta(description="kick, ban, unban, mute, unmute or warn")]
    player: Annotated[str | None, Meta(description="A player inside; or give `user`")] = None
    user: Annotated[str | None, Meta(description="An id, a username, or `id@server`")] = None
    reason: Annotated[str | None, Meta(description="In up to 500 characters")] = None
    until: Annotated[
        int | None,
        Meta(description="Of `ban` and `mute`: when it ends, milliseconds since 1970 UTC"),
    ] = None

    def measure(self) -> ModerationRequest:
        """Raises MessageInvalid unless it names one target."""
        if (self.player is None) == (self.user is None):
            raise MessageInvalid.field("data.user", "give either `player` or `user`")
        if self.player is not None and not is_id(self.player, "p"):
            raise PlayerNotFound
        return ModerationRequest(self.player or self.user or "", self.type, self.reason, self.until)


class PingData(Struct):
    """What is to come back."""

    time: Annotated[Raw, Meta(description="Comes back as `client`")] = Raw(b"null")


_message: Final = msgspec.json.Decoder(ClientMessage).decode
_salvage: Final = msgspec.json.Decoder(_Salvage).decode


def is_utf8(payload: bytes) -> bool:
    """Whether the payload may be relayed to others at all."""
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def parse(payload: bytes) -> ClientMessage:
    """The message in a payload that is UTF-8. Raises `InvalidMessage`."""
    try:
        return _message(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        try:
            salvage = _salvage(payload)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidMessage(explained(error, "")) from None
        raise InvalidMessage(explained(error, ""), salvage) from None


def is_deep(data: bytes) -> bool:
    """Whether JSON is nested deeper than `DATA_DEPTH`: many parsers, and so others' clients, fail
    on what they are relayed a few levels further on."""
    return is_deeper(data, DATA_DEPTH)


def parse_data(data: Raw, type_: type[T]) -> T:
    """A command's `data`, as that type. Raises MessageInvalid, which names the field."""
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=type_)
    except (msgspec.DecodeError, RecursionError) as error:
        raise explained(error, "data") from None


def explained(error: Exception, within: str) -> MessageInvalid:
    """The decoder's complaint, with the field that it is about."""
    if isinstance(error, RecursionError):
        return _invalid(within, "is nested too deeply")
    match = _AT.fullmatch(str(error))
    if match is None:
        text = str(error)
        required = re.search(r"missing required field `(\w+)`", text)
        if required is not None:
            return _invalid(".".join(filter(None, (within, required[1]))), "is required")
        return _invalid(within, text if within else f"must be one JSON object: {text}")
    path = re.sub(r"\[(\.\.\.|\d+)\]", "", match["path"]).strip(".")
    return _invalid(".".join(filter(None, (within, path))), match["what"])


def _invalid(field: str, what: str) -> MessageInvalid:
    said = what if what.startswith("JSON") else what[:1].lower() + what[1:]
    return MessageInvalid.field(field or "message", said)
