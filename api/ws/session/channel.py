"""The declaration of `/ws/user` and `/ws/autopilot`, the session API's WebSockets.

`reileta/protocol/session_frames.py` and `actors/session/state_sync.py` read and write these
messages by hand; tests hold them to the structs here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.envelope import ErrorView
from api.ws.declarations import Channel, Command, Event, Events
from api.ws.resource_events import (
    EXAMPLE_ACCOUNT,
    EXAMPLE_TIME,
    PLACE,
    QUEUE_TEXT,
    UNWATCHED,
    UNWATCHED_TEXT,
    UPDATED,
    UPDATED_TEXT,
    Number,
    ResourceQueueView,
    ResourceUnwatchedView,
    ResourceUpdatedView,
    TypeName,
)
from reileta.errors import (
    AlreadyConnected,
    CredentialInvalid,
    CredentialMalformed,
    MessageInvalid,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    QuotaReached,
    ResourceNotFound,
    ResourceTypeUnknown,
    SessionNotFound,
    TooManyRequests,
)
from reileta.protocol import session_frames
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.session_frames import Status
from reileta.protocol.views.session import Iso, ResourceMetadata, SessionView
from reileta.records import NoticeLevel

_ID: Final = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
EventId = Annotated[str, Meta(description="A UUID that its sender chose", examples=[_ID])]
Version = Annotated[int, Meta(description="The version of the state; each change adds 1", ge=0)]
Patch = Annotated[dict[str, Any], Meta(description="A merge patch (RFC 7396) of the state")]


class EventMessage(Struct):
    """An Event. Its receiver answers with an Ack."""

    type: Literal["event"]
    id: EventId
    sent_at: Iso
    status: Annotated[Status, Meta(description="From a client, both values mean the same")]
    payload: Annotated[dict[str, Any], Meta(description="It depends on its `kind`")]
    reason: Annotated[str | None, Meta(description="For a person; left out, it is null")] = None


class AckMessage(Struct):
    """An Ack: the receiver has taken the event. Each event gets exactly one."""

    type: Literal["ack"]
    id: Annotated[str, Meta(description="The event's", examples=[_ID])]
    sent_at: Iso


class PatchPayload(Struct):
    """A change of the session's state."""

    kind: Literal["state"]
    patch: Patch


class HelloPayload(Struct):
    """The session, its state with the version, and its resource."""

    kind: Literal["hello"]
    session: SessionView
    version: Version
    ack_timeout_ms: Annotated[
        int, Meta(description="The time in which the client acknowledges each event")
    ]


class StatePayload(Struct):
    """The patch that changed the state, and the state's version after it."""

    kind: Literal["state"]
    version: Version
    patch: Patch


class ResourcePayload(Struct):
    """The metadata of the resource that the session has now; null: none."""

    kind: Literal["resource"]
    resource: Annotated[ResourceMetadata | None, Meta(description="null: none")]


class WatchPayload(Struct):
    """The resource to watch."""

    kind: Literal["watch"]
    type: TypeName
    id: Number


class UnwatchPayload(Struct):
    """Ends the watch of a resource."""

    kind: Literal["unwatch"]
    type: TypeName
    id: Number


class ResourceUpdatedPayload(ResourceUpdatedView, kw_only=True):
    """A resource that the socket watches."""

    kind: Literal["resource-updated"]


class ResourceUnwatchedPayload(ResourceUnwatchedView, kw_only=True):
    """A watch that has ended."""

    kind: Literal["resource-unwatched"]


class ResourceQueuePayload(ResourceQueueView, kw_only=True):
    """The session's place in a waiting line."""

    kind: Literal["resource-queue"]


class ServerNoticePayload(Struct):
    """A text that an admin tells everyone who is connected."""

    kind: Literal["server-notice"]
    text: Annotated[str | None, Meta(description="Plain text; null: the notice was withdrawn")]
    level: Annotated[NoticeLevel, Meta(description="How urgent it is")]
    created_at: Iso
    until: Annotated[
        Iso | None, Meta(description="Those who connect before that get it, too; null: nobody does")
    ]


class RefusedPayload(Struct):
    """The client's event that changed nothing, and the reason."""

    kind: Literal["refused"]
    event: Annotated[str, Meta(description="The client's event", examples=[_ID])]
    error: ErrorView


class ClosingPayload(Struct):
    """The close code that follows. With 1008, `error` says which limit was reached."""

    kind: Literal["closing"]
    code: Annotated[int, Meta(description="The close code", examples=[4000])]
    error: ErrorView | UnsetType = UNSET


_PATCH: Final = {"door": {"width": 91.5}}
_HELLO: Final = {
    "kind": "hello",
    "session": {
        "id": "s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9",
        "user": EXAMPLE_ACCOUNT,
        "state": {"door": {"width": 80}},
        "resource": None,
    },
    "version": 7,
    "ack_timeout_ms": 10000,
}
_ACK: Final = {"type": "ack", "id": _ID, "sent_at": EXAMPLE_TIME}


def _event(payload: dict[str, Any]) -> dict[str, Any]:
    """An Event of a client."""
    return {
        "type": "event",
        "id": _ID,
        "sent_at": EXAMPLE_TIME,
        "status": "ok",
        "reason": None,
        "payload": payload,
    }


COMMANDS: Final = (
    Command(
        name=session_frames.STATE,
        description="Changes the session's state. The Ack means that the change is in the database,"
        " or was refused as just said."
        " If the change is refused, the event `refused` comes right before the Ack. The state of an"
        " autopilot is always empty.",
        takes=PatchPayload,
        gives=AckMessage,
        answers="session",
        errors=(PayloadTooLarge, PermissionDenied, SessionNotFound, Overloaded),
        example=_event({"kind": "state", "patch": _PATCH}),
        answer_example=_ACK,
    ),
    Command(
        name=session_frames.WATCH,
        description="Watches a resource that the user may see. After the Ack, the event"
        " `resource-updated` has the resource as it is; each change comes as another one. Watching"
        " again gives the whole resource again.",
        takes=WatchPayload,
        gives=AckMessage,
        answers="resource",
        errors=(
            ResourceTypeUnknown,
            ResourceNotFound,
            PermissionDenied,
            QuotaReached,
            Overloaded,
        ),
        example=_event({"kind": "watch", "type": "document", "id": 17}),
        answer_example=_ACK,
    ),
    Command(
        name=session_frames.UNWATCH,
        description="Ends a watch. If the socket does not watch the resource, nothing happens.",
        takes=UnwatchPayload,
        gives=AckMessage,
        errors=(ResourceTypeUnknown,),
        example=_event({"kind": "unwatch", "type": "document", "id": 17}),
        answer_example=_ACK,
    ),
)

EVENTS: Final = Events(
    Event(
        name=session_frames.HELLO,
        description="The first event on a socket.",
        data=HelloPayload,
        sent_to="the new socket",
        example=_HELLO,
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.STATE,
        description="Another socket changed the session's state.",
        data=StatePayload,
        sent_to="the session's other sockets",
        example={"kind": "state", "version": 8, "patch": _PATCH},
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.RESOURCE,
        description="The session got a resource, its resource has a new version, or the session has"
        " no resource any more (null).",
        data=ResourcePayload,
        sent_to="the session's sockets",
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.RESOURCE_UPDATED,
        description=UPDATED_TEXT,
        data=ResourceUpdatedPayload,
        sent_to="the sockets that watch it",
        example={"kind": "resource-updated", **UPDATED},
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.RESOURCE_UNWATCHED,
        description=UNWATCHED_TEXT,
        data=ResourceUnwatchedPayload,
        sent_to="the socket that watched",
        example={"kind": "resource-unwatched", **UNWATCHED},
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.RESOURCE_QUEUE,
        description=QUEUE_TEXT,
        data=ResourceQueuePayload,
        sent_to="the session's sockets",
        example={"kind": "resource-queue", **PLACE},
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.SERVER_NOTICE,
        description="An admin tells everyone something, or takes it back (`text` is null). Those"
        " who connect before `until` get it after `hello`.",
        data=ServerNoticePayload,
        sent_to="all sockets of all sessions",
        example={
            "kind": "server-notice",
            "text": "Restart in five minutes",
            "level": "warning",
            "created_at": EXAMPLE_TIME,
            "until": "2026-09-21T14:18:20.000000+0000",
        },
        fixed={"status": "ok"},
        acknowledged=True,
    ),
    Event(
        name=session_frames.REFUSED,
        description="A change or a watch was refused. Its Ack follows. The status is `error`.",
        data=RefusedPayload,
        sent_to="the socket that sent the event",
        fixed={"status": "error"},
        example={
            "kind": "refused",
            "event": _ID,
            "error": {"code": PayloadTooLarge.code, "message": PayloadTooLarge.message},
        },
        acknowledged=True,
    ),
    Event(
        name=session_frames.CLOSING,
        description="The last event on a socket, with status `error`. It needs no Ack.",
        data=ClosingPayload,
        sent_to="the socket that the server closes",
        fixed={"status": "error"},
    ),
)

KINDS: Final = frozenset(
    {session_frames.STATE, session_frames.WATCH, session_frames.UNWATCH, session_frames.ACK}
)
"""The kinds of messages that clients send, as the log names them."""

SESSION_CHANNEL: Final = Channel(
    id="session",
    address="/ws/{role}",
    parameters={"role": {"user": "clients", "autopilot": "autopilots"}},
    title="The session API's WebSocket",
    description="The sockets of a session, one for each token, share the session's state here."
    " Every message is one JSON object in a text frame: an Event, or the Ack with which its"
    " receiver answers it. Each side acknowledges each event of the other exactly once; the client"
    " does so in the time that `hello` names.",
    subprotocol="reileta.session",
    security=("token", "query"),
    refusals=(
        MessageInvalid,
        CredentialMalformed,
        CredentialInvalid,
        PermissionDenied,
        AlreadyConnected,
        QuotaReached,
        TooManyRequests,
        Overloaded,
    ),
    request=EventMessage,
    response=EventMessage,
    data_field="payload",
    commands=COMMANDS,
    events=EVENTS,
    acknowledgement=(AckMessage, _ACK),
    refused_by=session_frames.REFUSED,
    close_codes={code: str(code.session) for code in CloseCode if code.session},
)
"""Both WebSockets of the session API."""
