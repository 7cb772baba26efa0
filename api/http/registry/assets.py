"""Asset endpoints: `/api/worlds/:id/assets`, the builds of a world and their files.

Files are streamed between the socket and the disk. Only a few blocks are in memory at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from pydantic import Field
from quart import Response

from api.http.downloads import download, safe_name
from api.http.endpoint import ApiDeps, Download, RequestContext, Routes, Upload
from api.http.etags import Cached
from api.http.lookups import ensure_unheld, find_world, own_world, unheld
from api.http.pagination import TimePaging, list_view, page_of
from api.http.presenters import site_of
from api.http.uploads import UploadSlots, receive
from reileta.errors import (
    AssetExists,
    AssetFileInvalid,
    AssetInvalid,
    AssetNotFound,
    FileExists,
    FileNotUploaded,
    Overloaded,
    PayloadTooLarge,
    PermissionDenied,
    QuotaReached,
    RangeInvalid,
    ResourceTaken,
    ServerNotFound,
    WorldNotFound,
)
from reileta.ids import is_id
from reileta.protocol.input_types import AssetVersion, CreateInput, HttpsUrl, Input, Platform
from reileta.protocol.views.registry import AssetView, ListView, NothingView, asset_view
from reileta.records import Asset, World
from reileta.rules.visibility import is_private

BINARY: Final = "application/octet-stream"
DEFAULT_VERSION: Final = "0.0.1"
OTHER: Final = "other"
"""The engine and platform of an asset that names none."""
_WORLD: Final = (WorldNotFound, ServerNotFound)
_ASSET: Final = (*_WORLD, AssetNotFound)
_CACHED: Final = Cached(("assets", "worlds", "shares"))


class AssetCreate(CreateInput):
    """A new build. It has no file until one is uploaded, unless it has a `url`."""

    version: AssetVersion = DEFAULT_VERSION
    engine: Platform = Field(default=OTHER, examples=["unity"])
    platform: Platform = OTHER
    url: HttpsUrl | None = Field(
        default=None, description="Address of the file, if it is not uploaded to this server."
    )


class AssetUpdate(Input):
    """The fields to change. Fields that are left out keep their values."""

    version: AssetVersion = Field(default_factory=str)
    engine: Platform = Field(default_factory=str, examples=["unity"])
    platform: Platform = Field(default_factory=str)
    url: HttpsUrl | None = Field(default=None, description="null removes it.")


def asset_routes(deps: ApiDeps, slots: UploadSlots) -> Routes:
    """Declares the endpoints of assets and of their files."""
    node = deps.node
    assets, files, settings = node.store.assets, node.store.files, node.settings
    blobs = node.store.blobs
    routes = Routes("assets", deps, invalid=AssetInvalid)

    def view(call: RequestContext, asset: Asset) -> AssetView:
        return asset_view(asset, site_of(node, call))

    async def asset_of(call: RequestContext, world: World) -> Asset:
        id_ = call.args["asset"]
        asset = await assets.get(world.id, id_) if is_id(id_, "f") else None
        if asset is None:
            raise AssetNotFound
        return asset

    async def own_asset(call: RequestContext) -> tuple[World, Asset]:
        """The world and asset of the path. Raises PermissionDenied unless the caller may change
        them."""
        world = await own_world(node, call, call.args["ref"])
        return world, await asset_of(call, world)

    @routes.add(
        "GET",
        "/api/worlds/<ref>/assets",
        summary="List a world's assets",
        takes=TimePaging,
        gives=ListView[AssetView],
        errors=_WORLD,
        cached=_CACHED,
        remote=ListView[AssetView],
    )
    async def get_assets(call: RequestContext, params: TimePaging) -> ListView[AssetView]:
        """Lists the world's assets, oldest first."""
        world = await find_world(node, call, call.args["ref"])
        page = page_of(params, await assets.of(world.id), lambda one: (one.created_at, one.id))
        return list_view(page, partial(view, call))

    @routes.add(
        "PUT",
        "/api/worlds/<ref>/assets",
        summary="Create an asset",
        guests="own",
        takes=AssetCreate,
        gives=AssetView,
        need="required",
        errors=(*_WORLD, PermissionDenied, ResourceTaken, AssetExists, QuotaReached),
    )
    async def create_asset(call: RequestContext, params: AssetCreate) -> AssetView:
        """Creates an asset. Upload its file afterwards, unless it has a `url`. A world has at most
        one asset per version, engine and platform."""
        world = await own_world(node, call, call.args["ref"])
        async with unheld(node, call, world) as queries:
            asset = await assets.within(queries).create(
                world_id=world.id,
                version=params.version,
                engine=params.engine,
                platform=params.platform,
                url=params.url,
            )
        node.changed("world", world)
        return view(call, asset)

    @routes.add(
        "GET",
        "/api/worlds/<ref>/assets/<asset>",
        summary="Get an asset",
        gives=AssetView,
        errors=_ASSET,
        cached=_CACHED,
        remote=AssetView,
    )
    async def get_asset(call: RequestContext) -> AssetView:
        """Returns one asset of the world."""
        world = await find_world(node, call, call.args["ref"])
        return view(call, await asset_of(call, world))

    @routes.add(
        "POST",
        "/api/worlds/<ref>/assets/<asset>",
        summary="Update an asset",
        guests="own",
        takes=AssetUpdate,
        gives=AssetView,
        need="required",
        errors=(*_ASSET, PermissionDenied, ResourceTaken, AssetExists, FileExists),
    )
    async def update_asset(call: RequestContext, params: AssetUpdate) -> AssetView:
        """Changes the given fields. An asset with an uploaded file can't have a `url`."""
        world, asset = await own_asset(call)
        changes: dict[str, Any] = params.given()
        if changes:
            async with unheld(node, call, world) as queries:
                asset = await assets.within(queries).update(asset.id, **changes)
            node.changed("world", world)
        return view(call, asset)

    @routes.add(
        "DELETE",
        "/api/worlds/<ref>/assets/<asset>",
        summary="Delete an asset",
        guests="own",
        gives=NothingView,
        need="required",
        errors=(*_ASSET, PermissionDenied, ResourceTaken),
    )
    async def delete_asset(call: RequestContext) -> NothingView:
        """Deletes the asset. Its file is deleted too, unless another asset uses the same file."""
        world, asset = await own_asset(call)
        async with blobs.releasing() as loose:
            async with unheld(node, call, world) as queries:
                loose.update(await assets.within(queries).delete(asset.id))
            node.changed("world", world)
        return NothingView()

    @routes.add(
        "GET",
        "/api/worlds/<ref>/assets/<asset>/file",
        summary="Download an asset's file",
        gives=Download(BINARY, ranges=True),
        errors=(*_ASSET, FileNotUploaded, RangeInvalid),
    )
    async def get_file(call: RequestContext) -> Response:
        """Returns the file, or a part of it with `Range`. An asset without an uploaded file is
        refused with code 46; its file may be at its `url`."""
        world = await find_world(node, call, call.args["ref"])
        asset = await asset_of(call, world)
        if asset.hash is None:
            raise FileNotUploaded
        name = f"{world.title}-{asset.version}-{asset.engine}-{asset.platform}"
        return await download(
            call.request,
            files,
            asset.hash,
            kind=BINARY,
            private=is_private(world.tags),
            filename=safe_name(name, ".bin"),
            ranges=True,
        )

    @routes.add(
        "POST",
        "/api/worlds/<ref>/assets/<asset>/file",
        summary="Upload an asset's file",
        gives=AssetView,
        need="required",
        errors=(*_ASSET, PermissionDenied, ResourceTaken, FileExists, AssetFileInvalid, Overloaded),
        uploads=Upload(
            BINARY,
            "Any file: as the body itself, or as the field `file` of a form. It can't be replaced.",
        ),
    )
    async def upload_file(call: RequestContext) -> AssetView:
        """Uploads the file of an empty asset, once. An upload that is interrupted, too slow or too
        large leaves nothing behind."""
        world, asset = await own_asset(call)
        await ensure_unheld(node, call, world)
        if not asset.empty:
            raise FileExists
        room = await assets.room(world.owner)
        limit = min(settings.file_limit_bytes, room)
        if limit < 1:
            raise PayloadTooLarge.field("file", "exceeds the storage quota of the world's owner")
        with slots.slot(call.by.user.id, call.ip):
            async with blobs.releasing() as loose, files.upload(limit) as upload:
                await receive(call, upload.write, limit, AssetFileInvalid)
                if upload.size < 1:
                    raise AssetFileInvalid.field("file", "is empty")
                stored = await upload.commit()
                loose.add(stored.hash)
                async with unheld(node, call, world) as queries:
                    asset = await assets.within(queries).fill(asset.id, stored.hash, stored.size)
        node.changed("world", world)
        return view(call, asset)

    return routes
