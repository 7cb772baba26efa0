"""The data of events about resources, for the WebSockets of both APIs.

`actors/resource/snapshot.py` and `actors/resource/frames.py` make it by hand; tests hold it to the
structs here.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta.protocol.views.registry import Title
from reileta.protocol.views.session import AccountView, Iso

Number = Annotated[int, Meta(description="The resource's id", examples=[17])]
TypeName = Annotated[str, Meta(description="The resource's type", examples=["document"])]


WatcherAccess = Literal["view", "preview"]
UnwatchReason = Literal["deleted", "unshared", "hidden", "failed"]
QueueEndReason = Literal[
    "acquired",
    "withdrawn",
    "expired",
    "away",
    "holds",
    "refused",
    "ended",
    "deleted",
    "failed",
]


class ResourceRefView(Struct):
    """A resource, by its type and id."""

    type: TypeName
    id: Number


class HolderView(Struct):
    """The session that holds a resource."""

    user: Annotated[AccountView | None, Meta(description="Its user")]
    session: Annotated[
        str | None, Meta(description="Null for users who may not acquire the resource")
    ]


class ResourceUpdatedView(Struct, kw_only=True, rename={"from_": "from"}):
    """A resource as a watcher sees it: the preview of its type, and the fields below.

    A watcher who may acquire the resource also gets its view: whole in `view`, or as the merge
    patch that turns the view of version `from` into that of `version`.
    """

    type: TypeName
    id: Number
    title: Annotated[Title, Meta(examples=["Front door"])]
    version: Annotated[int, Meta(description="Each change adds 1", examples=[4])]
    owner: Annotated[
        AccountView | None, Meta(description="null after the owner's account was deleted")
    ]
    created_at: Iso
    updated_at: Iso
    holder: Annotated[HolderView | None, Meta(description="Null: no session holds it")]
    access: Annotated[WatcherAccess, Meta(description="What the watcher may see of it")]
    view: Annotated[dict[str, Any], Meta(description="As `GET …/view` answers it")] | UnsetType = (
        UNSET
    )
    patch: (
        Annotated[dict[str, Any], Meta(description="A merge patch (RFC 7396) of the view")]
        | UnsetType
    ) = UNSET
    from_: Annotated[int, Meta(description="The version that `patch` applies to")] | UnsetType = (
        UNSET
    )


class ResourceUnwatchedView(Struct, kw_only=True):
    """A watch that ended, and why."""

    type: TypeName
    id: Number
    reason: Annotated[
        UnwatchReason,
        Meta(
            description="`deleted`: the resource was deleted. `unshared`: the sharing with the user"
            " was ended. `hidden`: the user lost the right to see it. `failed`: the server failed"
        ),
    ]


class ResourceQueueView(Struct, kw_only=True):
    """The session's place in a waiting line."""

    type: TypeName
    id: Number
    position: Annotated[
        int | None, Meta(description="1 is the first; null: the session no longer waits")
    ]
    offered_until: Annotated[
        Iso | None, Meta(description="Until then, only this session can acquire the resource")
    ]
    reason: Annotated[
        QueueEndReason | None,
        Meta(description="Why it no longer waits; null while it waits"),
    ]


EXAMPLE_TIME: Final = "2026-09-21T14:13:20.000000+0000"
EXAMPLE_ACCOUNT: Final = {
    "id": 7,
    "username": "ada",
    "display_name": "Ada L.",
    "email": None,
    "autopilot": False,
    "admin": False,
}
WATCHED: Final = {
    "type": "document",
    "id": 17,
    "title": "Front door",
    "version": 3,
    "owner": EXAMPLE_ACCOUNT,
    "created_at": EXAMPLE_TIME,
    "updated_at": EXAMPLE_TIME,
    "holder": {"user": EXAMPLE_ACCOUNT, "session": "s_0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"},
    "access": "view",
    "view": {
        "id": 17,
        "type": "document",
        "title": "Front door",
        "version": 3,
        "data": {"width": 80},
        "owner": EXAMPLE_ACCOUNT,
        "created_at": EXAMPLE_TIME,
        "updated_at": EXAMPLE_TIME,
    },
}
"""The answer to `watch`."""
UPDATED: Final = {
    **{name: value for name, value in WATCHED.items() if name != "view"},
    "version": 4,
    "from": 3,
    "patch": {"version": 4, "data": {"width": 91.5}},
}
UNWATCHED: Final = {"type": "document", "id": 17, "reason": "unshared"}
PLACE: Final = {
    "type": "document",
    "id": 17,
    "position": 1,
    "offered_until": EXAMPLE_TIME,
    "reason": None,
}

UPDATED_TEXT: Final = (
    "A resource that the socket watches has a new version, title, owner or holder, or the user may"
    " see more or less of it. Several changes in a row can come as one event."
)
UNWATCHED_TEXT: Final = "A watch has ended, and `reason` says why."
QUEUE_TEXT: Final = (
    "The session's place in the waiting line of a resource changed; the resource is offered to it"
    " (`offered_until`); or it no longer waits (`reason`)."
)
