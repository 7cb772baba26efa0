"""`/api/ws`, as `/openapi.json` describes it (PROTOCOL §7)."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from api.envelope import ErrorView
from api.openapi.websockets import Socket, opened
from api.ws.registry.commands import COMMANDS
from api.ws.registry.events import EVENTS
from api.ws.registry.messages import ClientMessage
from reileta.errors import CredentialInvalid, CredentialMalformed, Overloaded, TooManyRequests
from reileta.protocol import events
from reileta.protocol.close_codes import CloseCode


class ServerMessage(Struct):
    """A message from the server: the answer to a request, with its `state`, or an event, without.

    Of `data` and `error` there is one. An error has of its request what could be read.
    """

    state: Annotated[Any, Meta(description="The request's, as it came")] = UNSET
    command: Annotated[str, Meta(description="The request's, or the event's name")] | UnsetType = (
        UNSET
    )
    subgroup: (
        Annotated[str, Meta(description="The id of the instance or object that it is about")]
        | UnsetType
    ) = UNSET
    data: Annotated[Any, Meta(description="As the command or the event says")] = UNSET
    error: ErrorView | UnsetType = UNSET


CLOSES: Final = {str(code): str(code.registry) for code in CloseCode if code.registry}

REGISTRY_SOCKET: Final = Socket(
    path="/api/ws",
    summary="The players' WebSocket",
    about="Where players meet: commands and their answers, events, and the data of instances."
    " Every message is one JSON object in a text frame. A credential comes with the upgrade or, in"
    " time, with `authenticate`. A request with `state` has exactly one answer, with the same"
    " `state`; one without is answered by an error alone. Events have no `state`.",
    security=({}, {"token": []}, {"query": []}, {"cookie": []}),
    refusals=(CredentialMalformed, CredentialInvalid, TooManyRequests, Overloaded),
    sends=(opened(ClientMessage),),
    receives=(ServerMessage,),
    data_in="data",
    commands=COMMANDS,
    events=EVENTS,
    closes=CLOSES,
    groups={**events.GROUPS, "all": tuple(sorted(events.EVENTS))},
)
