"""The declaration of `/api/ws`."""

from __future__ import annotations

from typing import Final

from api.ws.declarations import Channel, opened
from api.ws.registry.commands import COMMANDS
from api.ws.registry.events import EVENTS
from api.ws.registry.examples import INSTANCE
from api.ws.registry.messages import ClientMessage, ServerMessage
from reileta.errors import (
    CommandUnknown,
    CredentialInvalid,
    CredentialMalformed,
    InternalError,
    MessageInvalid,
    Overloaded,
    TooManyRequests,
)
from reileta.protocol.close_codes import CloseCode

REGISTRY_CHANNEL: Final = Channel(
    id="",
    address="/api/ws",
    title="The players' WebSocket",
    description="Players meet here: it carries commands and their answers, events, and the data of"
    " instances. Every message is one JSON object in a text frame. The credential comes with the"
    " upgrade or, in time, with `authenticate`. A command with `state` has exactly one answer,"
    " with the same `state`; a command without `state` is answered only by an error. Events have"
    " no `state`.",
    security=("token", "query", "cookie"),
    refusals=(CredentialMalformed, CredentialInvalid, TooManyRequests, Overloaded),
    request=opened(ClientMessage),
    response=ServerMessage,
    data_field="data",
    commands=tuple(COMMANDS),
    events=EVENTS,
    shared_errors=(CredentialInvalid, Overloaded, InternalError),
    unreadable=(MessageInvalid, CommandUnknown),
    subgroup_example=INSTANCE,
    close_codes={code: str(code.registry) for code in CloseCode if code.registry},
)
