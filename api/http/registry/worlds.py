"""`/api/worlds`: what instances are opened of (PROTOCOL §5)."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_owner, find_world, own_server, own_world, unheld
from api.http.pagination import Search, shown
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
from reileta.protocol.input_types import Capacity, Description, Input, Reference, TagList, Title
from reileta.protocol.views.registry import ListView, NothingView, WorldView
from reileta.rules.tags import WORLD_TAGS
from reileta.store.worlds import Worlds

DEFAULT_CAPACITY: Final = 32
_SHOWN: Final = Cached(("worlds", "shares", "users", "assets", "images"))


class WorldCreate(Input):
    """A new world, the asker's own."""

    title: Title
    description: Description | None = None
    capacity: Capacity = Field(
        default=DEFAULT_CAPACITY, description="Seats of an instance that does not say otherwise."
    )
    tags: TagList = Field(
        default=(), examples=[["avr:public", "avr:release"]], json_schema_extra=WORLD_TAGS.schema()
    )


class WorldUpdate(Input):
    """What to change; a field that is left out stays as it is."""

    title: Title = Field(default_factory=str)
    description: Description | None = Field(default=None, description="null empties it.")
    capacity: Capacity = Field(default_factory=int)
    tags: TagList = Field(
        default=(),
        description="All tags: they replace the old ones.",
        json_schema_extra=WORLD_TAGS.schema(),
    )


class WorldSearch(Search):
    """Which worlds."""

    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    tag: Reference | None = Field(default=None, examples=["avr:release"])


def world_routes(edge: ApiDeps) -> Routes:
    """The endpoints that make, read, change and delete worlds."""
    node = edge.node
    worlds = node.store.worlds
    routes = Routes("worlds", edge, invalid=WorldInvalid)

    @routes.add(
        "GET",
        "/api/worlds",
        summary="Search worlds",
        takes=WorldSearch,
        gives=ListView[WorldView],
        errors=(ServerNotFound,),
        shows=_SHOWN,
    )
    async def get_worlds(call: RequestContext, given: WorldSearch) -> ListView[WorldView]:
        """Worlds, newest first; private ones show to their owner, to users they are shared with
        and to admins alone."""
        own_server(node, call)
        page = await worlds.search(
            query=given.query,
            owner=await find_owner(node, call, given.owner),
            tag=given.tag,
            viewer=None if call.user is None else call.user.id,
            admin=call.admin,
            limit=given.limit,
            offset=given.offset,
        )
        return shown(page, await show_worlds(node, page.items))

    @routes.add(
        "PUT",
        "/api/worlds",
        summary="Create a world",
        takes=WorldCreate,
        gives=WorldView,
        need="required",
        errors=(ServerNotFound, TagUnknown, PermissionDenied, QuotaReached),
    )
    async def create_world(call: RequestContext, given: WorldCreate) -> WorldView:
        """Makes a world that belongs to the asker."""
        own_server(node, call)
        world = await worlds.create(
            title=given.title,
            description=given.description or None,
            capacity=given.capacity,
            owner=call.by.user.id,
            tags=WORLD_TAGS.settle(given.tags, admin=call.admin),
        )
        node.changed("world", world)
        return await show_world(node, world)

    @routes.add(
        "GET",
        "/api/worlds/<ref>",
        summary="Get a world",
        gives=WorldView,
        errors=(WorldNotFound, ServerNotFound),
        shows=_SHOWN,
    )
    async def get_world(call: RequestContext) -> WorldView:
        """A world; a private one shows to its owner, to users it is shared with and to admins
        alone."""
        return await show_world(node, await find_world(node, call, call.args["ref"]))

    @routes.add(
        "POST",
        "/api/worlds/<ref>",
        summary="Update a world",
        takes=WorldUpdate,
        gives=WorldView,
        need="required",
        errors=(WorldNotFound, ServerNotFound, PermissionDenied, TagUnknown, ResourceTaken),
    )
    async def update_world(call: RequestContext, given: WorldUpdate) -> WorldView:
        """Changes what is given; its owner and admins may, but while another session has acquired
        it."""
        world = await own_world(node, call, call.args["ref"])
        changes: dict[str, Any] = given.given()
        if "description" in changes:
            changes["description"] = given.description or None
        if "tags" in changes:
            changes["tags"] = WORLD_TAGS.settle(given.tags, admin=call.admin, before=world.tags)
        if changes:
            async with unheld(node, call, world) as queries:
                world = await Worlds(queries, node.clock).update(world.id, **changes)
            node.changed("world", world)
        return await show_world(node, world)

    @routes.add(
        "DELETE",
        "/api/worlds/<ref>",
        summary="Delete a world",
        gives=NothingView,
        need="required",
        errors=(WorldNotFound, ServerNotFound, PermissionDenied, ResourceTaken),
    )
    async def delete_world(call: RequestContext) -> NothingView:
        """Deletes a world; its owner and admins may. Instances that are open stay open."""
        world = await own_world(node, call, call.args["ref"])
        async with node.store.blobs.releasing() as loose, unheld(node, call, world) as queries:
            loose.update(await Worlds(queries, node.clock).delete(world.id))
        return NothingView()

    return routes
