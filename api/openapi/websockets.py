"""The WebSockets in `/openapi.json`, under `x-websockets`: OpenAPI itself knows none.

Each socket is declared like an operation: what may be sent on it, what comes, and how it ends, by
the structs that decode and encode it (`api/ws/registry/socket.py`, `api/ws/session/socket.py`).
They stand outside of `paths`, since whoever reads those would call them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from msgspec import NODEFAULT, UNSET, Raw, Struct, defstruct
from msgspec.structs import fields

from api.errors import status_of
from api.openapi.examples import Json, example_of
from reileta.errors import ReiletaError

EXTENSION: Final = "x-websockets"
Codes = tuple[type[ReiletaError], ...]
Shape = Callable[[Any], Json]
"""The schema of a type, mostly a reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a client sends.

    Attributes:
        about: what it does, in a sentence or two.
        data: the type of its data; a tuple of types: one of them.
        answer: the type of the answer's data.
        errors: what it is refused with.
        example: a whole message, and `answered`, one that answers it.
        need: whether the socket must have a credential by then.
    """

    name: str
    about: str
    data: Any
    answer: Any
    errors: Codes
    example: Json
    answered: Json
    need: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the server sends unasked.

    Attributes:
        about: what happened.
        data: the type of its data; a tuple of types: one of them.
        told: who gets it without a subscription; "" for nobody.
        example: its data; None: made from the type.
        group: the group of events that it is in, if any.
        subgroup: what the message's `subgroup` is, if it has one.
    """

    name: str
    about: str
    data: Any
    told: str
    example: Any = None
    group: str | None = None
    subgroup: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """A WebSocket.

    Attributes:
        about: what it is for, and how it is spoken.
        security: the ways a credential may come with the upgrade, as in an operation.
        refusals: why the upgrade is refused, with the envelope as the answer.
        sends, receives: the types of whole messages, from the client and to it.
        data_in: the field of a message that its data is in.
        closes: what each close code means.
        groups: names that stand for several events.
    """

    path: str
    summary: str
    about: str
    security: tuple[Mapping[str, list[str]], ...]
    refusals: Codes
    sends: tuple[Any, ...]
    receives: tuple[Any, ...]
    data_in: Literal["data", "payload"]
    commands: tuple[Command, ...]
    events: tuple[Event, ...]
    closes: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def types_of(sockets: Iterable[Socket]) -> list[Any]:
    """The types that `describe` will ask the shapes of, each once."""
    return list(dict.fromkeys(one for socket in sockets for one in _types(socket)))


def _types(socket: Socket) -> Iterator[Any]:
    yield from (*socket.sends, *socket.receives)
    for command in socket.commands:
        yield from (*_several(command.data), *_several(command.answer))
    for event in socket.events:
        yield from _several(event.data)


def describe(sockets: Iterable[Socket], shape: Shape, schemas: Json) -> Json:
    """The sockets by their paths, as `x-websockets` of the document whose schemas are given."""
    return {socket.path: _socket(socket, shape, schemas) for socket in sockets}


def _socket(socket: Socket, shape: Shape, schemas: Json) -> Json:
    described: Json = {
        "summary": socket.summary,
        "description": socket.about,
        "security": [dict(way) for way in socket.security],
        "refusals": [{"status": status_of(error), **_code(error)} for error in socket.refusals],
        "sends": _one_of(socket.sends, shape),
        "receives": _one_of(socket.receives, shape),
        "dataIn": socket.data_in,
        "commands": {command.name: _command(command, shape) for command in socket.commands},
        "events": {event.name: _event(event, shape, schemas) for event in socket.events},
        "closeCodes": dict(socket.closes),
    }
    if socket.groups:
        described["groups"] = {name: list(members) for name, members in socket.groups.items()}
    return described


def _command(command: Command, shape: Shape) -> Json:
    return {
        "description": command.about,
        "needsCredential": command.need,
        "data": _one_of(_several(command.data), shape),
        "answer": _one_of(_several(command.answer), shape),
        "errors": [_code(error) for error in command.errors],
        "example": command.example,
        "answerExample": command.answered,
    }


def _event(event: Event, shape: Shape, schemas: Json) -> Json:
    data = _one_of(_several(event.data), shape)
    described: Json = {"description": event.about, "sentTo": event.told, "data": data}
    if event.group is not None:
        described["group"] = event.group
    if event.subgroup is not None:
        described["subgroup"] = event.subgroup
    shown = example_of(data, schemas) if event.example is None else event.example
    return {**described, "example": shown}


def _several(data: Any) -> tuple[Any, ...]:
    return data if isinstance(data, tuple) else (data,)


def _one_of(types: tuple[Any, ...], shape: Shape) -> Json:
    shapes = [shape(one) for one in types]
    return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}


def _code(error: type[ReiletaError]) -> Json:
    return {"code": error.code, "message": error.message}


def opened(struct: type[Struct], **instead: Any) -> type[Struct]:
    """The struct as its schema is to say it: what it keeps as bytes is any JSON.

    `instead` are the types of fields whose bytes are more than just any JSON.
    """
    return defstruct(
        struct.__name__,
        [
            (one.encode_name, instead.get(one.name, _any_for_raw(one.type)), _default(one))
            if one.default is not NODEFAULT
            else (one.encode_name, instead.get(one.name, _any_for_raw(one.type)))
            for one in fields(struct)
        ],
        namespace={"__doc__": struct.__doc__},
        kw_only=True,
    )


def _any_for_raw(type_: Any) -> Any:
    if type_ is Raw:
        return Any
    if get_origin(type_) is Annotated and get_args(type_)[0] is Raw:
        return Annotated[(Any, *get_args(type_)[1:])]
    return type_


def _default(one: Any) -> Any:
    return UNSET if isinstance(one.default, Raw) else one.default
