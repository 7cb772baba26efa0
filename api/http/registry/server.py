"""Server endpoints: `/api/server`, `/api/time` and `/.well-known/avr`."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import ensure_own_server
from api.http.presenters import site_of
from reileta.errors import ServerInvalid, ServerNotFound
from reileta.protocol.input_types import (
    Description,
    HttpsUrl,
    Input,
    Reason,
    TimeMs,
    Title,
)
from reileta.protocol.views.registry import Millis, NothingView
from reileta.protocol.views.server import (
    DiscoveryView,
    NoticeView,
    ServerView,
    discovery_view,
    notice_view,
)
from reileta.records import Notice, NoticeLevel

NOTICE_MS: Final = 7 * 24 * 3600 * 1000
"""The longest time for which those who connect get a notice."""


class ServerUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    title: Title = Field(default_factory=str, examples=["Harbour"])
    description: Description | None = Field(default=None, description="null removes it.")
    icon: HttpsUrl | None = Field(
        default=None,
        description="Address of the icon. null removes it.",
        examples=["https://example.org/icon.png"],
    )


class NoticeInput(Input):
    """What everyone is to read."""

    text: Reason = Field(description="Plain text.", examples=["Restart in five minutes"])
    level: NoticeLevel = Field(default="info", description="How urgent it is.")
    until: TimeMs | None = Field(
        default=None,
        description="Those who connect before that get it, too; at most a week from now. Without"
        " it, only those who are connected get it.",
    )


def server_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that describe the server, and let admins change its description."""
    node = deps.node
    routes = Routes("server", deps, invalid=ServerInvalid)

    @routes.add(
        "GET",
        "/api/server",
        summary="Get the server",
        gives=ServerView,
        need="none",
        errors=(ServerNotFound,),
        cached=Cached(("server",)),
        remote=ServerView,
    )
    async def get_server(call: RequestContext) -> ServerView:
        """Returns the server's title, address and public key."""
        ensure_own_server(node, call)
        return node.server.view(await node.store.identity.get(), site_of(node, call))

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
    async def update_server(call: RequestContext, params: ServerUpdate) -> ServerView:
        """Changes the server's description. Admins only."""
        ensure_own_server(node, call)
        changes: dict[str, Any] = params.given()
        if "description" in changes:
            changes["description"] = params.description or None
        identity = await node.store.identity.get()
        if changes:
            identity = await node.store.identity.update(**changes)
            node.changed("server", identity)
        return node.server.view(identity, site_of(node, call))

    @routes.add(
        "GET",
        "/api/server/notice",
        summary="Get the notice",
        gives=NoticeView,
        need="none",
    )
    async def get_notice(call: RequestContext) -> NoticeView:
        """Returns the notice that those who connect now get; `text` is null if there is none."""
        notice = await node.notices.current()
        if notice is None:
            return NoticeView(text=None, level="info", created_at=node.clock.now_ms())
        return notice_view(notice)

    @routes.add(
        "POST",
        "/api/server/notice",
        summary="Tell everyone something",
        takes=NoticeInput,
        gives=NoticeView,
        need="required",
        only="admin",
    )
    async def set_notice(call: RequestContext, params: NoticeInput) -> NoticeView:
        """Sends the event `server-notice` to all sockets of both APIs, and to those that open
        before `until`. It replaces the notice of before. Admins only."""
        now = node.clock.now_ms()
        if params.until is not None and not now < params.until <= now + NOTICE_MS:
            raise ServerInvalid.field("until", "must be in the future, at most a week from now")
        notice = Notice(params.text, params.level, now, params.until)
        await node.notices.announce(notice)
        call.audit.add(text=notice.text, level=notice.level, until=notice.until)
        return notice_view(notice)

    @routes.add(
        "DELETE",
        "/api/server/notice",
        summary="Withdraw the notice",
        gives=NothingView,
        need="required",
        only="admin",
    )
    async def withdraw_notice(call: RequestContext) -> NothingView:
        """Takes the notice back: everyone gets `server-notice` with the text null. It is not an
        error if there is none. Admins only."""
        await node.notices.withdraw()
        return NothingView()

    @routes.add(
        "GET",
        "/api/time",
        summary="Get the server's time",
        gives=Millis,
        need="none",
        errors=(ServerNotFound,),
    )
    async def get_time(call: RequestContext) -> int:
        """Returns the server's clock, in milliseconds since 1970 UTC. Another server's is to be
        asked there: the way through this server would falsify it."""
        ensure_own_server(node, call)
        return node.clock.now_ms()

    @routes.add(
        "GET",
        "/.well-known/avr",
        summary="Discover the server",
        gives=DiscoveryView,
        need="none",
        cached=Cached(()),
    )
    async def get_discovery(call: RequestContext) -> DiscoveryView:
        """Returns the address, keys, gateways and version of the server, for other servers."""
        server = node.server
        return discovery_view(site_of(node, call), server.public_key, server.links)

    return routes
