"""The input models of the commands on `/api/ws`."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Raw
from pydantic import ConfigDict, Field, StrictInt, model_validator
from pydantic.json_schema import WithJsonSchema

from api.moderation_input import ModerateInput
from api.ws.declarations import ALL
from api.ws.registry.events import EVENTS
from reileta.protocol.input_types import Input, Reference, checked, fault
from reileta.protocol.session_frames import RESOURCE_ID_LIMIT

__all__ = [
    "AuthenticateInput",
    "InstanceInput",
    "ModerateInput",
    "PingInput",
    "ResourceInput",
    "TopicInput",
]

ADDRESS_LIMIT: Final = 512
"""Characters of an `id@server`."""
TYPE_LIMIT: Final = 32
"""Characters of a resource type."""

RawJson = Annotated[Raw, WithJsonSchema({})]
"""Any JSON, as the client's bytes."""


def is_instance_ref(text: str) -> bool:
    """Whether the text can name an instance: by id or name, with or without `@server`."""
    return 1 <= len(text) <= ADDRESS_LIMIT and text.isprintable()


InstanceRef = Annotated[
    str,
    checked(is_instance_ref, "must be an instance's id or name"),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": ADDRESS_LIMIT}),
]
TOPICS: Final = (*sorted(EVENTS.names), *sorted(EVENTS.groups), ALL)
"""The names that a subscription takes."""
Topic = Annotated[str, WithJsonSchema({"type": "string", "enum": list(TOPICS)})]


class PingInput(Input):
    """A value that comes back."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    time: RawJson = Field(
        default_factory=lambda: Raw(b"null"),
        description="Comes back as `client`.",
        examples=[12],
    )


class AuthenticateInput(Input):
    """A credential: give either `token` or `integrity`. The other one may be null or empty."""

    token: str | None = Field(default=None, description="The token of a user of this server.")
    integrity: str | None = Field(
        default=None, description="The token of a user of another server."
    )

    @model_validator(mode="after")
    def _has_one_credential(self) -> AuthenticateInput:
        missing = self.token is None and self.integrity is None
        if missing or (self.token and self.integrity):
            raise fault("give either `token` or `integrity`", field="token")
        return self


class TopicInput(Input):
    """The events of a subscription."""

    event: Topic = Field(description="An event, a group of events, or `all`.")
    target: Reference | None = Field(
        default=None,
        description="The id of one object, or `@me`; without it, all objects.",
    )


def is_resource_type(text: str) -> bool:
    """Whether the text can name a resource type."""
    return 1 <= len(text) <= TYPE_LIMIT and text.isprintable()


class ResourceInput(Input):
    """The resource that a command is about."""

    type: Annotated[
        str,
        checked(is_resource_type, "must be a resource type"),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": TYPE_LIMIT}),
    ] = Field(description="The resource's type.", examples=["document"])
    id: StrictInt = Field(
        ge=-RESOURCE_ID_LIMIT, le=RESOURCE_ID_LIMIT, description="The resource's id.", examples=[17]
    )


class InstanceInput(Input):
    """The instance that a command is about."""

    instance: InstanceRef = Field(
        description="An id or a name, with or without `@server`.", examples=["picnic"]
    )
