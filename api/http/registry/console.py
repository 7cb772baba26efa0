"""Endpoints for admins that show the running server: nodes, instances, actors, traces."""

from __future__ import annotations

from pydantic import Field

from actors.console.console import Topic
from actors.console.live import InstanceSort, Order
from api.http.endpoint import ApiDeps, RequestContext, Routes
from reileta.errors import InstanceNotFound, NodeNotFound, Overloaded, ServerInvalid
from reileta.protocol.input_types import (
    DEFAULT_PAGE,
    Input,
    Limit,
    Offset,
    Reference,
    ShortOffset,
)
from reileta.protocol.views.console import (
    ActorTreeView,
    FiguresView,
    HeldResourceView,
    LiveInstanceDetailView,
    LiveInstanceView,
    OnlineUserView,
    ServerNodesView,
    SlowTracesView,
)
from reileta.protocol.views.registry import ListView


class OfNode(Input):
    """Which node to show."""

    node: Reference | None = Field(
        default=None, description="The node's id; without it, the node that answers."
    )


class LiveInstanceSearch(Input):
    """Which instances to list, and in which order."""

    sort: InstanceSort = Field(default="connected", description="By what they are sorted.")
    order: Order = Field(default="desc", description="The direction.")
    query: Reference | None = Field(
        default=None, description="Text in ids, names, titles, worlds and owners, in any case."
    )
    limit: Limit = DEFAULT_PAGE
    offset: ShortOffset = 0


class OnlineSearch(Input):
    """Which users to list."""

    query: Reference | None = Field(default=None, description="Text in ids and names, in any case.")
    limit: Limit = DEFAULT_PAGE
    offset: Offset = 0


def console_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints below `/api/admin`."""
    node = deps.node
    console = node.console
    routes = Routes("console", deps, invalid=ServerInvalid)

    @routes.add(
        "GET",
        "/api/admin/nodes",
        summary="List the nodes",
        gives=ServerNodesView,
        only="admin",
        need="required",
    )
    async def get_nodes(call: RequestContext) -> ServerNodesView:
        """Returns all nodes of the server with their health, the one that answers first."""
        return await console.nodes()

    @routes.add(
        "GET",
        "/api/admin/figures",
        summary="Get figures",
        takes=OfNode,
        gives=FiguresView,
        only="admin",
        need="required",
        errors=(NodeNotFound, Overloaded),
    )
    async def get_figures(call: RequestContext, params: OfNode) -> FiguresView:
        """Returns the figures of a node over the last 15 minutes, one sample for each 5 s."""
        return await console.figures(params.node or None)

    @routes.add(
        "GET",
        "/api/admin/instances",
        summary="List live instances",
        takes=LiveInstanceSearch,
        gives=ListView[LiveInstanceView],
        only="admin",
        need="required",
    )
    async def list_live_instances(
        call: RequestContext, params: LiveInstanceSearch
    ) -> ListView[LiveInstanceView]:
        """Lists the instances that run, at all nodes. A list reaches to its 1,000th entry."""
        return await console.instances(
            Topic(
                topic="instances",
                sort=params.sort,
                order=params.order,
                query=params.query,
                limit=params.limit,
                offset=params.offset,
            )
        )

    @routes.add(
        "GET",
        "/api/admin/instances/<ref>",
        summary="Get a live instance",
        gives=LiveInstanceDetailView,
        only="admin",
        need="required",
        errors=(InstanceNotFound,),
        audited=True,
    )
    async def get_live_instance(call: RequestContext) -> LiveInstanceDetailView:
        """Returns an instance that runs, with its players, queue and last events. Each request is
        in the audit log."""
        return await console.instance(console.live.local(call.args["ref"]))

    @routes.add(
        "GET",
        "/api/admin/online",
        summary="List who is online",
        takes=OnlineSearch,
        gives=ListView[OnlineUserView],
        only="admin",
        need="required",
    )
    async def list_online(call: RequestContext, params: OnlineSearch) -> ListView[OnlineUserView]:
        """Lists the users with an open WebSocket, at all nodes, by username."""
        page = await console.online(query=params.query, limit=params.limit, offset=params.offset)
        return ListView(
            items=tuple(page.items), total=page.total, limit=params.limit, offset=params.offset
        )

    @routes.add(
        "GET",
        "/api/admin/resources",
        summary="List held resources",
        takes=OnlineSearch,
        gives=ListView[HeldResourceView],
        only="admin",
        need="required",
    )
    async def list_held(call: RequestContext, params: OnlineSearch) -> ListView[HeldResourceView]:
        """Lists the resources that a session holds, by type and id. `query` is text in the
        holder's username."""
        page = await node.store.leases.held(
            query=params.query, limit=params.limit, offset=params.offset
        )
        return ListView(
            items=tuple(
                HeldResourceView(
                    type=one.type,
                    id=one.number,
                    session=one.session,
                    user=one.user,
                    username=one.username,
                    until=one.until,
                    connected=node.session_connected(one.session),
                )
                for one in page.items
            ),
            total=page.total,
            limit=params.limit,
            offset=params.offset,
        )

    @routes.add(
        "GET",
        "/api/admin/actors",
        summary="List actors",
        takes=OfNode,
        gives=ActorTreeView,
        only="admin",
        need="required",
        errors=(NodeNotFound, Overloaded),
    )
    async def get_actors(call: RequestContext, params: OfNode) -> ActorTreeView:
        """Returns the actors of a node with their mailboxes and restarts, its background tasks, and
        the last crashes."""
        return await console.actors(params.node or None)

    @routes.add(
        "GET",
        "/api/admin/traces",
        summary="List slow traces",
        takes=OfNode,
        gives=SlowTracesView,
        only="admin",
        need="required",
        errors=(NodeNotFound, Overloaded),
    )
    async def get_traces(call: RequestContext, params: OfNode) -> SlowTracesView:
        """Returns the slowest traces of a node. Traces are watched from the first request on, and
        for 15 s after the last; the server must log at level info or debug."""
        return await console.traces(params.node or None)

    return routes
