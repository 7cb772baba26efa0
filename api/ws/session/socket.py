"""`/ws/user` and `/ws/autopilot`, as `/openapi.json` describes them (S, PROTOCOL §8).

What is taken apart and put together by hand (`reileta/protocol/session_frames.py`,
`actors/session/state_sync.py`) has its shape here; tests hold the two together.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from api.envelope import ErrorView
from api.http.session.resources import AnyResource
from api.openapi.websockets import Command, Event, Socket
from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    CredentialMalformed,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    SessionNotFound,
    TooManyRequests,
)
from reileta.protocol import session_frames
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.session_frames import Status
from reileta.protocol.views.session import Iso, SessionView

_ID: Final = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
EventId = Annotated[str, Meta(description="A UUID of its sender's choice", examples=[_ID])]
Version = Annotated[int, Meta(description="Of the state: one more with each change", ge=0)]
Patch = Annotated[dict[str, Any], Meta(description="A merge patch (RFC 7396) of the state")]


class EventMessage(Struct):
    """Something that is said. Its receiver answers with an Ack."""

    type: Literal["event"]
    id: EventId
    sent_at: Iso
    status: Annotated[Status, Meta(description="From a client, all mean the same")]
    reason: Annotated[str | None, Meta(description="For a person")]
    payload: Annotated[dict[str, Any], Meta(description="By its `kind`")]


class AckMessage(Struct):
    """An event has been taken."""

    type: Literal["ack"]
    id: Annotated[str, Meta(description="The event's", examples=[_ID])]
    sent_at: Iso


class PatchPayload(Struct):
    """Changes the session's state."""

    kind: Literal["state"]
    patch: Patch


class HelloPayload(Struct):
    """Who this is, its state with the version, and its resource."""

    kind: Literal["hello"]
    session: SessionView
    version: Version
    ack_timeout_ms: Annotated[int, Meta(description="In which each event is to be acknowledged")]


class StatePayload(Struct):
    """The state was changed, and has that version now."""

    kind: Literal["state"]
    version: Version
    patch: Patch


class ResourcePayload(Struct):
    """What the session has now."""

    kind: Literal["resource"]
    resource: AnyResource | None


class RefusedPayload(Struct):
    """A client's event changed nothing, and why."""

    kind: Literal["refused"]
    event: Annotated[str, Meta(description="The client's event", examples=[_ID])]
    error: ErrorView


class ClosingPayload(Struct):
    """The socket is about to be closed."""

    kind: Literal["closing"]
    code: Annotated[int, Meta(description="The close code", examples=[4000])]


_SENT_AT: Final = "2026-09-21T14:13:20.000000+0000"
_PATCH: Final = {"door": {"width": 91.5}}
_ACCOUNT: Final = {
    "id": 7,
    "username": "ada",
    "display_name": "Ada L.",
    "email": None,
    "autopilot": False,
    "admin": False,
}
_HELLO: Final = {
    "kind": "hello",
    "session": {
        "id": "s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9",
        "user": _ACCOUNT,
        "state": {"door": {"width": 80}},
        "resource": None,
    },
    "version": 7,
    "ack_timeout_ms": 10000,
}

COMMANDS: Final = (
    Command(
        name=session_frames.STATE,
        about="Changes the session's state. The Ack means that the change is in the database; if"
        " it is refused, the event `refused` comes in its place. An autopilot's state is always"
        " empty.",
        data=PatchPayload,
        answer=AckMessage,
        errors=(PayloadTooLarge, PermissionDenied, SessionNotFound, Overloaded),
        example={
            "type": "event",
            "id": _ID,
            "sent_at": _SENT_AT,
            "status": "ok",
            "reason": None,
            "payload": {"kind": "state", "patch": _PATCH},
        },
        answered={"type": "ack", "id": _ID, "sent_at": _SENT_AT},
    ),
)

EVENTS: Final = (
    Event(
        name=session_frames.HELLO,
        about="The first that comes.",
        data=HelloPayload,
        told="the socket that was opened",
        example=_HELLO,
    ),
    Event(
        name=session_frames.STATE,
        about="Another socket changed the session's state.",
        data=StatePayload,
        told="the session's other sockets",
        example={"kind": "state", "version": 8, "patch": _PATCH},
    ),
    Event(
        name=session_frames.RESOURCE,
        about="The session got a resource, or another version of it, or has none any more (null).",
        data=ResourcePayload,
        told="the session's sockets",
    ),
    Event(
        name=session_frames.REFUSED,
        about="In place of an Ack, with status `error`.",
        data=RefusedPayload,
        told="the socket whose event it was",
        example={
            "kind": "refused",
            "event": _ID,
            "error": {"code": PayloadTooLarge.code, "message": PayloadTooLarge.message},
        },
    ),
    Event(
        name=session_frames.CLOSING,
        about="The last that comes, with status `fatal`; it needs no Ack.",
        data=ClosingPayload,
        told="the socket that is closed",
    ),
)

CLOSES: Final = {str(code): str(code.session) for code in CloseCode if code.session}


def _socket(path: str, whose: str) -> Socket:
    return Socket(
        path=path,
        summary=f"The session API's WebSocket for {whose}",
        about="Shares the state of a session among its sockets, one for each token. Every message"
        " is one JSON object in a text frame: an Event, or the Ack that its receiver answers it"
        " with. Each side acknowledges each event of the other exactly once; the client, in the"
        " time that `hello` names.",
        security=({"token": []}, {"query": []}),
        refusals=(
            CredentialMalformed,
            CredentialInvalid,
            PermissionDenied,
            AlreadyConnected,
            TooManyRequests,
            Overloaded,
        ),
        sends=(EventMessage, AckMessage),
        receives=(EventMessage, AckMessage),
        data_in="payload",
        commands=COMMANDS,
        events=EVENTS,
        closes=CLOSES,
    )


SESSION_SOCKETS: Final = (_socket("/ws/user", "clients"), _socket("/ws/autopilot", "autopilots"))
