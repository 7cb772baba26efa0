"""The input models of the commands on `/api/ws`."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Raw
from pydantic import ConfigDict, Field, StrictInt, model_validator
from pydantic.json_schema import WithJsonSchema

from actors.console.console import TopicName
from actors.console.live import InstanceSort, Order
from api.moderation_input import ModerateInput
from api.ws.declarations import ALL
from api.ws.registry.events import EVENTS
from reileta.protocol.input_types import (
    DEFAULT_PAGE,
    Input,
    Limit,
    Reference,
    checked,
    fault,
)
from reileta.protocol.session_frames import RESOURCE_ID_LIMIT
from reileta.rules.console.listing import REACH

__all__ = [
    "AdminTopicInput",
    "AdminWatchInput",
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


class AdminTopicInput(Input):
    """What an admin looks at."""

    topic: TopicName = Field(description="What to show.")
    node: Reference | None = Field(
        default=None,
        description="For figures, actors and traces: the node's id; without it, the node of the"
        " socket.",
    )
    instance: Reference | None = Field(default=None, description="For `instance`: its id.")
    sort: InstanceSort = Field(default="connected", description="For `instances`: the order.")
    order: Order = Field(default="desc", description="For `instances`: its direction.")
    query: Reference | None = Field(
        default=None, description="For `instances`: text in ids, names, titles, worlds and owners."
    )
    limit: Limit = Field(default=DEFAULT_PAGE, description="For `instances`.")
    offset: Annotated[StrictInt, Field(ge=0, le=REACH - 100)] = Field(
        default=0, description="For `instances`."
    )

    @model_validator(mode="after")
    def _names_its_instance(self) -> AdminTopicInput:
        if self.topic == "instance" and not self.instance:
            raise fault("must be the id of an instance", field="instance")
        return self


class AdminWatchInput(Input):
    """What to watch, and how often it is sent."""

    topics: list[AdminTopicInput] = Field(
        max_length=8,
        description="At most one of each topic. Without any, the watch ends.",
        examples=[[{"topic": "figures"}]],
    )
    every_ms: StrictInt = Field(
        default=1000, ge=500, le=60_000, description="Milliseconds between two events."
    )

    @model_validator(mode="after")
    def _has_each_once(self) -> AdminWatchInput:
        names = [one.topic for one in self.topics]
        if len(set(names)) < len(names):
            raise fault("must not have a topic twice", field="topics")
        return self


class InstanceInput(Input):
    """The instance that a command is about."""

    instance: InstanceRef = Field(
        description="An id or a name, with or without `@server`.", examples=["picnic"]
    )
