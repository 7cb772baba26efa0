"""`/api/server`, `/api/time`, `/.well-known/avr` (PROTOCOL §9)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import own_server
from reileta import __version__
from reileta.errors import ServerInvalid, ServerNotFound
from reileta.protocol.input_types import Description, HttpsUrl, Input, Title
from reileta.protocol.views.registry import Millis
from reileta.protocol.views.server import DiscoveryView, ServerView


class ServerUpdate(Input):
    """What to change; a field that is left out stays as it is."""

    title: Title = Field(default_factory=str, examples=["Harbour"])
    description: Description | None = Field(default=None, description="null empties it.")
    icon: HttpsUrl | None = Field(
        default=None,
        description="Where its icon is; null takes it away.",
        examples=["https://example.org/icon.png"],
    )


def server_routes(edge: ApiDeps) -> Routes:
    """The endpoints that tell of the server itself, and let admins change that."""
    node = edge.node
    routes = Routes("server", edge, invalid=ServerInvalid)

    @routes.add(
        "GET",
        "/api/server",
        summary="Get the server",
        gives=ServerView,
        need="none",
        errors=(ServerNotFound,),
        shows=Cached(("server",)),
    )
    async def get_server(call: RequestContext) -> ServerView:
        """What the server is called, where it is reached, and its public key."""
        own_server(node, call)
        return node.server_view(await node.store.identity.get())

    @routes.add(
        "POST",
        "/api/server",
        summary="Update the server",
        takes=ServerUpdate,
        gives=ServerView,
        need="required",
        only="admin",
        errors=(ServerNotFound,),
    )
    async def update_server(call: RequestContext, given: ServerUpdate) -> ServerView:
        """Changes what the server says of itself; admins may."""
        own_server(node, call)
        changes: dict[str, Any] = given.given()
        if "description" in changes:
            changes["description"] = given.description or None
        identity = await node.store.identity.get()
        if changes:
            identity = await node.store.identity.update(**changes)
            node.changed("server", identity)
        return node.server_view(identity)

    @routes.add("GET", "/api/time", summary="Get the server's time", gives=Millis, need="none")
    async def get_time(call: RequestContext) -> int:
        """The milliseconds since 1970 UTC on the server's clock."""
        return node.clock.now_ms()

    @routes.add(
        "GET",
        "/.well-known/avr",
        summary="Discover the server",
        gives=DiscoveryView,
        need="none",
        shows=Cached(()),
    )
    async def get_discovery(call: RequestContext) -> DiscoveryView:
        """What another server or a gateway needs to know first."""
        return DiscoveryView(
            address=node.address,
            secure=node.secure,
            public_key=node.public_key,
            version=__version__,
        )

    return routes
