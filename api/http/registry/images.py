"""Image endpoints: thumbnails and banners of users, thumbnails of worlds.

Uploaded PNGs are decoded and encoded again, so that data hidden in them is not served to others
(`reileta/media/images.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from quart import Response

from api.http.downloads import download
from api.http.endpoint import ApiDeps, Download, RequestContext, Routes, Upload
from api.http.lookups import ensure_unheld, find_user, find_world, own_world, unheld
from api.http.presenters import ANY_USER, AnyUserView, show_user, show_world
from api.http.registry.users import ensure_may_change
from api.http.uploads import UploadSlots, receive_whole
from reileta.errors import (
    FileNotUploaded,
    ImageInvalid,
    NotLoggedIn,
    Overloaded,
    PermissionDenied,
    ReiletaError,
    ResourceTaken,
    ServerNotFound,
    UserCannotUpdate,
    UserNotFound,
    WorldNotFound,
)
from reileta.media.images import LIMIT_BYTES, LIMIT_SIDE, Pictures
from reileta.protocol.views.registry import NothingView, WorldView
from reileta.records import User
from reileta.rules.ratelimit import Rate
from reileta.rules.visibility import is_private
from reileta.store.database import Queries
from reileta.store.images import ImageKind

PNG: Final = "image/png"
PICTURES: Final = Rate(per_s=1, burst=20)
"""Image uploads per address: each can take a core some seconds."""

_UPLOAD: Final = Upload(
    PNG,
    f"A PNG of at most {LIMIT_BYTES} bytes and {LIMIT_SIDE} pixels a side: as the body itself, or"
    " as the field `file` of a form.",
)
_USER_ERRORS: Final = (UserNotFound, ServerNotFound)
_WORLD_ERRORS: Final = (WorldNotFound, ServerNotFound)
_KINDS: Final[tuple[ImageKind, ...]] = ("thumbnail", "banner")


def image_routes(deps: ApiDeps, slots: UploadSlots) -> Routes:
    """Declares the endpoints of images."""
    node = deps.node
    images, files, blobs = node.store.images, node.store.files, node.store.blobs
    pictures = Pictures()
    routes = Routes("pictures", deps, invalid=ImageInvalid)

    async def image_response(
        call: RequestContext, of: str, kind: ImageKind, *, private: bool
    ) -> Response:
        """The image of the user or world `of`. Raises FileNotUploaded if there is none."""
        image = await images.get(of, kind)
        if image is None:
            raise FileNotUploaded
        return await download(call.request, files, image.hash, kind=PNG, private=private)

    @asynccontextmanager
    async def user_change(call: RequestContext, user: User) -> AsyncIterator[Queries]:
        """Queries that change a user. Checks again that the caller may change it."""
        await call.renew()
        ensure_may_change(call, user)
        yield node.store.database

    async def store_image(
        call: RequestContext, of: str, kind: ImageKind, within: AbstractAsyncContextManager[Queries]
    ) -> None:
        """Receives the image in the request's body, and stores it with the queries of `within`."""
        with slots.slot(call.by.user.id, call.ip):
            data = await receive_whole(call, LIMIT_BYTES, ImageInvalid, kind=PNG)
            picture = await pictures.renew(data, field=kind)
            async with blobs.releasing() as loose, files.upload(len(picture.png)) as upload:
                await upload.write(picture.png)
                stored = await upload.commit()
                loose.add(stored.hash)
                async with within as queries:
                    _, replaced = await images.within(queries).put(
                        of,
                        kind,
                        hash_=stored.hash,
                        size=stored.size,
                        width=picture.width,
                        height=picture.height,
                    )
                    loose.update(replaced)

    def declare_user_image(kind: ImageKind) -> None:
        """Declares the three endpoints of one kind of user image."""
        path = f"/api/users/<ref>/{kind}"

        async def get(call: RequestContext) -> Response:
            user = await find_user(node, call, call.args["ref"])
            return await image_response(call, user.id, kind, private=False)

        async def post(call: RequestContext) -> AnyUserView:
            user = await find_user(node, call, call.args["ref"])
            ensure_may_change(call, user)
            await store_image(call, user.id, kind, user_change(call, user))
            node.changed("user", user)
            return await show_user(node, call, user)

        async def delete(call: RequestContext) -> NothingView:
            user = await find_user(node, call, call.args["ref"])
            ensure_may_change(call, user)
            async with blobs.releasing() as loose:
                loose.update(await images.remove(user.id, kind))
                node.changed("user", user)
            return NothingView()

        declare(path, f"user_{kind}", f"a user's {kind}", get, post, delete, user=True)

    def declare(
        path: str,
        name: str,
        what: str,
        get: Callable[[RequestContext], Awaitable[object]],
        post: Callable[[RequestContext], Awaitable[object]],
        delete: Callable[[RequestContext], Awaitable[object]],
        *,
        user: bool,
    ) -> None:
        errors: tuple[type[ReiletaError], ...] = _USER_ERRORS if user else _WORLD_ERRORS
        refused: tuple[type[ReiletaError], ...]
        refused = (UserCannotUpdate,) if user else (PermissionDenied, ResourceTaken)
        get.__name__ = f"get_{name}"
        get.__doc__ = "Returns the PNG. If there is none, it is refused with code 46."
        post.__name__ = f"set_{name}"
        post.__doc__ = "Replaces the image. The server decodes the PNG and encodes it again."
        delete.__name__ = f"delete_{name}"
        delete.__doc__ = "Removes the image. If there is none, it is refused with code 46."
        routes.add(
            "GET",
            path,
            summary=f"Get {what}",
            gives=Download(PNG),
            errors=(*errors, FileNotUploaded, NotLoggedIn),
        )(get)
        routes.add(
            "POST",
            path,
            summary=f"Set {what}",
            gives=ANY_USER if user else WorldView,
            need="required",
            errors=(*errors, *refused, ImageInvalid, Overloaded),
            rate=PICTURES,
            uploads=_UPLOAD,
        )(post)
        routes.add(
            "DELETE",
            path,
            summary=f"Remove {what}",
            gives=NothingView,
            need="required",
            errors=(*errors, *refused, FileNotUploaded),
        )(delete)

    def declare_world_thumbnail() -> None:
        async def get(call: RequestContext) -> Response:
            world = await find_world(node, call, call.args["ref"])
            private = is_private(world.tags)
            return await image_response(call, world.id, "thumbnail", private=private)

        async def post(call: RequestContext) -> WorldView:
            world = await own_world(node, call, call.args["ref"])
            await ensure_unheld(node, call, world)
            await store_image(call, world.id, "thumbnail", unheld(node, call, world))
            node.changed("world", world)
            return await show_world(node, call, world)

        async def delete(call: RequestContext) -> NothingView:
            world = await own_world(node, call, call.args["ref"])
            async with blobs.releasing() as loose:
                async with unheld(node, call, world) as queries:
                    loose.update(await images.within(queries).remove(world.id, "thumbnail"))
                node.changed("world", world)
            return NothingView()

        declare(
            "/api/worlds/<ref>/thumbnail",
            "world_thumbnail",
            "a world's thumbnail",
            get,
            post,
            delete,
            user=False,
        )

    for kind in _KINDS:
        declare_user_image(kind)
    declare_world_thumbnail()
    return routes
