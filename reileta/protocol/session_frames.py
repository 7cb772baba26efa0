"""Messages on the session API's WebSockets: Events and Acks.

Every message is an Event, which its receiver acknowledges, or an Ack. This module encodes the
server's messages as text frames and decodes the client's. Each kind of fault has its close code; an
unknown field is ignored. See `docs/sessions.md`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from reileta.errors import ReiletaError
from reileta.protocol.close_codes import CloseCode
from reileta.protocol.frames import encode, error_fields, text_frame
from reileta.rules.resource.json_values import Json, NotJson, Unstorable, read
from reileta.rules.session.shared_state import VALUES_LIMIT
from reileta.unicode import BOM

Status = Literal["ok", "error"]
"""`fatal` also exists in the protocol, but neither side may send it."""

HELLO: Final = "hello"
STATE: Final = "state"
RESOURCE: Final = "resource"
WATCH: Final = "watch"
UNWATCH: Final = "unwatch"
RESOURCE_UPDATED: Final = "resource-updated"
RESOURCE_UNWATCHED: Final = "resource-unwatched"
RESOURCE_QUEUE: Final = "resource-queue"
SERVER_NOTICE: Final = "server-notice"
REFUSED: Final = "refused"
CLOSING: Final = "closing"
ACK: Final = "ack"

FRAME_VALUES: Final = VALUES_LIMIT + 256
"""Values in a client's message: those of a state, and the fields around it."""
_TIME: Final = "%Y-%m-%dT%H:%M:%S.%f%z"
_STATUSES: Final = get_args(Status)
_REASON_LIMIT: Final = 1024
_LEAP_SECOND: Final = re.compile(r"(?P<minute>[0-9]{2}:[0-9]{2}:)60")
"""A time in a leap second, which ISO 8601 and `%S` allow, and Python's `datetime` does not."""
_MEMBERS: Final[Mapping[str, Mapping[str, type]]] = {
    STATE: {"patch": dict},
    WATCH: {"type": str, "id": int},
    UNWATCH: {"type": str, "id": int},
}
"""The kinds of payloads that clients send, with the members of each."""
RESOURCE_ID_LIMIT: Final = 10**18 - 1
"""The largest id that can name a resource."""
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class MessageRefused(Exception):
    """A client's message is at fault: the server closes the socket with `code`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ClientAck:
    """The client acknowledges the event of that id."""

    id: str


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """The client changes the session's state by a merge patch."""

    id: str
    patch: dict[str, Json]


@dataclass(frozen=True, slots=True)
class ClientWatch:
    """The client begins to watch a resource, or ends that (`watches` is False)."""

    id: str
    type: str
    number: int
    watches: bool


ClientFrame: TypeAlias = ClientAck | ClientEvent | ClientWatch


def iso(ms: int) -> str:
    """Milliseconds since 1970 UTC in the session API's form: `2026-11-21T21:50:38.123000+0000`."""
    seconds, rest = divmod(ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000).strftime(_TIME)


def new_event_id() -> str:
    """A new id for an event of the server."""
    return str(uuid.uuid4())


def event_frame(
    id_: str,
    now_ms: int,
    payload: dict[str, Any],
    *,
    status: Status = "ok",
    reason: str | None = None,
) -> bytes:
    """An Event as a text frame; one serves every receiver."""
    event = {
        "type": "event",
        "id": id_,
        "sent_at": iso(now_ms),
        "status": status,
        "reason": reason,
        "payload": payload,
    }
    return text_frame(encode(event))


def ack_frame(id_: str, now_ms: int) -> bytes:
    """The Ack of a client's event."""
    return text_frame(encode({"type": "ack", "id": id_, "sent_at": iso(now_ms)}))


def refusal_frame(id_: str, event_id: str, now_ms: int, error: ReiletaError) -> bytes:
    """The Event that says why the client's event `event_id` was refused; its Ack follows."""
    payload = {"kind": REFUSED, "event": event_id, "error": error_fields(error)}
    return event_frame(id_, now_ms, payload, status="error", reason=error.message)


def parse(payload: bytes | None) -> ClientFrame:
    """Decodes a client's message; `payload` is None if it was not text.

    Raises MessageRefused with the close code of the first fault, in this order: the frame, the
    object, its `type` (which decides the other fields), a missing field, a field's type, a field's
    value. A field that may be null may be left out.
    """
    if payload is None:
        raise MessageRefused(CloseCode.NOT_TEXT, "not a text frame")
    fields = _object(payload)
    kind = _text(fields, "type")
    if kind not in ("event", "ack"):
        raise MessageRefused(CloseCode.FIELD_VALUE, "type must be `event` or `ack`")
    _shaped(fields, kind)
    id_ = fields["id"]
    if _UUID.fullmatch(id_) is None:
        raise MessageRefused(CloseCode.FIELD_VALUE, "id must be a UUID")
    if not _is_time(fields["sent_at"]):
        raise MessageRefused(CloseCode.FIELD_VALUE, "sent_at must be a time, ISO 8601")
    if kind == "ack":
        return ClientAck(id_)
    if fields["status"] not in _STATUSES:
        raise MessageRefused(CloseCode.FIELD_VALUE, "status must be `ok` or `error`")
    if len(fields.get("reason") or "") > _REASON_LIMIT:
        raise MessageRefused(
            CloseCode.FIELD_VALUE, f"reason must be at most {_REASON_LIMIT} characters"
        )
    body = fields["payload"]
    if body["kind"] == STATE:
        return ClientEvent(id_, body["patch"])
    if body["kind"] not in _MEMBERS:
        kinds = "`state`, `watch` or `unwatch`"
        raise MessageRefused(CloseCode.FIELD_VALUE, f"payload.kind must be {kinds}")
    if abs(body["id"]) > RESOURCE_ID_LIMIT:
        raise MessageRefused(CloseCode.FIELD_VALUE, "payload.id must be the id of a resource")
    return ClientWatch(id_, body["type"], body["id"], body["kind"] == WATCH)


def _object(payload: bytes) -> dict[str, Any]:
    if payload.removeprefix(BOM).lstrip(b" \t\r\n")[:1] != b"{":
        raise MessageRefused(CloseCode.NOT_AN_OBJECT, "not a JSON object")
    try:
        value = read(payload, values_limit=FRAME_VALUES)
    except NotJson:
        raise MessageRefused(CloseCode.NOT_AN_OBJECT, "not a JSON object") from None
    except Unstorable as fault:
        raise MessageRefused(
            CloseCode.FIELD_VALUE, f"{fault.path or 'message'} {fault.message}"
        ) from None
    if not isinstance(value, dict):
        raise MessageRefused(CloseCode.NOT_AN_OBJECT, "not a JSON object")
    return value


def _shaped(fields: dict[str, Any], kind: str) -> None:
    """Checks that every field of the kind is there, and then that each has its type."""
    names = ("id", "sent_at") if kind == "ack" else ("id", "sent_at", "status", "payload")
    for name in names:
        if name not in fields:
            raise MessageRefused(CloseCode.FIELD_MISSING, f"{name} is missing")
    body = fields.get("payload")
    if kind == "event" and isinstance(body, dict):
        if "kind" not in body:
            raise MessageRefused(CloseCode.FIELD_MISSING, "payload.kind is missing")
        for member in _members(body["kind"]):
            if member not in body:
                raise MessageRefused(CloseCode.FIELD_MISSING, f"payload.{member} is missing")
    for name in names:
        if name == "payload":
            _typed(body, dict, "payload")
            assert isinstance(body, dict)
            _typed(body["kind"], str, "payload.kind")
            for member, type_ in _members(body["kind"]).items():
                _typed(body[member], type_, f"payload.{member}")
        else:
            _typed(fields[name], str, name)
    if kind == "event" and fields.get("reason") is not None:
        _typed(fields["reason"], str, "reason")


def _members(kind: object) -> Mapping[str, type]:
    """The members that a client's payload of that kind has."""
    return _MEMBERS.get(kind, {}) if isinstance(kind, str) else {}


def _text(fields: dict[str, Any], name: str) -> str:
    if name not in fields:
        raise MessageRefused(CloseCode.FIELD_MISSING, f"{name} is missing")
    _typed(fields[name], str, name)
    return str(fields[name])


def _typed(value: object, type_: type, name: str) -> None:
    if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
        expected = {str: "a string", int: "an integer"}.get(type_, "an object")
        raise MessageRefused(CloseCode.FIELD_TYPE, f"{name} must be {expected}")


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(_LEAP_SECOND.sub(r"\g<minute>59", text)).tzinfo is not None
    except ValueError:
        return False
