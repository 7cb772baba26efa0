"""The declaration of `/api/ws`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from api.envelope import ErrorView
from api.ws.declarations import Channel, opened
from api.ws.registry.commands import COMMANDS
from api.ws.registry.connection import ClientMessage
from api.ws.registry.events import EVENTS
from api.ws.registry.examples import INSTANCE
from reileta.errors import (
    CommandUnknown,
    CredentialInvalid,
    CredentialMalformed,
    GuestNotAllowed,
    InternalError,
    MessageInvalid,
    Overloaded,
    QuotaReached,
    ServerBlocked,
    TooManyRequests,
)
from reileta.protocol.close_codes import CloseCode


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


REGISTRY_CHANNEL: Final = Channel(
    id="",
    address="/api/ws",
    title="The players' WebSocket",
    description="Players meet here: it carries commands and their answers, events, and the data of"
    " instances. Every message is one JSON object in a text frame. The credential comes with the"
    " upgrade or, in time, with `authenticate`. A command with `state` has exactly one answer,"
    " with the same `state`; a command without `state` is answered only by an error. Events have"
    " no `state`.",
    subprotocol="reileta.registry",
    security=("token", "query", "integrity", "cookie"),
    refusals=(
        MessageInvalid,
        CredentialMalformed,
        CredentialInvalid,
        GuestNotAllowed,
        ServerBlocked,
        QuotaReached,
        TooManyRequests,
        Overloaded,
    ),
    request=opened(ClientMessage),
    response=ServerMessage,
    data_field="data",
    commands=tuple(COMMANDS),
    events=EVENTS,
    shared_errors=(CredentialInvalid, Overloaded, InternalError),
    unreadable=(MessageInvalid, CommandUnknown, TooManyRequests),
    subgroup_example=INSTANCE,
    close_codes={code: str(code.registry) for code in CloseCode if code.registry},
)
