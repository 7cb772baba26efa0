"""Messages on `/api/ws`: decoding the client's, describing the server's.

The decoder keeps `data` and `state` as the client's bytes. It checks that they are JSON, but not
that they are UTF-8: the connection checks that first, or the bytes of one client would make the
browsers of all others hang up. See `docs/protocol.md#messages`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from api.envelope import ErrorView
from reileta.errors import MessageInvalid
from reileta.protocol.input_types import Input, check
from reileta.rules.resource.json_values import is_deeper

I = TypeVar("I", bound=Input)  # noqa: E741 - the input of a command

MISSING: Final = Raw(b"")
DATA_DEPTH: Final = 60
"""Arrays and objects within one another in data that is relayed; its event adds three more."""
_TOO_DEEP: Final = "is nested too deeply"
_LOCATION: Final = re.compile(r"(?P<problem>.*) - at `(?:key in )?\$(?P<path>.*)`", re.DOTALL)


class ClientMessage(Struct):
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
        Meta(description="A value whose `at` is below that of the retained one is dropped"),
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


class ServerMessage(Struct):
    """A message from the server: an answer, which has the `state` of its request, or an event.

    It has either `data` or `error`. An error has the fields of its request that could be read.
    """

    state: Annotated[Any, Meta(description="The request's, unchanged")] = UNSET
    command: (
        Annotated[str, Meta(description="The request's command, or the event's name")] | UnsetType
    ) = UNSET
    subgroup: (
        Annotated[str, Meta(description="The id of the instance or object concerned")] | UnsetType
    ) = UNSET
    data: Annotated[Any, Meta(description="The data of the answer or event")] = UNSET
    error: ErrorView | UnsetType = UNSET


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
        try:
            fields = _readable_fields(payload)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidMessage(_explained(error)) from None
        raise InvalidMessage(_explained(error), fields) from None


def is_deep(data: bytes) -> bool:
    """Whether JSON is nested deeper than `DATA_DEPTH`: many parsers, and so other players' clients,
    fail on data that is nested a few levels deeper."""
    return is_deeper(data, DATA_DEPTH)


def parse_data(data: Raw, model: type[I]) -> I:
    """A command's `data`, checked by its model.

    Fields whose type is `Raw` stay the client's bytes. Raises MessageInvalid, which names the
    fields at fault.
    """
    value = {}
    name = ""
    try:
        for name, text in _fields(data if bytes(data) else b"{}").items():
            field = model.model_fields.get(name)
            if field is not None:
                value[name] = text if field.annotation is Raw else _value(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise MessageInvalid.field("data", _TOO_DEEP) from None
        if name:
            raise MessageInvalid.field(f"data.{name}", _sentence(str(error))) from None
        raise MessageInvalid.field("data", "must be an object") from None
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
