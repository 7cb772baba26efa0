"""`/api/instances`: where players meet (PROTOCOL §6)."""

from __future__ import annotations

import secrets
from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_instance, find_owner, find_world, own_server, world_ref
from api.http.pagination import Search, empty, listed
from reileta.errors import (
    InstanceExists,
    InstanceInvalid,
    InstanceNotFound,
    PermissionDenied,
    QuotaReached,
    ServerNotFound,
    TagUnknown,
    WorldNotFound,
)
from reileta.protocol.input_types import (
    Capacity,
    Description,
    Flag,
    Input,
    InstanceName,
    Reference,
    TagList,
    Title,
)
from reileta.protocol.patterns import WORLD_REF
from reileta.protocol.views.registry import InstanceView, ListView, NothingView, instance_view
from reileta.records import Instance, InstanceChanges
from reileta.rules.tags import INSTANCE_TAGS

_NAME_ATTEMPTS: Final = 4
_SHOWN: Final = Cached(("instances", "moderators", "users"), live=True)


class InstanceCreate(Input):
    """A new instance, the asker's own."""

    world: Reference = Field(
        description="`w_…`, with `:version` and `@server` if wanted.",
        examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c"],
        json_schema_extra=WORLD_REF,
    )
    name: InstanceName | None = Field(
        default=None, description="Unique on this server; made by the server when not given."
    )
    title: Title | None = None
    description: Description | None = None
    capacity: Capacity | None = Field(
        default=None, description="Seats; the world's capacity when not given."
    )
    tags: TagList = Field(
        default=(),
        description="Access, and what else.",
        examples=[["avr:public"]],
        json_schema_extra=INSTANCE_TAGS.schema(),
    )


class InstanceUpdate(Input):
    """What to change; a field that is left out stays as it is."""

    title: Title | None = Field(default=None, description="null empties it.")
    description: Description | None = Field(default=None, description="null empties it.")
    capacity: Capacity = Field(
        default_factory=int, description="Never below the number of players inside."
    )
    tags: TagList = Field(
        default=(),
        description="All tags: they replace the old ones.",
        json_schema_extra=INSTANCE_TAGS.schema(),
    )


class InstanceSearch(Search):
    """Which instances."""

    world: Reference | None = Field(default=None, description="`WorldIDAt`.")
    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    tag: Reference | None = Field(default=None, examples=["avr:public"])
    free: Flag = Field(default=False, description="Only those with a free seat.")


def instance_routes(edge: ApiDeps) -> Routes:
    """The endpoints that open, read, change and close instances."""
    node = edge.node
    instances = node.store.instances
    routes = Routes("instances", edge, invalid=InstanceInvalid)

    def view(instance: Instance) -> InstanceView:
        inside = node.occupancy(instance.id)
        return instance_view(instance, inside, address=node.address, secure=node.secure)

    @routes.add(
        "GET",
        "/api/instances",
        summary="Search instances",
        takes=InstanceSearch,
        gives=ListView[InstanceView],
        errors=(ServerNotFound,),
        shows=_SHOWN,
    )
    async def get_instances(call: RequestContext, given: InstanceSearch) -> ListView[InstanceView]:
        """Public instances, and the asker's own; admins see all."""
        own_server(node, call)
        owner = await find_owner(node, call, given.owner)
        world = None
        if given.world is not None:
            world = world_ref(node, given.world)
            if world is None:
                return empty(given)
        page = await instances.search(
            query=given.query,
            world=world,
            owner=owner,
            tag=given.tag,
            exclude=node.full() if given.free else (),
            viewer=None if call.user is None else call.user.id,
            admin=call.admin,
            limit=given.limit,
            offset=given.offset,
        )
        return listed(page, view)

    @routes.add(
        "PUT",
        "/api/instances",
        summary="Open an instance",
        takes=InstanceCreate,
        gives=InstanceView,
        need="required",
        errors=(
            WorldNotFound,
            ServerNotFound,
            InstanceExists,
            TagUnknown,
            PermissionDenied,
            QuotaReached,
        ),
    )
    async def create_instance(call: RequestContext, given: InstanceCreate) -> InstanceView:
        """Opens an instance of a world that the asker can see. It is the asker's own."""
        own_server(node, call)
        reference = world_ref(node, given.world)
        if reference is None:
            raise InstanceInvalid.field("world", "must be w_…, w_…:version or w_…:version@server")
        if "@" in reference:
            raise ServerNotFound.field("world", "is of another server")
        world = await find_world(node, call, reference.partition(":")[0])
        tags = INSTANCE_TAGS.settle(given.tags, admin=call.admin)
        wanted: dict[str, Any] = {
            "title": given.title,
            "description": given.description or None,
            "world": reference,
            "owner": call.by.user.id,
            "capacity": world.capacity if given.capacity is None else given.capacity,
            "tags": tags,
        }
        instance = await named(given.name, wanted)
        node.changed("instance", instance)
        return view(instance)

    async def named(name: str | None, wanted: dict[str, Any]) -> Instance:
        """Stores the instance under the name given, or under one that is free."""
        if name is not None:
            return await instances.create(name=name, **wanted)
        for _ in range(_NAME_ATTEMPTS - 1):
            try:
                return await instances.create(name=made_name(), **wanted)
            except InstanceExists:
                continue
        return await instances.create(name=made_name(), **wanted)

    @routes.add(
        "GET",
        "/api/instances/<ref>",
        summary="Get an instance",
        gives=InstanceView,
        errors=(InstanceNotFound, ServerNotFound),
        shows=_SHOWN,
    )
    async def get_instance(call: RequestContext) -> InstanceView:
        """An instance by its id or name; a private one shows to its owner, its moderators, users
        inside and admins alone."""
        return view(await find_instance(node, call, call.args["ref"]))

    @routes.add(
        "POST",
        "/api/instances/<ref>",
        summary="Update an instance",
        takes=InstanceUpdate,
        gives=InstanceView,
        need="required",
        errors=(InstanceNotFound, ServerNotFound, PermissionDenied, TagUnknown),
    )
    async def update_instance(call: RequestContext, given: InstanceUpdate) -> InstanceView:
        """Changes what is given, while players are inside too; its owner and admins may."""
        instance = await find_instance(node, call, call.args["ref"])
        changes: dict[str, Any] = given.given()
        if "description" in changes:
            changes["description"] = given.description or None
        if "tags" in changes:
            changes["tags"] = frozenset(given.tags)
        return view(await node.update_instance(instance.id, call.by, InstanceChanges(**changes)))

    @routes.add(
        "DELETE",
        "/api/instances/<ref>",
        summary="Close an instance",
        gives=NothingView,
        need="required",
        errors=(InstanceNotFound, ServerNotFound, PermissionDenied),
    )
    async def close_instance(call: RequestContext) -> NothingView:
        """Everyone inside gets `instance-left` with reason `closed`; its owner and admins may."""
        instance = await find_instance(node, call, call.args["ref"])
        await node.close_instance(instance.id, call.by)
        return NothingView()

    return routes


def made_name() -> str:
    """A name for an instance that was given none, such as `i-5f0c9a3b7e`."""
    return f"i-{secrets.token_hex(5)}"
