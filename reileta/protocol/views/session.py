"""JSON objects of the session API.

Times are ISO 8601. Unlike in the registry API, a field that can be null is always there.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta import records
from reileta.protocol.session_frames import iso
from reileta.rules.identity import Claimant
from reileta.rules.resource.resource import Resource
from reileta.rules.resource.types import ResourceType

Iso = Annotated[str, Meta(examples=["2026-09-21T14:13:20.000000+0000"])]


class AccountView(Struct):
    """A user in the session API."""

    id: Annotated[int, Meta(examples=[7])]
    username: Annotated[str, Meta(examples=["ada"])]
    display_name: str | None
    email: str | None
    autopilot: bool
    admin: bool


class SessionView(Struct):
    """A session in the session API."""

    id: Annotated[str, Meta(examples=["s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"])]
    user: AccountView
    state: dict[str, Any]
    resource: dict[str, Any] | None


class TokenView(Struct):
    """A token in the session API. `refresh` is only there for its owner."""

    access: str
    access_expires: Iso
    refresh_expires: Iso
    killed_at: Iso | None
    session: SessionView
    refresh: str | UnsetType = UNSET


class SessionEntry(Struct):
    """A session in a user's list."""

    id: str
    created_at: int
    current: bool
    """Whether it is the session of the request."""


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


def metadata_view(record: records.ResourceRecord, owner: records.User | None) -> dict[str, Any]:
    """The metadata of a resource: the same fields for all types, without its data."""
    return {
        "id": record.number,
        "type": record.type,
        "title": record.title,
        "version": record.version,
        "owner": None if owner is None else account_view(owner, private=False),
    }


def resource_view(
    record: records.ResourceRecord, kind: ResourceType, owner: records.User | None
) -> dict[str, Any]:
    """A resource for the session that holds it, with the fields of its type."""
    return _with_owner(kind.view(record), record, owner)


def held_view(
    held: records.HeldResource | None,
    kind: ResourceType | None,
    owner: records.User | None,
    user: records.User,
) -> dict[str, Any] | None:
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
) -> dict[str, Any]:
    """A resource for everyone who can see it."""
    return _with_owner(kind.preview(record), record, owner)


def _with_owner(
    shown: dict[str, Any], record: records.ResourceRecord, owner: records.User | None
) -> dict[str, Any]:
    return {
        **shown,
        "owner": None if owner is None else account_view(owner, private=False),
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
    }


def session_view(
    id_: str,
    user: records.User,
    state: dict[str, Any],
    resource: dict[str, Any] | None,
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
