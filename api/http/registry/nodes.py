"""Node endpoints: `/api/nodes`, machines that host instances over a link to this server."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import ensure_own_server, ensure_owner, find_owner, local
from api.http.pagination import Search, list_view
from reileta.errors import (
    NodeInvalid,
    NodeNotFound,
    PermissionDenied,
    QuotaReached,
    ServerNotFound,
    UserNotFound,
)
from reileta.observability import log_events
from reileta.protocol.input_types import (
    CreateInput,
    Flag,
    Input,
    NodeCapacity,
    Reference,
    Region,
    ServerAddress,
    Title,
)
from reileta.protocol.views.registry import (
    InstanceNodeTokenView,
    InstanceNodeView,
    ListView,
    NothingView,
    node_token_view,
    node_view,
)
from reileta.records import DirectAddress, HostKind, HostNode, HostStatus
from reileta.security.credentials import digest, new_token
from reileta.store.host_nodes import INSTANCES

_CACHED: Final = Cached(("hosts", "instances", "users"), live=True)


class DirectInput(Input):
    """Where clients can reach the node themselves."""

    address: ServerAddress
    secure: bool = Field(default=True, description="Whether it uses TLS.")

    def record(self) -> DirectAddress:
        return DirectAddress(self.address, self.secure)


class NodeCreate(CreateInput):
    """A new node. The caller becomes its owner."""

    title: Title
    kind: HostKind | None = Field(
        default="hosted",
        description="`hosted`: for instances of its owner. `dedicated`, for admins only: for"
        " everybody's.",
    )
    region: Region | None = None
    capacity: NodeCapacity | None = INSTANCES
    direct: DirectInput | None = Field(
        default=None, description="Where clients can reach the node themselves."
    )


class NodeUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    title: Title = Field(default_factory=str)
    region: Region | None = Field(default=None, description="null removes it.")
    capacity: NodeCapacity = Field(default_factory=int)
    direct: DirectInput | None = Field(default=None, description="null removes it.")


class NodeSearch(Search):
    """Which nodes to list."""

    owner: Reference | None = Field(default=None, description="`UserIDAt`, username or `@me`.")
    status: HostStatus | None = Field(
        default=None, description="Whether they are connected, and take instances."
    )
    free: Flag = Field(
        default=False, description="Only those that are online and have room for an instance."
    )


class DrainInput(Input):
    """Whether the node takes no more instances."""

    on: bool = Field(default=True, description="false: it takes some again.")


def node_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that create, read, change, drain and delete nodes."""
    node = deps.node
    hosts = node.store.host_nodes
    routes = Routes("nodes", deps, invalid=NodeInvalid)

    def players(host: HostNode) -> int:
        return sum(node.directory.occupancy(one).connected for one in host.instances)

    def view(call: RequestContext, host: HostNode) -> InstanceNodeView:
        private = call.admin or (call.user is not None and call.user.id == host.owner)
        return node_view(host, players(host), node.address, private=private)

    async def find_host(call: RequestContext) -> HostNode:
        host = await hosts.get(local(node, call, call.args["ref"]))
        if host is None:
            raise NodeNotFound
        return host

    async def own_host(call: RequestContext) -> HostNode:
        """The node of the path. Raises PermissionDenied unless the caller may change it."""
        host = await find_host(call)
        ensure_owner(call, host.owner)
        return host

    def changed(host: HostNode) -> None:
        node.changed("node", host)
        node.host_links.refresh(host.id)

    @routes.add(
        "GET",
        "/api/nodes",
        summary="Search nodes",
        takes=NodeSearch,
        gives=ListView[InstanceNodeView],
        errors=(ServerNotFound,),
        cached=_CACHED,
    )
    async def get_instance_nodes(
        call: RequestContext, params: NodeSearch
    ) -> ListView[InstanceNodeView]:
        """Lists nodes whose title contains `query`, newest first."""
        ensure_own_server(node, call)
        page = await hosts.search(
            query=params.query,
            owner=await find_owner(node, call, params.owner),
            status=params.status,
            free=params.free,
            limit=params.limit,
            offset=params.offset,
            after=params.after,
        )
        return list_view(page, lambda host: view(call, host))

    @routes.add(
        "PUT",
        "/api/nodes",
        summary="Create a node",
        takes=NodeCreate,
        gives=InstanceNodeTokenView,
        need="required",
        errors=(ServerNotFound, PermissionDenied, UserNotFound, QuotaReached),
    )
    async def create_instance_node(
        call: RequestContext, params: NodeCreate
    ) -> InstanceNodeTokenView:
        """Creates a node. The caller becomes its owner. The answer has the token with which the
        node connects; it is not shown again."""
        ensure_own_server(node, call)
        if params.kind == "dedicated" and not call.admin:
            raise PermissionDenied.field("kind", "only admins can create dedicated nodes")
        token = new_token("na")
        host = await hosts.create(
            title=params.title,
            owner=call.by.user.id,
            kind=params.kind or "hosted",
            region=params.region,
            capacity=params.capacity or INSTANCES,
            direct=None if params.direct is None else params.direct.record(),
            token_hash=digest(token),
        )
        owner = call.by.user
        node.activity.note(
            log_events.NODE_CREATED, owner.id, node=host.id, kind=host.kind, user=owner.id
        )
        node.changed("node", host)
        return node_token_view(host, 0, node.address, token)

    @routes.add(
        "GET",
        "/api/nodes/<ref>",
        summary="Get a node",
        gives=InstanceNodeView,
        errors=(NodeNotFound, ServerNotFound),
        cached=_CACHED,
    )
    async def get_instance_node(call: RequestContext) -> InstanceNodeView:
        """Returns a node by its id."""
        return view(call, await find_host(call))

    @routes.add(
        "POST",
        "/api/nodes/<ref>",
        summary="Update a node",
        takes=NodeUpdate,
        gives=InstanceNodeView,
        need="required",
        errors=(NodeNotFound, ServerNotFound, PermissionDenied),
    )
    async def update_instance_node(call: RequestContext, params: NodeUpdate) -> InstanceNodeView:
        """Changes the given fields. The owner and admins may do this."""
        host = await own_host(call)
        changes: dict[str, Any] = params.given()
        if params.direct is not None:
            changes["direct"] = params.direct.record()
        if changes:
            host = await hosts.update(host.id, **changes)
            changed(host)
        return view(call, host)

    @routes.add(
        "DELETE",
        "/api/nodes/<ref>",
        summary="Delete a node",
        gives=NothingView,
        need="required",
        errors=(NodeNotFound, ServerNotFound, PermissionDenied),
    )
    async def delete_instance_node(call: RequestContext) -> NothingView:
        """Deletes a node, closes its link, and closes the instances that live on it. The owner and
        admins may do this."""
        host = await own_host(call)
        if not await hosts.delete(host.id):
            raise NodeNotFound
        node.host_links.deleted(host.id, host.instances)
        node.changed("node", host)  # to other nodes of a cluster
        return NothingView()

    @routes.add(
        "POST",
        "/api/nodes/<ref>/token",
        summary="Replace a node's token",
        gives=InstanceNodeTokenView,
        need="required",
        errors=(NodeNotFound, ServerNotFound, PermissionDenied),
    )
    async def rotate_instance_node_token(call: RequestContext) -> InstanceNodeTokenView:
        """Gives the node a new token. The token before is no longer valid, and a link that it
        opened is closed. The owner and admins may do this."""
        token = new_token("na")
        host = await hosts.rotate((await own_host(call)).id, digest(token))
        changed(host)
        return node_token_view(host, players(host), node.address, token)

    @routes.add(
        "POST",
        "/api/nodes/<ref>/drain",
        summary="Drain a node",
        takes=DrainInput,
        gives=InstanceNodeView,
        need="required",
        errors=(NodeNotFound, ServerNotFound, PermissionDenied),
    )
    async def drain_instance_node(call: RequestContext, params: DrainInput) -> InstanceNodeView:
        """Makes a node take no more instances, or some again. Instances with players go on. The
        owner and admins may do this."""
        host = await hosts.drain((await own_host(call)).id, on=params.on)
        changed(host)
        return view(call, host)

    return routes
