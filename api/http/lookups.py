"""What an `:id` in a path or a query means: `id`, `name`, `id@server`, `@me` (PROTOCOL §1)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from api.http.endpoint import RequestContext
from api.node_api import NodePort
from reileta.errors import (
    InstanceNotFound,
    PermissionDenied,
    ResourceNotFound,
    ServerNotFound,
    UserNotFound,
    WorldNotFound,
)
from reileta.ids import At, is_id, is_instance_name, is_username
from reileta.records import Instance, User, World
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import WORLD
from reileta.store.database import Queries
from reileta.store.worlds import Worlds

NOBODY: Final = ""
"""An owner that no record has, so that a search for it finds nothing."""
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


def local(node: NodePort, call: RequestContext, text: str) -> str:
    """The id or name of something of this server.

    Raises `ServerNotFound` when the suffix or `?server` name another server.
    """
    own_server(node, call)
    target = At.parse(text)
    if not target.local_to(node.address):
        raise ServerNotFound
    return target.id


def own_server(node: NodePort, call: RequestContext) -> None:
    """Raises `ServerNotFound` when `?server` names another server."""
    server = call.request.args.get("server")
    if server is not None and server != node.address:
        raise ServerNotFound


async def find_user(node: NodePort, call: RequestContext, text: str) -> User:
    """The user that a reference means.

    Raises:
        ServerNotFound: it is of another server.
        NotLoggedIn: it is `@me`, and nobody is logged in.
        UserNotFound: there is none.
    """
    ref = local(node, call, text)
    if ref == "@me":
        return call.by.user
    users = node.store.users
    if ref == "@server":
        return await users.server_account()
    if ref == "@admin":
        return await users.main_admin()
    user = None
    if is_id(ref, "u") or is_username(ref):
        user = await users.find(ref)
    if user is None:
        raise UserNotFound
    return user


async def find_owner(node: NodePort, call: RequestContext, text: str | None) -> str | None:
    """The owner that a filter means, as records keep it: `NOBODY` when there can be none.

    None without a filter. Raises `NotLoggedIn` for `@me` of nobody.
    """
    if text is None:
        return None
    target = At.parse(text)
    if not target.local_to(node.address):
        return str(target)
    if is_id(target.id, "u"):
        return target.id
    try:
        return (await find_user(node, call, target.id)).id if target.id else NOBODY
    except UserNotFound:
        return NOBODY


def world_ref(node: NodePort, text: str) -> str | None:
    """A `WorldIDAt` as records keep it: without this server's own address.

    None for what is no `w_…`, `w_…:version` or either with `@server`.
    """
    target = At.parse(text)
    id_, colon, version = target.id.partition(":")
    if not is_id(id_, "w") or (colon and _VERSION.fullmatch(version) is None):
        return None
    return target.id if target.local_to(node.address) else str(target)


async def find_world(node: NodePort, call: RequestContext, text: str) -> World:
    """The world that a reference means, if the asker may see it (`reileta/rules/visibility.py`).

    Raises `ServerNotFound`, and `WorldNotFound` also for one that the asker may not see.
    """
    ref = local(node, call, text)
    world = await node.store.worlds.get(ref) if is_id(ref, "w") else None
    if world is None:
        raise WorldNotFound
    audience = await node.store.worlds.audience(world)
    if not audience.admits(None if call.user is None else call.user.id, admin=call.admin):
        raise WorldNotFound
    return world


async def own_world(node: NodePort, call: RequestContext, text: str) -> World:
    """The world that a reference means, if the asker may change it: its owner, and admins.

    Raises as `find_world`, and PermissionDenied.
    """
    world = await find_world(node, call, text)
    ensure_owner(call, world)
    return world


def ensure_owner(call: RequestContext, world: World) -> None:
    """Raises PermissionDenied for all but the world's owner and admins."""
    if not call.admin and world.owner != call.by.user.id:
        raise PermissionDenied


async def ensure_unheld(node: NodePort, call: RequestContext, world: World) -> None:
    """Raises what `unheld` raises, as it is now: before work that would be done in vain."""
    try:
        resource = await node.store.resources.get(ResourceKey(WORLD, world.number))
    except ResourceNotFound:
        raise WorldNotFound from None
    resource.ensure_unheld(call.by.session_id)


@asynccontextmanager
async def unheld(node: NodePort, call: RequestContext, world: World) -> AsyncIterator[Queries]:
    """A transaction for a change of the world or of what belongs to it, in which no other session
    has acquired it, nor can. The asker and the world are judged as they are now, for what
    came before may have taken its time.

    Raises ResourceTaken, WorldNotFound if it was deleted meanwhile, PermissionDenied if the asker
    may not change it any more, and what `RequestContext.renew` raises.
    """
    await call.renew()
    name = ResourceKey(WORLD, world.number)
    try:
        async with node.store.leases.unheld(name, call.by.session_id) as queries:
            now = await Worlds(queries, node.clock).get(world.id)
            if now is None:
                raise WorldNotFound
            ensure_owner(call, now)
            yield queries
    except ResourceNotFound:
        raise WorldNotFound from None


async def find_instance(node: NodePort, call: RequestContext, text: str) -> Instance:
    """The instance that an id or name means, if the asker may see it
    (`reileta/rules/visibility.py`).

    Raises `ServerNotFound`, and `InstanceNotFound` also for one that the asker may not see.
    """
    ref = local(node, call, text)
    known = is_id(ref, "i") or is_instance_name(ref)
    instance = await node.store.instances.get(ref) if known else None
    if instance is None or not await node.shows(instance, call.principal):
        raise InstanceNotFound
    return instance
