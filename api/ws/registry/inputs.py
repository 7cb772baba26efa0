"""The input models of the commands on `/api/ws`."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Raw
from pydantic import BeforeValidator, ConfigDict, Field, StrictInt, model_validator
from pydantic.json_schema import WithJsonSchema

from actors.console.console import TopicName
from actors.console.live import InstanceSort, Order
from api.moderation_input import ModerateInput
from api.ws.declarations import ALL
from api.ws.registry.events import EVENTS
from reileta.ids import is_id
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
from reileta.rules.instance.interest import Interest

__all__ = [
    "AdminTopicInput",
    "AdminWatchInput",
    "AuthenticateInput",
    "InstanceInput",
    "InterestInput",
    "ModerateInput",
    "PingInput",
    "ResourceInput",
    "TopicInput",
]

ADDRESS_LIMIT: Final = 512
"""Characters of an `id@server`."""
LEAST_RATE: Final = 0.1
MOST_RATE: Final = 100.0
MOST_RADIUS: Final = 1e9
NEAR_LIMIT: Final = 256
"""Players that a socket can name as near."""
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


def is_rate(number: object) -> bool:
    """Whether it can be a number of values per key and second."""
    return (
        isinstance(number, int | float)
        and not isinstance(number, bool)
        and LEAST_RATE <= number <= MOST_RATE
    )


Rate = Annotated[
    float,
    checked(is_rate, f"must be a number from {LEAST_RATE:g} to {MOST_RATE:g}"),
    WithJsonSchema({"type": "number", "minimum": LEAST_RATE, "maximum": MOST_RATE}),
]


def _near(value: object) -> object:
    """Checks a radius, or the ids of near players, all of them at once."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 < value <= MOST_RADIUS:
            raise fault(f"must be an array of player ids, or a radius up to {MOST_RADIUS:g}")
        return float(value)
    if not isinstance(value, list):
        raise fault("must be an array of player ids, or a radius")
    if len(value) > NEAR_LIMIT:
        raise fault(f"must have at most {NEAR_LIMIT} player ids")
    for number, one in enumerate(value):
        if not isinstance(one, str) or not is_id(one, "p"):
            raise fault("must be a player's id", field=str(number))
    return frozenset(value)


Near = Annotated[
    frozenset[str] | float,
    BeforeValidator(_near),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}, "maxItems": NEAR_LIMIT},
                {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_RADIUS},
            ]
        }
    ),
]


class InterestInput(Input):
    """How many values of other players a socket gets. An empty object: all of them."""

    rate: Rate | None = Field(
        default=None,
        description="At most so many values per key and second of each player; with `near`: of each"
        " near player. Without it, all of them.",
        examples=[10],
    )
    near: Near | None = Field(
        default=None,
        description="The ids of the players who are near; all others are far. Or a radius: players"
        " within it are near, by the positions that they publish under the instance's"
        " `position_key`.",
        examples=[["p_3eb682d3-0a6f-4c5c-9a3c-1c2b1d7a3a10"]],
    )
    far_rate: Rate | None = Field(
        default=None,
        description="At most so many values per key and second of each far player.",
        examples=[1],
    )

    @model_validator(mode="after")
    def _fits_together(self) -> InterestInput:
        if self.near is not None and self.far_rate is None:
            raise fault("is required with near", field="far_rate")
        if self.near is None and self.far_rate is not None:
            raise fault("is required with far_rate", field="near")
        if self.rate is not None and self.far_rate is not None and self.far_rate > self.rate:
            raise fault("must be at most rate", field="far_rate")
        return self

    def interest(self) -> Interest:
        """The input, as the rules have it."""
        return Interest(self.rate, self.near, self.far_rate)


class InstanceInput(Input):
    """The instance that a command is about."""

    instance: InstanceRef = Field(
        description="An id or a name, with or without `@server`.", examples=["picnic"]
    )
