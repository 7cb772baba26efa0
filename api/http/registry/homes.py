"""`/api/users/:id/home`: the world that a user calls its home (PROTOCOL §4)."""

from __future__ import annotations

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_user, find_world, own_server, world_ref
from api.http.registry.users import ensure_may_change, may_change
from reileta.errors import (
    AssetNotFound,
    HomeNotFound,
    ServerNotFound,
    UserCannotFetch,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
    WorldNotFound,
)
from reileta.ids import At, at, is_server_address
from reileta.protocol.input_types import Input, Reference
from reileta.protocol.patterns import WORLD_REF
from reileta.protocol.views.registry import HomeView, NothingView
from reileta.records import User


class HomeInput(Input):
    """A world, with a version of its assets or without."""

    world: Reference = Field(
        description="`w_…`, `w_…:version`, and either with `@server`.",
        examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c:1.2"],
        json_schema_extra=WORLD_REF,
    )


def home_routes(edge: ApiDeps) -> Routes:
    """The endpoints of homes: for the user itself and admins."""
    node, auth = edge.node, edge.auth
    routes = Routes("homes", edge, invalid=UserInvalid)

    async def ensure_there(call: RequestContext, ref: str) -> None:
        """Raises WorldNotFound, AssetNotFound if a world of this server has not that version."""
        target = At.parse(ref)
        if target.server is not None:
            return
        id_, _, version = target.id.partition(":")
        world = await find_world(node, call, id_)
        if version:
            assets = await node.store.assets.of(world.id)
            if version not in {asset.version for asset in assets}:
                raise AssetNotFound

    async def settled(user: User, home: str | None) -> None:
        user = await node.store.users.update(user.id, home=home)
        auth.forget_user(user.id)
        node.changed("user", user)

    @routes.add(
        "GET",
        "/api/users/<ref>/home",
        summary="Get a user's home",
        gives=HomeView,
        need="required",
        errors=(UserNotFound, ServerNotFound, UserCannotFetch, HomeNotFound),
        shows=Cached(("users",)),
    )
    async def get_home(call: RequestContext) -> HomeView:
        """The user's home, for the user itself and admins."""
        user = await find_user(node, call, call.args["ref"])
        if not may_change(call, user):
            raise UserCannotFetch
        if user.home is None:
            raise HomeNotFound
        return HomeView(world=at(user.home, node.address))

    @routes.add(
        "POST",
        "/api/users/<ref>/home",
        summary="Set a user's home",
        takes=HomeInput,
        gives=HomeView,
        need="required",
        errors=(UserNotFound, ServerNotFound, UserCannotUpdate, WorldNotFound, AssetNotFound),
    )
    async def set_home(call: RequestContext, given: HomeInput) -> HomeView:
        """Makes a world of this or another server the user's home."""
        user = await find_user(node, call, call.args["ref"])
        ensure_may_change(call, user)
        home = world_ref(node, given.world)
        server = None if home is None else At.parse(home).server
        if home is None or (server is not None and not is_server_address(server)):
            raise UserInvalid.field("world", "must be w_…, with :version or @server if need be")
        own_server(node, call)
        await ensure_there(call, home)
        await settled(user, home)
        return HomeView(world=at(home, node.address))

    @routes.add(
        "DELETE",
        "/api/users/<ref>/home",
        summary="Take a user's home away",
        gives=NothingView,
        need="required",
        errors=(UserNotFound, ServerNotFound, UserCannotUpdate, HomeNotFound),
    )
    async def delete_home(call: RequestContext) -> NothingView:
        """The user has no home any more."""
        user = await find_user(node, call, call.args["ref"])
        ensure_may_change(call, user)
        if user.home is None:
            raise HomeNotFound
        await settled(user, None)
        return NothingView()

    return routes
