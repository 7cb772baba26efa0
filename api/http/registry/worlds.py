"""World endpoints: `/api/worlds`."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import ensure_own_server, find_owner, find_world, own_world, unheld
from api.http.pagination import Search, list_of
from api.http.presenters import show_world, show_worlds
from reileta.errors import (
    PermissionDenied,
    QuotaReached,
    ResourceTaken,
    ServerNotFound,
    TagUnknown,
    WorldInvalid,
    WorldNotFound,
)
from reileta.protocol.input_types import (
    Capacity,
    CreateInput,
    Description,
    Input,
    Reference,
    TagList,
    Title,
)
from reileta.protocol.views.registry import ListView, NothingView, WorldView
from reileta.rules.tags import WORLD_TAGS
from reileta.store.worlds import Worlds

DEFAULT_CAPACITY: Final = 32
DEFAULT_TITLE: Final = "New world"
_CACHED: Final = Cached(("worlds", "shares", "users", "assets", "images"))


class WorldCreate(CreateInput):
    """A new world. The caller becomes its owner."""

    title: Title = DEFAULT_TITLE
    description: Description | None = None
    capacity: Capacity = Field(
        default=DEFAULT_CAPACITY, description="Default number of seats of its instances."
    )
    tags: TagList = Field(
        default=(),
        description="Access and properties.",
        examples=[["avr:public", "avr:release"]],
        json_schema_extra=WORLD_TAGS.schema(),
    )


class WorldUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    title: Title = Field(default_factory=str)
    description: Description | None = Field(default=None, description="null removes it.")
    capacity: Capacity = Field(default_factory=int)
    tags: TagList = Field(
        default=(),
        description="The complete new list of tags.",
        json_schema_extra=WORLD_TAGS.schema(),
    )


class WorldSearch(Search):
    """Which worlds to list."""

    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    tag: Reference | None = Field(
        default=None, description="A tag that they must have.", examples=["avr:release"]
    )


def world_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that create, read, change and delete worlds."""
    node = deps.node
    worlds = node.store.worlds
    routes = Routes("worlds", deps, invalid=WorldInvalid)

    @routes.add(
        "GET",
        "/api/worlds",
        summary="Search worlds",
        takes=WorldSearch,
        gives=ListView[WorldView],
        errors=(ServerNotFound,),
        cached=_CACHED,
        remote=ListView[WorldView],
    )
    async def get_worlds(call: RequestContext, params: WorldSearch) -> ListView[WorldView]:
        """Lists worlds, newest first. Only the owner, users it is shared with and admins can see a
        private world."""
        ensure_own_server(node, call)
        page = await worlds.search(
            query=params.query,
            owner=await find_owner(node, call, params.owner),
            tag=None if params.tag is None else WORLD_TAGS.spelled(params.tag),
            viewer=None if call.user is None else call.user.id,
            admin=call.admin,
            limit=params.limit,
            offset=params.offset,
            after=params.after,
        )
        return list_of(page, await show_worlds(node, call, page.items))

    @routes.add(
        "PUT",
        "/api/worlds",
        summary="Create a world",
        guests="own",
        takes=WorldCreate,
        gives=WorldView,
        need="required",
        errors=(ServerNotFound, TagUnknown, PermissionDenied, QuotaReached),
    )
    async def create_world(call: RequestContext, params: WorldCreate) -> WorldView:
        """Creates a world. The caller becomes its owner."""
        ensure_own_server(node, call)
        world = await worlds.create(
            title=params.title,
            description=params.description or None,
            capacity=params.capacity,
            owner=call.by.user.id,
            tags=WORLD_TAGS.resolve(params.tags, admin=call.admin),
        )
        node.changed("world", world)
        return await show_world(node, call, world)

    @routes.add(
        "GET",
        "/api/worlds/<ref>",
        summary="Get a world",
        gives=WorldView,
        errors=(WorldNotFound, ServerNotFound),
        cached=_CACHED,
        remote=WorldView,
    )
    async def get_world(call: RequestContext) -> WorldView:
        """Returns a world. Only the owner, users it is shared with and admins can see a private
        world."""
        return await show_world(node, call, await find_world(node, call, call.args["ref"]))

    @routes.add(
        "POST",
        "/api/worlds/<ref>",
        summary="Update a world",
        guests="own",
        takes=WorldUpdate,
        gives=WorldView,
        need="required",
        errors=(WorldNotFound, ServerNotFound, PermissionDenied, TagUnknown, ResourceTaken),
    )
    async def update_world(call: RequestContext, params: WorldUpdate) -> WorldView:
        """Changes the given fields. The owner and admins may do this, unless another session has
        acquired the world."""
        world = await own_world(node, call, call.args["ref"])
        changes: dict[str, Any] = params.given()
        if "description" in changes:
            changes["description"] = params.description or None
        if "tags" in changes:
            changes["tags"] = WORLD_TAGS.resolve(params.tags, admin=call.admin, before=world.tags)
        if changes:
            async with unheld(node, call, world) as queries:
                world = await Worlds(queries, node.clock).update(world.id, **changes)
            node.changed("world", world)
        return await show_world(node, call, world)

    @routes.add(
        "DELETE",
        "/api/worlds/<ref>",
        summary="Delete a world",
        guests="own",
        gives=NothingView,
        need="required",
        errors=(WorldNotFound, ServerNotFound, PermissionDenied, ResourceTaken),
    )
    async def delete_world(call: RequestContext) -> NothingView:
        """Deletes a world. Its open instances stay open. The owner and admins may do this."""
        world = await own_world(node, call, call.args["ref"])
        async with node.store.blobs.releasing() as loose, unheld(node, call, world) as queries:
            loose.update(await Worlds(queries, node.clock).delete(world.id))
        return NothingView()

    return routes
