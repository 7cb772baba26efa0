"""Resource endpoints of the session API: `/resource/…`.

Acquiring, releasing, writing and deleting go through the session's actor, one job at a time.
Reading asks the database directly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType
from pydantic import BeforeValidator, Field
from pydantic.json_schema import WithJsonSchema

from actors.runtime.errors import ActorStopped
from actors.runtime.message import Request
from actors.session.messages import AcquireResource, DeleteResource, ReleaseResource, WriteResource
from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server, find_user
from api.http.pagination import Search, next_of
from reileta.errors import (
    NotQueued,
    PayloadTooLarge,
    PermissionDenied,
    QuotaReached,
    ResourceHeld,
    ResourceInvalid,
    ResourceNotAcquired,
    ResourceNotFound,
    ResourceTaken,
    ResourceTypeUnknown,
    ServerNotFound,
    SessionNotFound,
    UserNotFound,
    VersionConflict,
)
from reileta.protocol.input_types import Input, Reference, Title
from reileta.protocol.session_frames import iso
from reileta.protocol.views.registry import NextCursor
from reileta.protocol.views.session import (
    Iso,
    ResourceMetadata,
    ResourceView,
    metadata_view,
    preview_view,
    resource_view,
)
from reileta.records import ResourceRecord
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import DATA_LIMIT_BYTES, WORLD, Content
from reileta.settings import KIB

T = TypeVar("T")

BODY_LIMIT_BYTES: Final = DATA_LIMIT_BYTES + 4 * KIB
"""The largest data, and 4 KiB for the JSON around it."""
_NUMBER: Final = re.compile(r"0|-?[1-9][0-9]*")
"""An id has one spelling: `04` and `+4` are not other names of 4."""
_NUMBER_DIGITS: Final = 18
"""Ids have at most so many digits. A longer integer names nothing."""
_VERSION: Final = re.compile(r'(?:W/)?"?(0|[1-9][0-9]{0,17})"?')
_UNKNOWN: Final = (ResourceTypeUnknown, ResourceInvalid, ResourceNotFound)
"""Errors of every path that names a resource."""


class ResourceCreate(Input):
    """A new resource. The caller becomes its owner."""

    title: Title
    data: Any = Field(default=None, description="Any JSON that the type accepts, up to 256 KiB.")


class ResourcePatch(Input):
    """A JSON merge patch (RFC 7396) of title and data. Fields that are left out keep their
    values."""

    title: Title = Field(default_factory=str)
    data: Any = Field(default=None, description="Objects are merged; null removes a member.")


class Share(Input):
    """The user to share with."""

    user: Reference = Field(description="By id, `id@server` or username.", examples=["ada"])


def _flag(text: Any) -> Any:
    """A query's `true` or `false`."""
    return {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text


Flag = Annotated[bool, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})]


class PreviewQuery(Input):
    """How much to show."""

    data: Flag = Field(
        default=False,
        description="Show the whole view to users who may acquire the resource, as watchers get"
        " it; others get the preview.",
    )


class ResourcePlaceView(Struct):
    """The session's place in the waiting line of a resource."""

    position: Annotated[int, Meta(description="1 is the first", ge=1)]
    offered_until: Annotated[
        Iso | None, Meta(description="Until then, only this session can acquire the resource")
    ]


class ResourceQueueAnswer(Struct):
    """The session's place; null: the session no longer waits."""

    queue: Annotated[ResourcePlaceView | None, Meta(description="Null: it does not wait")]


class ResourceAnswer(Struct):
    """A resource; null if there is none any more."""

    resource: Annotated[ResourceView | None, Meta(description="The resource")]


class MetadataAnswer(Struct):
    """The metadata of a resource; null if the caller can't see the resource any more."""

    resource: Annotated[ResourceMetadata | None, Meta(description="The resource's metadata")]


class ResourcesAnswer(Struct):
    """A page of resources."""

    resources: Annotated[tuple[ResourceView, ...], Meta(description="The page")]
    total: Annotated[int, Meta(description="How many resources match")]
    limit: Annotated[int, Meta(description="As requested")]
    offset: Annotated[int, Meta(description="As requested")]
    next: NextCursor | UnsetType = UNSET


def resource_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints of resources."""
    node = deps.node
    resources, users, live = node.store.resources, node.store.users, node.resources
    types = resources.types
    routes = Routes("resources", deps, invalid=ResourceInvalid, api="session")

    def key_of(call: RequestContext) -> ResourceKey:
        text = call.args["number"]
        if _NUMBER.fullmatch(text) is None:
            raise ResourceInvalid.field("id", "must be an integer, such as 17")
        name = types.of(call.args["type"]).name
        if len(text.lstrip("-")) > _NUMBER_DIGITS:
            raise ResourceNotFound
        return ResourceKey(name, int(text))

    def version(call: RequestContext) -> int | None:
        if_match = call.request.headers.get("If-Match")
        if if_match is None or if_match.strip() == "*":
            return None
        match = _VERSION.fullmatch(if_match.strip())
        if match is None:
            raise ResourceInvalid.field("If-Match", 'must be a version, such as "3"')
        return int(match[1])

    async def full_view(record: ResourceRecord) -> ResourceView:
        owner = await users.by_id(record.owner)
        return resource_view(record, types.of(record.type), owner)

    async def preview(record: ResourceRecord) -> ResourceView:
        owner = await users.by_id(record.owner)
        return preview_view(record, types.of(record.type), owner)

    async def metadata(record: ResourceRecord) -> ResourceMetadata:
        return metadata_view(record, await users.by_id(record.owner))

    async def ask_session(call: RequestContext, make: Callable[[], Request[T]]) -> T:
        """Asks the session's actor. Starts it again if it stops at that moment."""
        session = await node.sessions.live(call.by)
        try:
            return await session.ask(make())
        except ActorStopped:
            session = await node.sessions.live(call.by)
            return await session.ask(make())

    async def publish_world(record: ResourceRecord) -> None:
        """Publishes the change of a world to subscribers of the registry API, too."""
        if record.type == WORLD:
            world = await node.store.worlds.by_number(record.number)
            if world is not None:
                node.changed("world", world)

    @routes.add(
        "POST",
        "/resource/<type>",
        summary="Create a resource",
        takes=ResourceCreate,
        gives=ResourceAnswer,
        need="required",
        errors=(
            ResourceTypeUnknown,
            ResourceInvalid,
            PayloadTooLarge,
            PermissionDenied,
            QuotaReached,
        ),
        body_limit_bytes=BODY_LIMIT_BYTES,
    )
    async def create_resource(call: RequestContext, params: ResourceCreate) -> ResourceAnswer:
        """Creates a resource. The caller becomes its owner. No session has acquired it yet."""
        kind = types.of(call.args["type"])
        record = await resources.create(
            kind.name, call.by.as_claimant(), Content(params.title, params.data)
        )
        await publish_world(record)
        return ResourceAnswer(await full_view(record))

    @routes.add(
        "GET",
        "/resource/<type>",
        summary="List resources",
        takes=Search,
        gives=ResourcesAnswer,
        need="required",
        errors=(ResourceTypeUnknown, ResourceInvalid, ServerNotFound),
    )
    async def list_resources(call: RequestContext, params: Search) -> ResourcesAnswer:
        """Lists previews of the resources that the caller may see: its own, those shared with it,
        and public ones. Admins see all."""
        kind = types.of(call.args["type"])
        ensure_own_server(node, call)
        page = await resources.search(
            kind.name,
            call.by.as_claimant(),
            query=params.query,
            limit=params.limit,
            offset=params.offset,
            after=params.after,
        )
        owners = await users.many({record.owner for record in page.items})
        previews = tuple(
            preview_view(record, types.of(record.type), owners.get(record.owner))
            for record in page.items
        )
        return ResourcesAnswer(previews, page.total, page.limit, page.offset, next_of(page))

    @routes.add(
        "POST",
        "/resource/<type>/<number>/acquire",
        summary="Acquire a resource",
        gives=MetadataAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceHeld, ResourceTaken, SessionNotFound),
    )
    async def acquire_resource(call: RequestContext) -> MetadataAnswer:
        """Acquires the resource for the caller's session, if the session holds none and no other
        session holds this one. The answer holds its metadata; the view has all of it."""
        key = key_of(call)
        held = await ask_session(call, lambda: AcquireResource(key, call.by.as_claimant()))
        return MetadataAnswer(await metadata(held.resource))

    @routes.add(
        "POST",
        "/resource/<type>/<number>/release",
        summary="Release a resource",
        gives=MetadataAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceTaken),
        audited=False,
    )
    async def release_resource(call: RequestContext) -> MetadataAnswer:
        """Releases the resource. If no session holds it, nothing happens. The answer holds its
        metadata, or null if the caller can't see the resource any more."""
        key = key_of(call)
        await ask_session(call, lambda: ReleaseResource(key, call.by.as_claimant()))
        try:
            released = await resources.get(key)
        except ResourceNotFound:  # deleted meanwhile
            return MetadataAnswer(None)
        seen = released.visible_to(call.by.as_claimant())
        return MetadataAnswer(await metadata(released.record) if seen else None)

    @routes.add(
        "POST",
        "/resource/<type>/<number>/queue",
        summary="Wait for a resource",
        gives=ResourceQueueAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceHeld, QuotaReached, SessionNotFound),
    )
    async def queue_for_resource(call: RequestContext) -> ResourceQueueAnswer:
        """Puts the caller's session at the end of the waiting line of the resource; a session that
        waits already keeps its place. When the resource is free and the session is the first, it
        is offered to the session for a while: `acquire` takes it. The event `resource-queue` has
        each new place."""
        place = await live.queue(key_of(call), call.by.as_claimant())
        until = place.offered_until
        return ResourceQueueAnswer(
            ResourcePlaceView(place.position, None if until is None else iso(until))
        )

    @routes.add(
        "DELETE",
        "/resource/<type>/<number>/queue",
        summary="Stop waiting for a resource",
        gives=ResourceQueueAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, NotQueued),
    )
    async def leave_resource_queue(call: RequestContext) -> ResourceQueueAnswer:
        """Takes the caller's session out of the waiting line. An offer goes on to the next."""
        await live.unqueue(key_of(call), call.by.as_claimant())
        return ResourceQueueAnswer(None)

    @routes.add(
        "GET",
        "/resource/<type>/<number>/preview",
        summary="Preview a resource",
        takes=PreviewQuery,
        gives=ResourceAnswer,
        need="required",
        errors=(*_UNKNOWN, PermissionDenied),
    )
    async def preview_resource(call: RequestContext, params: PreviewQuery) -> ResourceAnswer:
        """Returns the part that can be seen without acquiring the resource, even while another
        session holds it. With `data`, users who may acquire it get the whole view: that is how a
        watcher closes a gap in the versions."""
        resource = await live.read(key_of(call))
        resource.ensure_visible(call.by.as_claimant())
        if params.data and resource.may(call.by.as_claimant()):
            return ResourceAnswer(await full_view(resource.record))
        return ResourceAnswer(await preview(resource.record))

    @routes.add(
        "GET",
        "/resource/<type>/<number>/view",
        summary="View a resource",
        gives=ResourceAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceTaken, ResourceNotAcquired),
    )
    async def view_resource(call: RequestContext) -> ResourceAnswer:
        """Returns the whole resource, for the session that has acquired it."""
        resource = await live.read(key_of(call))
        resource.ensure_may(call.by.as_claimant())
        resource.ensure_held(call.by.as_claimant(), resource.lease.fence)
        return ResourceAnswer(await full_view(resource.record))

    @routes.add(
        "PATCH",
        "/resource/<type>/<number>",
        summary="Write a resource",
        takes=ResourcePatch,
        gives=ResourceAnswer,
        need="required",
        only="client",
        errors=(
            *_UNKNOWN,
            PayloadTooLarge,
            PermissionDenied,
            ResourceTaken,
            ResourceNotAcquired,
            VersionConflict,
            QuotaReached,
        ),
        body_limit_bytes=BODY_LIMIT_BYTES,
        audited=False,
    )
    async def write_resource(call: RequestContext, params: ResourcePatch) -> ResourceAnswer:
        """Changes title and data with a JSON merge patch, for the session that has acquired the
        resource. `If-Match: "version"` refuses the change if the version is a different one."""
        key, if_version = key_of(call), version(call)
        patch = params.given()
        record = await ask_session(
            call, lambda: WriteResource(key, call.by.as_claimant(), patch, if_version)
        )
        await publish_world(record)
        return ResourceAnswer(await full_view(record))

    @routes.add(
        "DELETE",
        "/resource/<type>/<number>",
        summary="Delete a resource",
        gives=ResourceAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceTaken, ResourceNotAcquired, VersionConflict),
    )
    async def delete_resource(call: RequestContext) -> ResourceAnswer:
        """Deletes the resource. The caller's session must have acquired it, and the caller must be
        its owner or an admin."""
        key, if_version = key_of(call), version(call)
        await ask_session(call, lambda: DeleteResource(key, call.by.as_claimant(), if_version))
        return ResourceAnswer(None)

    @routes.add(
        "POST",
        "/resource/<type>/<number>/share",
        summary="Share a resource",
        takes=Share,
        gives=ResourceAnswer,
        need="required",
        errors=(*_UNKNOWN, PermissionDenied, UserNotFound, ServerNotFound, QuotaReached),
    )
    async def share_resource(call: RequestContext, params: Share) -> ResourceAnswer:
        """Lets another user acquire the resource, too. The owner and admins may do this."""
        key, user = key_of(call), await find_user(node, call, params.user)
        record = await live.share(key, call.by.as_claimant(), user.id)
        return ResourceAnswer(await preview(record))

    @routes.add(
        "POST",
        "/resource/<type>/<number>/unshare",
        summary="Stop sharing a resource",
        takes=Share,
        gives=ResourceAnswer,
        need="required",
        errors=(*_UNKNOWN, PermissionDenied, UserNotFound, ServerNotFound),
    )
    async def unshare_resource(call: RequestContext, params: Share) -> ResourceAnswer:
        """Ends the sharing with a user. If a session of that user holds the resource, it loses it.
        The owner, admins and the user itself may do this. `resource` is null if the caller can't
        see the resource any more."""
        key, user = key_of(call), await find_user(node, call, params.user)
        record, lost = await live.unshare(key, call.by.as_claimant(), user.id)
        if lost is not None:
            node.sessions.lease_lost(lost)
        return ResourceAnswer(None if record is None else await preview(record))

    return routes
