"""JSON objects of the session API.

Times are ISO 8601. Unlike in the registry API, a field that can be null is always there.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict, cast

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta import records
from reileta.protocol.session_frames import iso
from reileta.protocol.views.registry import (
    DisplayName,
    EmailAddress,
    Millis,
    SessionId,
    Title,
    Username,
)
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource
from reileta.rules.resource.types import ResourceType

Iso = Annotated[
    str, Meta(description="A time, in ISO 8601", examples=["2026-09-21T14:13:20.000000+0000"])
]


class AccountView(Struct):
    """A user in the session API."""

    id: Annotated[int, Meta(description="Its number", examples=[7])]
    username: Username
    display_name: Annotated[DisplayName | None, Meta(description="The name that others see")]
    email: Annotated[
        EmailAddress | None, Meta(description="Its e-mail address; null for others than itself")
    ]
    autopilot: Annotated[bool, Meta(description="Whether an Autopilot uses it")]
    admin: Annotated[bool, Meta(description="Whether it is an admin of this server")]


class ResourceMetadata(Struct):
    """The metadata of a resource: the same fields for all types."""

    id: Annotated[int, Meta(description="Its number", examples=[17])]
    type: Annotated[str, Meta(description="Its resource type", examples=["document"])]
    title: Annotated[Title, Meta(examples=["Front door"])]
    version: Annotated[int, Meta(description="Each change adds 1", examples=[1])]
    owner: Annotated[
        AccountView | None, Meta(description="null after the owner's account was deleted")
    ]


class ResourceView(TypedDict):
    """A resource. Those of a host's own type can have further fields.

    `data` is only there for the session that has acquired the resource.
    """

    id: Annotated[int, Meta(description="Its number", examples=[17])]
    type: Annotated[str, Meta(description="Its resource type", examples=["document"])]
    title: Annotated[Title, Meta(examples=["Front door"])]
    version: Annotated[int, Meta(description="Each change adds 1", examples=[1])]
    owner: Annotated[
        AccountView | None, Meta(description="null after the owner's account was deleted")
    ]
    created_at: Iso
    updated_at: Iso
    data: NotRequired[Annotated[Any, Meta(description="Any JSON that its type accepts")]]


class SessionView(Struct):
    """A session in the session API."""

    id: SessionId
    user: AccountView
    state: dict[str, Any]
    resource: Annotated[ResourceMetadata | None, Meta(description="The resource that it holds")]


class TokenView(Struct):
    """A token in the session API. `refresh` is only there for its owner."""

    access: Annotated[str, Meta(description="The credential", examples=["ua_5uqk0CZ1m0…"])]
    access_expires: Iso
    refresh_expires: Iso
    killed_at: Annotated[Iso | None, Meta(description="When it was revoked")]
    session: SessionView
    refresh: Annotated[str, Meta(description="What renews it, once")] | UnsetType = UNSET


class SessionEntry(Struct):
    """A session in a user's list."""

    id: SessionId
    created_at: Millis
    current: Annotated[bool, Meta(description="Whether it is the session of the request")]


def account_view(user: records.User, *, private: bool = True) -> AccountView:
    """The user; without `private`, its e-mail address is null."""
    return AccountView(
        id=user.number,
        username=user.username,
        display_name=user.displayname,
        email=user.email if private else None,
        autopilot=user.autopilot,
        admin=user.admin,
    )


def metadata_view(record: records.ResourceRecord, owner: records.User | None) -> ResourceMetadata:
    """The metadata of a resource, without its data."""
    return ResourceMetadata(
        id=record.number,
        type=record.type,
        title=record.title,
        version=record.version,
        owner=None if owner is None else account_view(owner, private=False),
    )


def resource_view(
    record: records.ResourceRecord, kind: ResourceType, owner: records.User | None
) -> ResourceView:
    """A resource for the session that holds it, with the fields of its type."""
    return _with_owner(kind.view(record), record, owner)


def held_view(
    held: records.HeldResource | None,
    kind: ResourceType | None,
    owner: records.User | None,
    user: records.User,
) -> ResourceMetadata | None:
    """The metadata of the resource that a session holds.

    None if it has none, or if its user may no longer acquire it, such as a former admin.
    """
    if held is None or kind is None:
        return None
    who = Claimant.of(user)
    if not Resource(held.resource, records.Lease(), kind).may(who):
        return None
    return metadata_view(held.resource, owner)


def preview_view(
    record: records.ResourceRecord, kind: ResourceType, owner: records.User | None
) -> ResourceView:
    """A resource for everyone who can see it."""
    return _with_owner(kind.preview(record), record, owner)


def _with_owner(
    shown: dict[str, Any], record: records.ResourceRecord, owner: records.User | None
) -> ResourceView:
    view = {
        **shown,
        "owner": None if owner is None else account_view(owner, private=False),
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
    }
    return cast(ResourceView, view)


def session_view(
    id_: str,
    user: records.User,
    state: dict[str, Any],
    resource: ResourceMetadata | None,
) -> SessionView:
    """The session."""
    return SessionView(id_, account_view(user), state, resource)


def token_view(
    token: records.Token, session: SessionView, access: str, refresh: str | UnsetType = UNSET
) -> TokenView:
    """The token, with the keys that only its owner knows."""
    return TokenView(
        access=access,
        access_expires=iso(token.access_expires),
        refresh_expires=iso(token.refresh_expires),
        killed_at=None if token.killed_at is None else iso(token.killed_at),
        session=session,
        refresh=refresh,
    )
