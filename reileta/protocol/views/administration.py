"""Views for admins: whereabouts of users, entries of the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta.protocol.views.registry import InstanceId, Millis, SessionId, Status, UserId, known
from reileta.records import AuditEntry, SessionPresence

LISTED: Final = 1000
"""Instances that the whereabouts name at most, for each session and for the queues."""


class OccupiedInstanceView(Struct, kw_only=True):
    """An instance that a session is inside."""

    instance: InstanceId
    player: (
        Annotated[str, Meta(description="Left out while the session is joining")] | UnsetType
    ) = UNSET


class SessionPresenceView(Struct, kw_only=True):
    """A session that is connected, or was a moment ago."""

    session: SessionId
    sockets: Annotated[int, Meta(description="Open WebSockets", ge=0)]
    instances: Annotated[tuple[OccupiedInstanceView, ...], Meta(description="Where it is inside")]


class WhereaboutsView(Struct, kw_only=True):
    """Where a user is."""

    user: Annotated[
        str,
        Meta(
            description="The user's id; of a guest, with its server",
            examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11"],
        ),
    ]
    status: Status
    sessions: Annotated[
        tuple[SessionPresenceView, ...], Meta(description="Connected, or a moment ago")
    ]
    queues: Annotated[
        tuple[InstanceId, ...], Meta(description="Instances in whose queue the user waits")
    ]


class AuditEntryView(Struct, kw_only=True):
    """An action of an admin, or of a command on the server's machine."""

    number: Annotated[int, Meta(ge=0, description="Newer entries have greater numbers")]
    created_at: Millis
    via: Annotated[
        Literal["http", "socket", "command"], Meta(description="The way the action came")
    ]
    by: Annotated[UserId, Meta(description="The admin; left out for a command")] | UnsetType = UNSET
    by_name: Annotated[
        str,
        Meta(
            description="The admin's username then; for a command, the name of the system's account"
        ),
    ]
    action: Annotated[
        str, Meta(description="The operation, or the command's", examples=["suspend_user"])
    ]
    target: Annotated[str, Meta(description="An id, or the reference sent")] | UnsetType = UNSET
    target_name: Annotated[str, Meta(description="A user's username then")] | UnsetType = UNSET
    details: Annotated[
        dict[str, Any], Meta(description="Names of the fields sent, and some of their values")
    ]
    result: (
        Annotated[
            Literal["done", "refused"],
            Meta(description="Left out if the server stopped before it was known"),
        ]
        | UnsetType
    ) = UNSET
    error: Annotated[int, Meta(description="The code of the error that refused it")] | UnsetType = (
        UNSET
    )


def whereabouts_view(
    user: str, status: str, sessions: Iterable[SessionPresence], queues: Iterable[str]
) -> WhereaboutsView:
    """Where a user is; `user` is a bare id."""
    return WhereaboutsView(
        user=user,
        status=status,  # type: ignore[arg-type]  # the directory's statuses
        sessions=tuple(
            SessionPresenceView(
                session=one.session,
                sockets=one.sockets,
                instances=tuple(
                    OccupiedInstanceView(instance=instance, player=known(player))
                    for instance, player in islice(one.players.items(), LISTED)
                ),
            )
            for one in sessions
        ),
        queues=tuple(islice(queues, LISTED)),
    )


def audit_entry_view(entry: AuditEntry) -> AuditEntryView:
    return AuditEntryView(
        number=entry.number,
        created_at=entry.created_at,
        via=entry.via,
        by=known(entry.by_id),
        by_name=entry.by_name,
        action=entry.action,
        target=known(entry.target),
        target_name=known(entry.target_name),
        details=dict(entry.details),
        result=known(entry.result),
        error=known(entry.error),
    )
