"""Declarations of WebSockets: their commands, events and close codes.

One declaration of a command gives its dispatch, the check of its input, the names that the log
knows, the list in `CommandUnknown`, and its part of `/asyncapi.json`. One declaration of an event
gives its group for subscriptions and its part of `/asyncapi.json`. HTTP has the same idea in
`api/http/endpoint.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args, get_origin

from msgspec import NODEFAULT, UNSET, Raw, Struct, defstruct
from msgspec.structs import fields

from reileta.errors import ReiletaError
from reileta.protocol.input_types import Input

C = TypeVar("C")
I = TypeVar("I", bound=Input)  # noqa: E741 - the input of a command
R = TypeVar("R", bound=Callable[..., None])

Errors = tuple[type[ReiletaError], ...]
Example = dict[str, Any]
Need = Literal["none", "session"]
"""Whether the socket must have a credential before the command; without it, the answer is
`NotLoggedIn`."""
Answers = Literal["connection", "session", "instance", "resource"]
"""Which part sends the answer: the connection, from what the handler returns; or the session, the
instance or the resource, in order with its own events."""
GuestAccess = Literal["yes", "own", "no"]
"""Whether guests may send the command; those who may not get `GuestNotAllowed`. `own`: only if
guests can own instances here (`--guests-own`)."""
Subgroup = Literal["none", "instance", "instance or data"]
"""Whether the message's `subgroup` names an instance: never; always; or in place of `data`."""
ALL: Final = "all"
"""The name that subscribes to every event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A message that a client sends.

    Attributes:
        description: what it does, in a sentence or two.
        takes: the model that checks its data; None: any JSON.
        gives: the type of the answer's data, or of the whole answer where data has no field.
        errors: the errors that refuse it, besides those that can refuse every command.
        example: a whole message, and `answer_example`, a message that answers it.
        options: the message's fields that this command alone has.
        guests: whether guests may send it.
        handler: what carries it out; None where the socket has its own way.
    """

    name: str
    description: str
    takes: type[Input] | type[Struct] | None
    gives: Any
    errors: Errors
    example: Example
    answer_example: Example
    need: Need = "session"
    answers: Answers = "connection"
    subgroup: Subgroup = "none"
    options: tuple[str, ...] = ()
    guests: GuestAccess = "no"
    handler: Callable[..., Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True)
class CommandReply:
    """An answer's data, and a frame to send right after the answer."""

    data: object
    then: bytes


class Commands(Generic[C, R]):
    """The commands of one WebSocket API. `C` is what a handler knows of its call."""

    def __init__(self) -> None:
        self.by_name: dict[str, Command] = {}
        self.relays: dict[str, R] = {}
        """The handlers of commands that need no waiting, by name."""
        self._names: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Command]:
        return iter(self.by_name.values())

    @property
    def names(self) -> frozenset[str]:
        if len(self._names) < len(self.by_name):
            self._names = frozenset(self.by_name)
        return self._names

    def add(
        self,
        name: str,
        *,
        takes: type[I],
        gives: Any,
        sent: Example,
        answered: Any,
        errors: Errors = (),
        need: Need = "session",
        answers: Answers = "connection",
        subgroup: Subgroup = "none",
        guests: GuestAccess = "no",
    ) -> Callable[[Callable[[C, I], Awaitable[object]]], Callable[[C, I], Awaitable[object]]]:
        """Declares a command; the decorated handler's docstring is its description.

        Args:
            sent: an example: the fields of the message besides `command` and `state`.
            answered: an example of the answer's data.
            (the others): see `Command`.
        """

        def declare(
            handler: Callable[[C, I], Awaitable[object]],
        ) -> Callable[[C, I], Awaitable[object]]:
            self._add(
                Command(
                    name=name,
                    description=_description(handler),
                    takes=takes,
                    gives=gives,
                    errors=errors,
                    example={"state": 1, "command": name, **sent},
                    answer_example=_answer_example(name, sent, answered),
                    need=need,
                    answers=answers,
                    subgroup=subgroup,
                    guests=guests,
                    handler=handler,
                )
            )
            return handler

        return declare

    def add_relay(
        self,
        name: str,
        *,
        gives: Any,
        sent: Example,
        answered: Any,
        errors: Errors,
        options: tuple[str, ...],
    ) -> Callable[[R], R]:
        """Declares a command of any JSON whose handler passes the message on without waiting.

        The handler gets the message as it came, and refuses it itself. The instance answers.
        """

        def declare(handler: R) -> R:
            self._add(
                Command(
                    name=name,
                    description=_description(handler),
                    takes=None,
                    gives=gives,
                    errors=errors,
                    example={"state": 1, "command": name, **sent},
                    answer_example=_answer_example(name, sent, answered),
                    answers="instance",
                    subgroup="instance",
                    options=options,
                    guests="yes",
                )
            )
            self.relays[name] = handler
            return handler

        return declare

    def _add(self, command: Command) -> None:
        assert command.name not in self.by_name, f"{command.name} is declared twice"
        self.by_name[command.name] = command


def _description(handler: Callable[..., object]) -> str:
    return " ".join((handler.__doc__ or "").split())


def _answer_example(name: str, sent: Example, answered: Any) -> Example:
    """The answer to the example, with the instance that either names as its subgroup."""
    subgroup = sent.get("subgroup")
    if subgroup is None and isinstance(answered, dict):
        subgroup = answered.get("instance")
    where = {} if subgroup is None else {"subgroup": subgroup}
    return {"state": 1, "command": name, **where, "data": answered}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A message that the server sends by itself.

    Attributes:
        description: what happened.
        data: the type of its data; a tuple of types: one of them.
        sent_to: who gets it without a subscription; "" for nobody.
        example: its data; None: made from the type.
        group: the group of events that it is in, if any.
        subgroup: what the message's `subgroup` is, if it has one.
        acknowledged: whether the client acknowledges it.
        fixed: fields of the message that have one value, with that value.
    """

    name: str
    description: str
    data: Any
    sent_to: str = ""
    example: Any = None
    group: str | None = None
    subgroup: str | None = None
    acknowledged: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)


class Events:
    """The events of one WebSocket API, and the names that subscriptions take."""

    def __init__(self, *events: Event) -> None:
        self._events = {event.name: event for event in events}
        assert len(self._events) == len(events), "an event is declared twice"
        self.names: Final = frozenset(self._events)
        groups: dict[str, list[str]] = {}
        for event in events:
            if event.group is not None:
                groups.setdefault(event.group, []).append(event.name)
        self.groups: Final[Mapping[str, tuple[str, ...]]] = {
            group: tuple(names) for group, names in groups.items()
        }
        self._members = {
            ALL: self.names,
            **{group: frozenset(names) for group, names in groups.items()},
            **{name: frozenset({name}) for name in self.names},
        }

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events.values())

    def __getitem__(self, name: str) -> Event:
        return self._events[name]

    def members(self, name: str) -> frozenset[str] | None:
        """The events that a subscription to `name` takes: an event, a group, or `all`; else
        None."""
        return self._members.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A WebSocket, as `/asyncapi.json` describes it.

    Attributes:
        id: its key in the document; messages and operations begin with it, unless it is "".
        address: its path; `{name}` stands for one of `parameters`.
        parameters: by name, the values that may stand there, with what each is for.
        description: what it is for, and how the two sides talk.
        subprotocol: what a client may offer as `Sec-WebSocket-Protocol`.
        security: names of the ways in which a credential may come with the upgrade.
        refusals: the errors that refuse the upgrade; the answer is an HTTP response.
        request, response: the types of whole messages, from the client and to it.
        data_field: the field of a message that holds its data.
        close_codes: what each close code means.
        acknowledgement: the type of the message that acknowledges an event, with an example.
        refused_by: the event that refuses a command, where no answer with `error` does.
        shared_errors: the errors that can refuse every command.
        unreadable: the errors of messages whose command can't be read, or is unknown.
        subgroup_example: the id of an instance, for examples.
    """

    id: str
    address: str
    title: str
    description: str
    subprotocol: str
    security: tuple[str, ...]
    refusals: Errors
    request: type[Struct]
    response: type[Struct]
    data_field: Literal["data", "payload"]
    commands: tuple[Command, ...]
    events: Events
    close_codes: Mapping[int, str]
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    acknowledgement: tuple[type[Struct], Example] | None = None
    refused_by: str | None = None
    shared_errors: Errors = ()
    unreadable: Errors = ()
    subgroup_example: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its path, once for each value of a parameter."""
        paths = [self.address]
        for name, values in self.parameters.items():
            paths = [path.replace(f"{{{name}}}", value) for path in paths for value in values]
        return tuple(paths)


def opened(struct: type[Struct], **instead: Any) -> type[Struct]:
    """The struct as its schema describes it: fields that are kept as bytes are any JSON.

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
