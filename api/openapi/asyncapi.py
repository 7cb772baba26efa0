"""`/asyncapi.json`: AsyncAPI 3, made from the declarations of the WebSockets.

The document describes this server. So a command is an operation with the action `receive`, whose
`reply` is the answer or the refusal, and an event is an operation with the action `send`. Payloads
come from the models that check commands and from the structs that are encoded.

AsyncAPI has no place for close codes, refused upgrades and groups of events. They stand in the
channel's extensions `x-close-codes`, `x-upgrade-refusals` and `x-event-groups`. The codes that can
refuse a command stand in `x-error-codes` beside `error`, as in `/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from api.envelope import ErrorView
from api.errors import status_of
from api.http.headers import SESSION_COOKIE
from api.openapi.examples import Json, example_of
from api.openapi.names import pascal
from api.openapi.schemas import Schemas, either, name_in, ref
from api.ws.declarations import ALL, Channel, Command, Event
from api.ws.registry.channel import REGISTRY_CHANNEL
from api.ws.session.channel import SESSION_CHANNEL
from reileta import __version__
from reileta.errors import ReiletaError
from reileta.protocol.input_types import Input
from reileta.site import Site

ASYNCAPI: Final = "3.0.0"
CLOSE_CODES: Final = "x-close-codes"
REFUSALS: Final = "x-upgrade-refusals"
GROUPS: Final = "x-event-groups"
ERROR_CODES: Final = "x-error-codes"
CHANNELS: Final = (REGISTRY_CHANNEL, SESSION_CHANNEL)

_ABOUT: Final = (
    "The WebSockets of Reileta: the players' socket of the registry API, and the sockets of the"
    " session API. The document describes the server: it receives commands and sends events."
    " `/openapi.json` describes the HTTP endpoints."
)
_SECURITY: Final = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer …` of the upgrade.",
    },
    "query": {
        "type": "httpApiKey",
        "in": "query",
        "name": "authuser",
        "description": "Deprecated: the token as `?authuser=…` of the upgrade.",
    },
    "integrity": {
        "type": "httpApiKey",
        "in": "query",
        "name": "integrityuser",
        "description": "The token of a user of another server, as `?integrityuser=…` of the"
        " upgrade.",
    },
    "cookie": {
        "type": "httpApiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "The cookie of a browser whose page has the server's own origin.",
    },
}


def asyncapi(
    site: Site, *, cookie: str = SESSION_COOKIE, channels: Iterable[Channel] = CHANNELS
) -> Json:
    """The document of the channels, at a server with that cookie."""
    whole = tuple(channels)
    types = [one for channel in whole for one in _types(channel)]
    inputs = [one for one in types if _is_input(one)]
    schemas = Schemas(inputs, [*(one for one in types if not _is_input(one)), ErrorView])
    described = [_Described(channel, schemas) for channel in whole]
    messages = {name: message for one in described for name, message in one.messages()}
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": "Reileta", "version": __version__, "description": _ABOUT},
        "defaultContentType": "application/json",
        "servers": {"this": server_of(site)},
        "channels": {one.key: one.channel() for one in described},
        "operations": {name: op for one in described for name, op in one.operations.items()},
        "components": {
            "messages": messages,
            "schemas": schemas.used_by(messages),
            "securitySchemes": {**_SECURITY, "cookie": {**_SECURITY["cookie"], "name": cookie}},
        },
    }


def server_of(site: Site) -> Json:
    """The entry of the server itself."""
    entry = {"host": site.address, "protocol": "wss" if site.secure else "ws"}
    return entry | ({"pathname": site.base_path} if site.base_path else {})


def _types(channel: Channel) -> Iterator[Any]:
    yield from (channel.request, channel.response)
    if channel.acknowledgement is not None:
        yield channel.acknowledgement[0]
    for command in channel.commands:
        if command.takes is not None:
            yield command.takes
        yield command.gives
    for event in channel.events:
        yield from event.data if isinstance(event.data, tuple) else (event.data,)


def _is_input(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, Input)


class _Described:
    """One channel's parts of the document."""

    def __init__(self, channel: Channel, schemas: Schemas) -> None:
        self.key = channel.id or "registry"
        self.operations: dict[str, Json] = {}
        self._channel = channel
        self._schemas = schemas
        self._messages: dict[str, Json] = {}
        self._prefix = pascal(channel.id)
        self._ack = ""
        if channel.acknowledgement is not None:
            self._ack = self._acknowledgement(*channel.acknowledgement)
        for event in channel.events:
            self._event(event)
        if channel.unreadable:
            self._unreadable()
        for command in channel.commands:
            self._command(command)

    def channel(self) -> Json:
        """The channel object."""
        channel = self._channel
        described: Json = {
            "address": channel.address,
            "title": channel.title,
            "description": channel.description,
            "messages": {
                name: {"$ref": f"#/components/messages/{name}"} for name in self._messages
            },
        }
        if channel.parameters:
            described["parameters"] = {
                name: {
                    "enum": list(values),
                    "description": "; ".join(f"`{key}` for {use}" for key, use in values.items()),
                }
                for name, values in channel.parameters.items()
            }
        protocol = {
            "type": "string",
            "examples": [channel.subprotocol],
            "description": f"May be left out. If it is there, it contains `{channel.subprotocol}`.",
        }
        described["bindings"] = {
            "ws": {
                "method": "GET",
                "headers": {"type": "object", "properties": {"Sec-WebSocket-Protocol": protocol}},
                "bindingVersion": "0.1.0",
            }
        }
        described[CLOSE_CODES] = {str(code): text for code, text in channel.close_codes.items()}
        described[REFUSALS] = [
            {"status": status_of(error), **_code(error)} for error in channel.refusals
        ]
        if channel.events.groups:
            groups = {**channel.events.groups, ALL: sorted(channel.events.names)}
            described[GROUPS] = {name: list(names) for name, names in groups.items()}
        return described

    def messages(self) -> Iterable[tuple[str, Json]]:
        """The components that its messages are, by name."""
        return self._messages.items()

    # Operations --------------------------------------------------------------------------------

    def _command(self, command: Command) -> None:
        name = self._prefix + pascal(command.name)
        replies = self._replies(name, command)
        self._message(
            f"{name}Command",
            title=command.name,
            summary=f"The command `{command.name}`.",
            payload=self._request(command),
            example=command.example,
        )
        operation: Json = {
            "action": "receive",
            "channel": self._channel_ref(),
            "title": command.name,
            "description": command.description,
            "messages": [self._message_ref(f"{name}Command")],
            "reply": {
                "channel": self._channel_ref(),
                "messages": [self._message_ref(reply) for reply in replies],
            },
        }
        if command.need == "session":
            operation["security"] = self._security()
        self.operations[f"receive{name}"] = operation

    def _replies(self, name: str, command: Command) -> tuple[str, str]:
        """The names of the messages that answer a command: its answer and its refusal."""
        channel = self._channel
        if self._ack and channel.refused_by is not None:
            return self._ack, f"{self._prefix}{pascal(channel.refused_by)}Event"
        self._message(
            f"{name}Answer",
            title=f"answer to {command.name}",
            summary=f"The answer to `{command.name}` with `state`.",
            payload=self._object(
                channel.response,
                ("state", "command", "subgroup", channel.data_field),
                ("state", "command", channel.data_field),
                command=_constant(command.name),
                **{channel.data_field: self._schemas.of(command.gives)},
            ),
            example=command.answer_example,
        )
        errors = tuple(dict.fromkeys((*command.errors, *channel.shared_errors)))
        self._refusal(
            f"{name}Refusal",
            f"refusal of {command.name}",
            f"The command `{command.name}` was refused.",
            errors,
            command.name,
        )
        return f"{name}Answer", f"{name}Refusal"

    def _event(self, event: Event) -> None:
        name = self._prefix + pascal(event.name)
        data = self._schemas.of(event.data)
        example = event.example
        if example is None:
            example = example_of(data, self._schemas.components)
        self._message(
            f"{name}Event",
            title=event.name,
            summary=f"The event `{event.name}`.",
            payload=self._event_payload(event, data),
            example=self._event_example(event, example),
            group=event.group,
        )
        receivers = "Only subscribers get it."
        if event.sent_to:
            receivers = f"It is sent to {event.sent_to}."
            if event.group is not None:
                receivers = f"Without a subscription, it is sent to {event.sent_to}."
        operation: Json = {
            "action": "send",
            "channel": self._channel_ref(),
            "title": event.name,
            "description": f"{event.description} {receivers}",
            "messages": [self._message_ref(f"{name}Event")],
        }
        if event.acknowledged:
            operation["reply"] = {
                "channel": self._channel_ref(),
                "messages": [self._message_ref(self._ack)],
            }
        if self._channel.id:  # without a credential, nothing is sent on the socket
            operation["security"] = self._security()
        self.operations[f"send{name}"] = operation

    def _unreadable(self) -> None:
        name = f"{self._prefix}MessageRefusal"
        self._refusal(
            name,
            "refusal of a message",
            "A message could not be read, or its command is unknown.",
            (*self._channel.unreadable, *self._channel.shared_errors),
            None,
        )
        self.operations[f"send{name}"] = {
            "action": "send",
            "channel": self._channel_ref(),
            "title": "refusal of a message",
            "description": "Answers a message that can't be read, or whose command is unknown. It"
            " has the fields of the message that could be read.",
            "messages": [self._message_ref(name)],
        }

    # Messages ----------------------------------------------------------------------------------

    def _message(
        self,
        name: str,
        *,
        title: str,
        summary: str,
        payload: Json,
        example: Any,
        group: str | None = None,
    ) -> None:
        described: Json = {
            "name": name,
            "title": title,
            "summary": summary,
            "contentType": "application/json",
            "payload": ref(name),
        }
        self._schemas.components[name] = {**payload, "description": summary}
        where = "state" if self._channel.data_field == "data" else "id"
        if where in payload["properties"]:
            described["correlationId"] = {"location": f"$message.payload#/{where}"}
        if group is not None:
            described["tags"] = [{"name": group}]
        self._messages[name] = {**described, "examples": [{"payload": example}]}

    def _acknowledgement(self, struct: Any, example: Json) -> str:
        name = f"{self._prefix}Ack"
        fields = self._schemas.component(struct)["properties"]
        self._message(
            name,
            title="ack",
            summary="Acknowledges an event.",
            payload=self._object(struct, fields, fields),
            example=example,
        )
        return name

    def _refusal(
        self,
        name: str,
        title: str,
        summary: str,
        errors: Iterable[type[ReiletaError]],
        of: str | None,
    ) -> None:
        several = tuple(errors)
        meanings = ", ".join(f"{error.code} {error.message}" for error in several)
        error = {
            "allOf": [self._schemas.of(ErrorView)],
            "description": f"One of: {meanings}.",
            ERROR_CODES: sorted({error.code for error in several}),
        }
        command = {} if of is None else {"command": _constant(of)}
        first = {"code": several[0].code, "message": several[0].message}
        self._message(
            name,
            title=title,
            summary=summary,
            payload=self._object(
                self._channel.response,
                ("state", "command", "subgroup", "error"),
                ("error",) if of is None else ("command", "error"),
                error=error,
                **command,
            ),
            example={"error": first} if of is None else {"state": 1, "command": of, "error": first},
        )

    def _request(self, command: Command) -> Json:
        channel = self._channel
        data = self._schemas.of(command.takes)
        if channel.data_field == "payload":
            request = self._schemas.component(channel.request)
            required = request["required"]
            return self._object(channel.request, request["properties"], required, payload=data)
        names, required = ["state", "command"], ["command"]
        if command.subgroup != "none":
            names.append("subgroup")
        if command.subgroup == "instance":
            required.append("subgroup")
        takes = command.takes
        needed = takes is not None and bool(self._schemas.component(takes).get("required"))
        if needed and command.subgroup != "instance or data":
            required.append("data")
        payload = self._object(
            channel.request,
            (*names, *command.options, "data"),
            required,
            command=_constant(command.name),
            data=data,
        )
        if command.subgroup == "instance or data":
            payload.update(either("data", "subgroup"))
        return payload

    def _event_payload(self, event: Event, data: Json) -> Json:
        channel = self._channel
        fixed = {name: _constant(value) for name, value in event.fixed.items()}
        if channel.data_field == "payload":
            fields = self._schemas.component(channel.response)["properties"]
            return self._object(channel.response, fields, fields, payload=data, **fixed)
        subgroup: Json = {}
        if event.subgroup is not None:
            subgroup = {"subgroup": {"type": "string", "description": _sentence(event.subgroup)}}
        names = ("command", *subgroup, "data")
        command = _constant(event.name)
        return self._object(
            channel.response, names, names, command=command, data=data, **subgroup, **fixed
        )

    def _event_example(self, event: Event, data: Any) -> Json:
        channel = self._channel
        if channel.data_field == "payload":
            return {**channel.commands[0].example, **event.fixed, "payload": data}
        where = {}
        if event.subgroup is not None:
            where = {"subgroup": data.get("id", channel.subgroup_example)}
        return {"command": event.name, **where, "data": data}

    def _object(
        self, struct: Any, names: Iterable[str], required: Iterable[str], **instead: Json
    ) -> Json:
        """An object with some fields of a struct; `instead` are the schemas that differ there."""
        fields = self._schemas.component(struct)["properties"]
        return {
            "type": "object",
            "properties": {name: instead.get(name, fields.get(name, {})) for name in names},
            "required": list(required),
        }

    # References --------------------------------------------------------------------------------

    def _channel_ref(self) -> Json:
        return {"$ref": f"#/channels/{self.key}"}

    def _message_ref(self, name: str) -> Json:
        return {"$ref": f"#/channels/{self.key}/messages/{name}"}

    def _security(self) -> list[Json]:
        return [{"$ref": f"#/components/securitySchemes/{name}"} for name in self._channel.security]


def operations_of(document: Mapping[str, Any], channel: str, action: str) -> dict[str, Json]:
    """The operations of a channel with that action, by name."""
    ref = f"#/channels/{channel}"
    return {
        name: operation
        for name, operation in document["operations"].items()
        if operation["channel"]["$ref"] == ref and operation["action"] == action
    }


def message_of(document: Mapping[str, Any], reference: Json) -> Json:
    """The message that an operation refers to, by way of its channel."""
    name = reference["$ref"].rpartition("/")[2]
    found: Json = document["components"]["messages"][name]
    return found


def payload_of(document: Mapping[str, Any], message: Json) -> Json:
    """The schema of a message's payload."""
    found: Json = document["components"]["schemas"][name_in(message["payload"])]
    return found


def _constant(value: str) -> Json:
    return {"type": "string", "const": value}


def _code(error: type[ReiletaError]) -> Json:
    return {"code": error.code, "message": error.message}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
