"""Home endpoints: `/api/users/:id/home`, the home world of a user."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached, Unkept
from api.http.lookups import ensure_own_server, find_user, find_world, world_ref
from api.http.presenters import show_world
from api.http.registry.users import ensure_may_change, may_change
from api.http.remote import REMOTE_ERRORS
from reileta.errors import (
    AssetNotFound,
    HomeNotFound,
    NotFound,
    RemoteError,
    ServerBlocked,
    ServerNotFound,
    TooManyRequests,
    UserCannotFetch,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
    WorldNotFound,
)
from reileta.ids import At, is_asset_version
from reileta.protocol.input_types import Input, Reference, fault
from reileta.protocol.patterns import WORLD_REF
from reileta.protocol.views.registry import HomeView, NothingView, WorldView, home_view
from reileta.records import User
from reileta.rules.federation.addresses import is_address


def _world_ref(schema: dict[str, Any]) -> None:
    """Describes a field that names a world: null, which is taken as left out, would name none."""
    (text, _null) = schema.pop("anyOf")
    schema.update(text | WORLD_REF)


class HomeInput(Input):
    """A world, with or without a version of its assets: as one reference, or in its parts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"world": "w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c:1.2"}],
            "anyOf": [{"required": ["world"]}, {"required": ["id"]}],
        }
    )

    world: Reference | None = Field(
        default=None,
        description="`w_…`, `w_…:version`, and either with `@server`. If it is there, it counts.",
        examples=["w_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c:1.2"],
        json_schema_extra=_world_ref,
    )
    id: Reference | None = Field(
        default=None,
        description="In place of `world`: the world's id.",
        json_schema_extra=_world_ref,
    )
    server: Reference | None = Field(
        default=None, description="With `id`: the world's server. Default: this server."
    )
    version: Reference | None = Field(
        default=None, description="With `id`: a version of the world's assets."
    )

    @model_validator(mode="after")
    def _names_a_world(self) -> HomeInput:
        if self.world is None and self.id is None:
            raise fault("is required", field="world")
        if self.world is None and self.version and not is_asset_version(self.version):
            raise fault("must be a version of the world's assets", field="version")
        if self.world is None and self.server and not is_address(self.server):
            raise fault("must be a server's address", field="server")
        return self

    @property
    def reference(self) -> str:
        """The world as one reference."""
        if self.world is not None:
            return self.world
        target = At.parse(self.id) if self.id else At("")
        id_ = f"{target.id}:{self.version}" if self.version else target.id
        return str(At(id_, self.server or target.server))


def home_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints of homes, for the user itself and admins."""
    node, auth = deps.node, deps.auth
    routes = Routes("homes", deps, invalid=UserInvalid)

    async def world_of(call: RequestContext, home: str) -> WorldView:
        """The world of a home, of this or another server. Raises WorldNotFound, and the errors of
        `RemoteObjects.world`."""
        target = At.parse(home)
        id_ = target.id.partition(":")[0]
        if target.server is None:
            return await show_world(node, call, await find_world(node, call, id_))
        return await deps.remote.world(call, At(id_, target.server))

    async def show(call: RequestContext, home: str) -> HomeView:
        """The home, with the world if the caller can see it now."""
        world = None
        with suppress(NotFound, RemoteError, ServerBlocked, TooManyRequests):
            world = await world_of(call, home)
        return home_view(home, node.address, world)

    async def change_home(user: User, home: str | None) -> None:
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
        cached=Cached(("users", "worlds", "shares", "assets", "images")),
    )
    async def get_home(call: RequestContext) -> HomeView | Unkept:
        """Returns the user's home: the world, and a reference to it. For the user itself and
        admins. Only the reference is left if the world can't be seen, or if its server does not
        answer."""
        user = await find_user(node, call, call.args["ref"])
        if not may_change(call, user):
            raise UserCannotFetch
        if user.home is None:
            raise HomeNotFound
        shown = await show(call, user.home)
        return shown if At.parse(user.home).server is None else Unkept(shown)

    @routes.add(
        "POST",
        "/api/users/<ref>/home",
        summary="Set a user's home",
        takes=HomeInput,
        gives=HomeView,
        need="required",
        errors=(
            UserNotFound,
            ServerNotFound,
            UserCannotUpdate,
            WorldNotFound,
            AssetNotFound,
            *REMOTE_ERRORS,
        ),
    )
    async def set_home(call: RequestContext, params: HomeInput) -> HomeView:
        """Sets the user's home to a world of this or another server. The user itself and admins
        may do this."""
        user = await find_user(node, call, call.args["ref"])
        ensure_may_change(call, user)
        home = world_ref(node, params.reference)
        if home is None:
            field = "id" if params.world is None else "world"
            raise UserInvalid.field(field, "must be w_…, optionally with :version or @server")
        ensure_own_server(node, call)
        world = await world_of(call, home)
        _, colon, version = At.parse(home).id.partition(":")
        if colon and version not in {asset.version for asset in world.assets}:
            raise AssetNotFound
        await change_home(user, home)
        return home_view(home, node.address, world)

    @routes.add(
        "DELETE",
        "/api/users/<ref>/home",
        summary="Remove a user's home",
        gives=NothingView,
        need="required",
        errors=(UserNotFound, ServerNotFound, UserCannotUpdate, HomeNotFound),
    )
    async def delete_home(call: RequestContext) -> NothingView:
        """Removes the user's home. The user itself and admins may do this."""
        user = await find_user(node, call, call.args["ref"])
        ensure_may_change(call, user)
        if user.home is None:
            raise HomeNotFound
        await change_home(user, None)
        return NothingView()

    return routes
