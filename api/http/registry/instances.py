"""Instance endpoints: `/api/instances`."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import (
    ensure_own_server,
    find_instance,
    find_owner,
    find_world,
    local,
    world_ref,
)
from api.http.pagination import Search, empty_list, list_view
from api.http.presenters import site_of
from api.http.remote import REMOTE_ERRORS
from reileta.errors import (
    GuestNotAllowed,
    InstanceExists,
    InstanceInvalid,
    InstanceNotFound,
    NodeNotFound,
    OutcomeUnknown,
    PermissionDenied,
    QuotaReached,
    ServerNotFound,
    TagUnknown,
    WorldNotFound,
)
from reileta.ids import At
from reileta.observability import log_events
from reileta.protocol.input_types import (
    Capacity,
    CreateInput,
    DataKey,
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
from reileta.records import InstanceChanges, InstanceRecord
from reileta.rules.tags import INSTANCE_TAGS

_NAME_ATTEMPTS: Final = 4
_CACHED: Final = Cached(("instances", "moderators", "users"), live=True)


class InstanceCreate(CreateInput):
    """A new instance. The caller becomes its owner."""

    world: Reference = Field(
        description="`w_…`, optionally with `:version` and `@server`.",
        examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c"],
        json_schema_extra=WORLD_REF,
    )
    name: InstanceName | None = Field(
        default=None, description="Unique on this server. Default: a generated name."
    )
    title: Title | None = None
    description: Description | None = None
    capacity: Capacity | None = Field(
        default=None, description="Number of seats. Default: the world's capacity."
    )
    node: Reference | None = Field(
        default=None,
        description="The instance node on which it lives. Default: this server.",
        examples=["n_3b9f1c2d-7e6a-4d5c-8b1f-0a2c4e6f8d7b"],
    )
    position_key: DataKey | None = Field(
        default=None,
        description="The key of the values in which players publish their positions: sockets can"
        " then ask for fewer values of players who are far away. Default: none.",
        examples=["pose"],
    )
    tags: TagList = Field(
        default=(),
        description="Access and properties.",
        examples=[["avr:public"]],
        json_schema_extra=INSTANCE_TAGS.schema(),
    )


class InstanceUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    title: Title | None = Field(default=None, description="null removes it.")
    description: Description | None = Field(default=None, description="null removes it.")
    capacity: Capacity = Field(
        default_factory=int, description="At least the number of players inside."
    )
    tags: TagList = Field(
        default=(),
        description="The complete new list of tags.",
        json_schema_extra=INSTANCE_TAGS.schema(),
    )


class InstanceSearch(Search):
    """Which instances to list."""

    world: Reference | None = Field(default=None, description="`WorldIDAt`.")
    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    tag: Reference | None = Field(
        default=None, description="A tag that they must have.", examples=["avr:public"]
    )
    free: Flag = Field(default=False, description="Only those with a free seat.")


def instance_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that open, read, change and close instances."""
    node = deps.node
    instances = node.store.instances
    routes = Routes("instances", deps, invalid=InstanceInvalid)

    def view(call: RequestContext, instance: InstanceRecord) -> InstanceView:
        inside = node.directory.occupancy(instance.id)
        return instance_view(instance, inside, site_of(node, call))

    @routes.add(
        "GET",
        "/api/instances",
        summary="Search instances",
        takes=InstanceSearch,
        gives=ListView[InstanceView],
        errors=(ServerNotFound,),
        cached=_CACHED,
        remote=ListView[InstanceView],
    )
    async def get_instances(call: RequestContext, params: InstanceSearch) -> ListView[InstanceView]:
        """Lists public instances and the caller's own. Admins see all."""
        ensure_own_server(node, call)
        owner = await find_owner(node, call, params.owner)
        world = None
        if params.world is not None:
            world = world_ref(node, params.world)
            if world is None:
                return empty_list(params)
        page = await instances.search(
            query=params.query,
            world=world,
            owner=owner,
            tag=params.tag,
            exclude=node.directory.full() if params.free else (),
            viewer=None if call.user is None else call.user.id,
            admin=call.admin,
            limit=params.limit,
            offset=params.offset,
            after=params.after,
        )
        return list_view(page, partial(view, call))

    @routes.add(
        "PUT",
        "/api/instances",
        summary="Open an instance",
        guests="own",
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
            NodeNotFound,
            GuestNotAllowed,
            *REMOTE_ERRORS,
        ),
    )
    async def create_instance(call: RequestContext, params: InstanceCreate) -> InstanceView:
        """Opens an instance of a world that the caller can see, of this or another server. The
        caller becomes its owner."""
        ensure_own_server(node, call)
        reference = world_ref(node, params.world)
        if reference is None:
            raise InstanceInvalid.field("world", "must be w_…, w_…:version or w_…:version@server")
        host = None if params.node is None else await host_for(call, params.node)
        capacity = await capacity_of(call, At.parse(reference))
        tags = INSTANCE_TAGS.resolve(params.tags, admin=call.admin)
        fields: dict[str, Any] = {
            "title": params.title,
            "description": params.description or None,
            "world": reference,
            "owner": call.by.user.id,
            "capacity": capacity if params.capacity is None else params.capacity,
            "tags": tags,
            "node": host,
            "position_key": params.position_key,
        }
        instance = await create_named(params.name, fields)
        owner = call.by.user
        node.activity.note(
            log_events.INSTANCE_OPENED,
            owner.id,
            instance=instance.id,
            world=instance.world,
            user=owner.id,
            username=owner.username,
        )
        node.changed("instance", instance)
        return view(call, instance)

    async def host_for(call: RequestContext, text: str) -> str:
        """The id of the node that is to host an instance of the caller.

        Raises NodeNotFound, PermissionDenied if it hosts only those of somebody else, and
        GuestNotAllowed.
        """
        if call.by.guest:
            raise GuestNotAllowed
        host = await node.store.host_nodes.get(local(node, call, text))
        if host is None:
            raise NodeNotFound
        if host.kind == "hosted" and host.owner != call.by.user.id:
            raise PermissionDenied.field("node", "hosts only instances of its owner")
        return host.id

    async def capacity_of(call: RequestContext, reference: At) -> int:
        """The capacity of a world of this or another server.

        Raises WorldNotFound, and the errors of `RemoteObjects.world`.
        """
        id_ = reference.id.partition(":")[0]
        if reference.server is None:
            return (await find_world(node, call, id_)).capacity
        return (await deps.remote.world(call, At(id_, reference.server))).capacity

    async def create_named(name: str | None, fields: dict[str, Any]) -> InstanceRecord:
        """Stores the instance under that name, or under a generated one if it is None."""
        if name is not None:
            return await instances.create(name=name, **fields)
        for _ in range(_NAME_ATTEMPTS - 1):
            try:
                return await instances.create(name=generated_name(), **fields)
            except InstanceExists:
                continue
        return await instances.create(name=generated_name(), **fields)

    @routes.add(
        "GET",
        "/api/instances/<ref>",
        summary="Get an instance",
        gives=InstanceView,
        errors=(InstanceNotFound, ServerNotFound),
        cached=_CACHED,
        remote=InstanceView,
    )
    async def get_instance(call: RequestContext) -> InstanceView:
        """Returns an instance by its id or name. Only its owner, its moderators, users inside and
        admins can see a private instance."""
        return view(call, await find_instance(node, call, call.args["ref"]))

    @routes.add(
        "POST",
        "/api/instances/<ref>",
        summary="Update an instance",
        guests="own",
        takes=InstanceUpdate,
        gives=InstanceView,
        need="required",
        errors=(
            InstanceNotFound,
            ServerNotFound,
            PermissionDenied,
            TagUnknown,
            OutcomeUnknown,
        ),
    )
    async def update_instance(call: RequestContext, params: InstanceUpdate) -> InstanceView:
        """Changes the given fields, also while players are inside. The owner and admins may do
        this."""
        instance = await find_instance(node, call, call.args["ref"])
        changes: dict[str, Any] = params.given()
        if "description" in changes:
            changes["description"] = params.description or None
        if "tags" in changes:
            changes["tags"] = frozenset(params.tags)
        return view(
            call,
            await node.instance_service.update(instance.id, call.by, InstanceChanges(**changes)),
        )

    @routes.add(
        "DELETE",
        "/api/instances/<ref>",
        summary="Close an instance",
        guests="own",
        gives=NothingView,
        need="required",
        errors=(InstanceNotFound, ServerNotFound, PermissionDenied, OutcomeUnknown),
    )
    async def close_instance(call: RequestContext) -> NothingView:
        """Closes the instance. Everyone inside gets `instance-left` with reason `closed`. The owner
        and admins may do this."""
        instance = await find_instance(node, call, call.args["ref"])
        await node.instance_service.close(instance.id, call.by)
        return NothingView()

    return routes


def generated_name() -> str:
    """A random name for an instance, such as `i-5f0c9a3b7e`."""
    return f"i-{secrets.token_hex(5)}"
