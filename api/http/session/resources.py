"""`/resource/…`: what sessions acquire, release, read and write (S, PROTOCOL §8).

What changes who has a resource, or what it holds, goes through the session's actor, one errand at a
time; looking does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta, Struct
from pydantic import Field

from actors.runtime.errors import ActorStopped
from actors.runtime.message import Request
from actors.session.messages import AcquireResource, DeleteResource, ReleaseResource, WriteResource
from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import find_user, own_server
from api.http.pagination import Search
from reileta.errors import (
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
from reileta.protocol.views.session import preview_view, resource_view
from reileta.records import Resource
from reileta.rules.resource.resource import Claimant, ResourceKey
from reileta.rules.resource.types import DATA_LIMIT_BYTES, WORLD, Content
from reileta.settings import KIB

T = TypeVar("T")

BODY_LIMIT_BYTES: Final = DATA_LIMIT_BYTES + 4 * KIB
"""The data as large as it may be, and what stands around it."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
_VERSION: Final = re.compile(r'(?:W/)?"?([0-9]{1,18})"?')
_UNKNOWN: Final = (ResourceTypeUnknown, ResourceInvalid, ResourceNotFound)
"""What the path of a resource can be refused with."""
_EXAMPLE: Final = {"id": 17, "type": "document", "title": "Front door", "version": 1}

AnyResource = Annotated[dict[str, Any], Meta(extra_json_schema={"examples": [_EXAMPLE]})]


class ResourceCreate(Input):
    """A new resource, the asker's own."""

    title: Title
    data: Any = Field(default=None, description="Any JSON that the type takes, up to 256 KiB.")


class ResourcePatch(Input):
    """A JSON merge patch (RFC 7396) of title and data; what is left out stays as it is."""

    title: Title = Field(default_factory=str)
    data: Any = Field(default=None, description="Objects are merged, null takes a member out.")


class Share(Input):
    """With whom."""

    user: Reference = Field(examples=["ada"])


class ResourceAnswer(Struct):
    """A resource, or null where there is none any more."""

    resource: AnyResource | None


class ResourcesAnswer(Struct):
    """A page of resources."""

    resources: tuple[AnyResource, ...]
    total: int
    limit: int
    offset: int


def resource_routes(edge: ApiDeps) -> Routes:
    """The endpoints of resources."""
    node = edge.node
    resources, users = node.store.resources, node.store.users
    types = resources.types
    routes = Routes("resources", edge, invalid=ResourceInvalid, face="session")

    def who(call: RequestContext) -> Claimant:
        by = call.by
        return Claimant(by.session_id, by.user.id, call.admin, by.user.autopilot)

    def named(call: RequestContext) -> ResourceKey:
        text = call.args["number"]
        if _NUMBER.fullmatch(text) is None:
            raise ResourceInvalid.field("id", "must be an integer")
        return ResourceKey(types.of(call.args["type"]).name, int(text))

    def version(call: RequestContext) -> int | None:
        given = call.request.headers.get("If-Match")
        if given is None or given.strip() == "*":
            return None
        match = _VERSION.fullmatch(given.strip())
        if match is None:
            raise ResourceInvalid.field("If-Match", 'must be a version, such as "3"')
        return int(match[1])

    async def seen(record: Resource) -> dict[str, Any]:
        owner = await users.by_id(record.owner)
        return resource_view(record, types.of(record.type), owner)

    async def previewed(record: Resource) -> dict[str, Any]:
        owner = await users.by_id(record.owner)
        return preview_view(record, types.of(record.type), owner)

    async def errand(call: RequestContext, make: Callable[[], Request[T]]) -> T:
        """Asks the session's actor; one that is just being put away is started again."""
        session = await node.session(call.by)
        try:
            return await session.ask(make())
        except ActorStopped:
            session = await node.session(call.by)
            return await session.ask(make())

    async def told(record: Resource) -> None:
        """A world is R's as well: whoever watches it hears of the change."""
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
    async def create_resource(call: RequestContext, given: ResourceCreate) -> ResourceAnswer:
        """Makes a resource that belongs to the asker. Nobody has acquired it."""
        kind = types.of(call.args["type"])
        record = await resources.create(kind.name, who(call), Content(given.title, given.data))
        await told(record)
        return ResourceAnswer(await seen(record))

    @routes.add(
        "GET",
        "/resource/<type>",
        summary="List resources",
        takes=Search,
        gives=ResourcesAnswer,
        need="required",
        errors=(ResourceTypeUnknown, ResourceInvalid, ServerNotFound),
    )
    async def list_resources(call: RequestContext, given: Search) -> ResourcesAnswer:
        """Previews of those that the asker may see: its own, those shared with it, and public
        ones; an admin sees all."""
        kind = types.of(call.args["type"])
        own_server(node, call)
        page = await resources.search(
            kind.name,
            who(call),
            query=given.query,
            limit=given.limit,
            offset=given.offset,
        )
        owners = await users.many({one.owner for one in page.items})
        shown = tuple(
            preview_view(one, types.of(one.type), owners.get(one.owner)) for one in page.items
        )
        return ResourcesAnswer(shown, page.total, page.limit, page.offset)

    @routes.add(
        "POST",
        "/resource/<type>/<number>/acquire",
        summary="Acquire a resource",
        gives=ResourceAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceHeld, ResourceTaken, SessionNotFound),
    )
    async def acquire_resource(call: RequestContext) -> ResourceAnswer:
        """The session gets the resource, if it has none and no other session has it."""
        name = named(call)
        held = await errand(call, lambda: AcquireResource(name, who(call)))
        return ResourceAnswer(await seen(held.resource))

    @routes.add(
        "POST",
        "/resource/<type>/<number>/release",
        summary="Release a resource",
        gives=ResourceAnswer,
        need="required",
        only="client",
        errors=(*_UNKNOWN, PermissionDenied, ResourceTaken),
    )
    async def release_resource(call: RequestContext) -> ResourceAnswer:
        """The session has the resource no more; when nobody had it, nothing happens."""
        name = named(call)
        await errand(call, lambda: ReleaseResource(name, who(call)))
        return ResourceAnswer(None)

    @routes.add(
        "GET",
        "/resource/<type>/<number>/preview",
        summary="Preview a resource",
        gives=ResourceAnswer,
        need="required",
        errors=(*_UNKNOWN, PermissionDenied),
    )
    async def preview_resource(call: RequestContext) -> ResourceAnswer:
        """What may be seen of it without having acquired it, also while another session has it."""
        found = await resources.get(named(call))
        found.ensure_visible(who(call))
        return ResourceAnswer(await previewed(found.record))

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
        """All of it, for the session that has acquired it."""
        found = await resources.get(named(call))
        found.ensure_may(who(call))
        found.ensure_held(who(call), found.lease.fence)
        return ResourceAnswer(await seen(found.record))

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
    )
    async def write_resource(call: RequestContext, given: ResourcePatch) -> ResourceAnswer:
        """Changes title and data by a JSON merge patch, for the session that has acquired it;
        with `If-Match: "version"`, if it is of that version still."""
        name, if_version = named(call), version(call)
        patch = given.given()
        record = await errand(call, lambda: WriteResource(name, who(call), patch, if_version))
        await told(record)
        return ResourceAnswer(await seen(record))

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
        """Deletes it, for the session that has acquired it; its owner and admins may."""
        name, if_version = named(call), version(call)
        await errand(call, lambda: DeleteResource(name, who(call), if_version))
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
    async def share_resource(call: RequestContext, given: Share) -> ResourceAnswer:
        """Lets another user acquire it, too; its owner and admins may."""
        user = await find_user(node, call, given.user)
        record = await resources.share(named(call), who(call), user.id)
        return ResourceAnswer(await previewed(record))

    @routes.add(
        "POST",
        "/resource/<type>/<number>/unshare",
        summary="Share a resource no more",
        takes=Share,
        gives=ResourceAnswer,
        need="required",
        errors=(*_UNKNOWN, PermissionDenied, UserNotFound, ServerNotFound),
    )
    async def unshare_resource(call: RequestContext, given: Share) -> ResourceAnswer:
        """Takes that back; a session of the user's that has it loses it. The user itself may.
        The answer is null if the asker may not see the resource afterwards."""
        user = await find_user(node, call, given.user)
        record, lost = await resources.unshare(named(call), who(call), user.id)
        if lost is not None:
            node.resource_lost(lost)
        return ResourceAnswer(None if record is None else await previewed(record))

    return routes
