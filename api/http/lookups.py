"""Lookups of users, worlds and instances by the references that clients send.

A reference is an id, a name, either with `@server`, or `@me`, `@server`, `@admin` for users.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from actors.node import Node
from api.http.endpoint import RequestContext
from api.http.remote import named_server, servers_named
from reileta.errors import (
    GuestNotAllowed,
    InstanceNotFound,
    PermissionDenied,
    ResourceNotFound,
    ServerNotFound,
    UserNotFound,
    WorldNotFound,
)
from reileta.ids import At, is_id, is_instance_name, is_user_at, is_username
from reileta.records import InstanceRecord, User, World
from reileta.rules.federation.addresses import is_address, same_server
from reileta.rules.resource.resource import ResourceKey
from reileta.rules.resource.types import WORLD
from reileta.store.database import Queries
from reileta.store.worlds import Worlds

NOBODY: Final = ""
"""An owner id that no record has, so that a search with it returns nothing."""
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


def local(node: Node, call: RequestContext, text: str) -> str:
    """The id or name in a reference to an object of this server.

    Raises ServerNotFound if the suffix or `?server` names another server.
    """
    ensure_own_server(node, call)
    target = At.parse(text)
    if not target.local_to(node.address):
        raise ServerNotFound
    return target.id


def ensure_own_server(node: Node, call: RequestContext) -> None:
    """Raises ServerNotFound if `?server`, or the path of a collection, names another server.

    Operations that can be about objects of other servers don't come here then
    (`api/http/remote.py`).
    """
    for server in servers_named(call.request, call.args):
        if not same_server(server, node.address):
            raise ServerNotFound


async def find_user(node: Node, call: RequestContext, text: str) -> User:
    """The user of a reference.

    Raises:
        ServerNotFound: it names another server.
        NotLoggedIn: it is `@me`, and the request has no credential.
        UserNotFound: there is no such user.
    """
    id_ = local(node, call, text)
    if id_ == "@me":
        return call.by.user
    users = node.store.users
    if id_ == "@server":
        return await users.server_account()
    if id_ == "@admin":
        return await users.main_admin()
    user = None
    if is_id(id_, "u") or is_username(id_):
        user = await users.find(id_)
    if user is None:
        raise UserNotFound
    return user


async def find_user_or_guest(node: Node, call: RequestContext) -> User:
    """The user whom the path names, who can be a guest that was here. Raises as `find_user`."""
    text = call.args["ref"]
    server = named_server(call.request, call.args, node.address)
    if server is None:
        return await find_user(node, call, text)
    name = str(At(At.parse(text).id, server))
    guest = await node.store.guests.get(name) if is_user_at(name) else None
    if guest is None:
        raise UserNotFound
    return guest.as_user()


async def find_owner(node: Node, call: RequestContext, text: str | None) -> str | None:
    """The owner id of a filter, as records store it; `NOBODY` if there is no such user.

    None without a filter. Raises NotLoggedIn for `@me` without a credential.
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


def world_ref(node: Node, text: str) -> str | None:
    """A `WorldIDAt` as records store it: without this server's own address.

    None if it is not `w_…` or `w_…:version`, optionally with `@server`.
    """
    target = At.parse(text)
    id_, colon, version = target.id.partition(":")
    if not is_id(id_, "w") or (colon and _VERSION.fullmatch(version) is None):
        return None
    if target.server is not None and not is_address(target.server):
        return None
    return target.id if target.local_to(node.address) else str(target)


async def find_world(node: Node, call: RequestContext, text: str) -> World:
    """The world of a reference, if the caller may see it (`reileta/rules/visibility.py`).

    Raises ServerNotFound, and WorldNotFound also if the caller may not see it.
    """
    id_ = local(node, call, text)
    world = await node.store.worlds.get(id_) if is_id(id_, "w") else None
    if world is None:
        raise WorldNotFound
    audience = await node.store.worlds.audience(world)
    if not audience.admits(None if call.user is None else call.user.id, admin=call.admin):
        raise WorldNotFound
    return world


async def own_world(node: Node, call: RequestContext, text: str) -> World:
    """The world of a reference, if the caller may change it: its owner and admins.

    Raises as `find_world`, and PermissionDenied.
    """
    world = await find_world(node, call, text)
    ensure_owner(call, world.owner)
    return world


def ensure_owner(call: RequestContext, owner: str) -> None:
    """Raises PermissionDenied unless the caller is the owner of an object or an admin, and
    GuestNotAllowed if it is a guest."""
    if not call.admin and owner != call.by.user.id:
        raise GuestNotAllowed if call.by.guest else PermissionDenied


async def ensure_unheld(node: Node, call: RequestContext, world: World) -> None:
    """Checks the same as `unheld` without a transaction, before expensive work such as an upload.

    Raises ResourceTaken and WorldNotFound.
    """
    try:
        resource = await node.store.resources.get(ResourceKey(WORLD, world.number))
    except ResourceNotFound:
        raise WorldNotFound from None
    resource.ensure_unheld(call.by.session_id)


@asynccontextmanager
async def unheld(node: Node, call: RequestContext, world: World) -> AsyncIterator[Queries]:
    """A transaction that changes the world or its assets, while no other session holds it.

    Nobody can acquire the world during the transaction. The caller's permission is checked again,
    because an upload may have taken long since the first check.

    Raises ResourceTaken, WorldNotFound if the world was deleted, PermissionDenied if the caller may
    not change it any more, and the errors of `RequestContext.renew`.
    """
    await call.renew()
    key = ResourceKey(WORLD, world.number)
    try:
        async with node.store.leases.unheld(key, call.by.session_id) as queries:
            current = await Worlds(queries, node.clock).get(world.id)
            if current is None:
                raise WorldNotFound
            ensure_owner(call, current.owner)
            yield queries
    except ResourceNotFound:
        raise WorldNotFound from None
    node.resources.changed(world.number)


async def find_instance(node: Node, call: RequestContext, text: str) -> InstanceRecord:
    """The instance of an id or name, if the caller may see it (`reileta/rules/visibility.py`).

    Raises ServerNotFound, and InstanceNotFound also if the caller may not see it.
    """
    id_ = local(node, call, text)
    valid = is_id(id_, "i") or is_instance_name(id_)
    instance = await node.store.instances.get(id_) if valid else None
    if instance is None or not await node.instances.shows(instance, call.principal):
        raise InstanceNotFound
    return instance
