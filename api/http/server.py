"""`/api/server`, `/api/time`, `/.well-known/avr` (PROTOCOL §9)."""

from __future__ import annotations

from api.http.refs import own_server
from api.operations import Call, Edge, Routes
from reileta import __version__
from reileta.errors import ServerInvalid, ServerNotFound
from reileta.views import DiscoveryView, Millis, ServerView, server_view


def server_routes(edge: Edge) -> Routes:
    """The endpoints that tell of the server itself; none looks at credentials."""
    node = edge.node
    routes = Routes("server", edge, invalid=ServerInvalid)

    @routes.add(
        "GET",
        "/api/server",
        summary="Get the server",
        gives=ServerView,
        need="none",
        errors=(ServerNotFound,),
    )
    async def get_server(call: Call) -> ServerView:
        """What the server is called, where it is reached, and its public key."""
        own_server(node, call)
        identity = await node.store.identity.get()
        return server_view(
            id_=identity.id,
            title=identity.title,
            description=identity.description,
            created_at=identity.created_at,
            updated_at=identity.updated_at,
            address=node.address,
            secure=node.secure,
            public_key=node.public_key,
            ready_at=node.ready_at,
        )

    @routes.add("GET", "/api/time", summary="Get the server's time", gives=Millis, need="none")
    async def get_time(call: Call) -> int:
        """The milliseconds since 1970 UTC on the server's clock."""
        return node.clock.now_ms()

    @routes.add(
        "GET",
        "/.well-known/avr",
        summary="Discover the server",
        gives=DiscoveryView,
        need="none",
    )
    async def get_discovery(call: Call) -> DiscoveryView:
        """What another server or a gateway needs to know first."""
        return DiscoveryView(
            address=node.address,
            secure=node.secure,
            public_key=node.public_key,
            version=__version__,
        )

    return routes
