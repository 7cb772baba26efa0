"""Views of users and worlds, as the caller may see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from actors.node import Node
from api.http.endpoint import RequestContext
from api.reached import gateway_of
from reileta.protocol.views.registry import (
    UserFriendView,
    UserMeView,
    UserView,
    WorldView,
    user_me_view,
    user_view,
    world_view,
)
from reileta.records import User, World
from reileta.site import Site

AnyUserView: TypeAlias = UserView | UserMeView | UserFriendView
ANY_USER = (UserMeView, UserFriendView, UserView)
"""All views of a user, for the documentation: the one with the most fields first."""


def site_of(node: Node, call: RequestContext) -> Site:
    """The server's URLs, with the scheme and the gateway that the caller used. A registry that was
    asked directly names a gateway that lives."""
    gateway = gateway_of(call.request)
    if not gateway and node.settings.registry_alone:
        known = node.gateway()
        if known is not None:
            return node.server.site_over(secure=known.secure, gateway=known.address)
    return node.server.site_over(secure=call.secure, gateway=gateway)


async def show_users(
    node: Node, call: RequestContext, users: Sequence[User]
) -> tuple[AnyUserView, ...]:
    """Views of users. Takes two to four queries for any number of users."""
    me, admin = None if call.user is None else call.user.id, call.admin
    ids = [user.id for user in users]
    private = ids if admin else [id_ for id_ in ids if id_ == me]
    profiles = await node.store.profiles.many(ids)
    if private:
        profiles |= await node.store.profiles.many(private, whole=True)
    friends = {} if me is None or admin else await node.store.follows.among(me, ids)
    site = site_of(node, call)
    return tuple(
        user_view(
            user,
            node.directory.status(user),
            site,
            viewer=me,
            admin=admin,
            friend_since=friends[user.id].following_at if user.id in friends else None,
            profile=profiles[user.id],
        )
        for user in users
    )


async def show_user(node: Node, call: RequestContext, user: User) -> AnyUserView:
    """The view of one user."""
    return (await show_users(node, call, [user]))[0]


async def show_me(node: Node, call: RequestContext, user: User) -> UserMeView:
    """The view that a user has of itself."""
    profile = await node.store.profiles.of(user.id)
    return user_me_view(user, node.directory.status(user), site_of(node, call), profile=profile)


async def show_worlds(
    node: Node, call: RequestContext, worlds: Sequence[World]
) -> tuple[WorldView, ...]:
    """Views of worlds, in two queries. The caller's permission must be checked before."""
    ids = [world.id for world in worlds]
    assets = await node.store.assets.of_many(ids)
    images = await node.store.images.of_many(ids)
    site = site_of(node, call)
    return tuple(
        world_view(
            world,
            site,
            assets=assets[world.id],
            pictured=(world.id, "thumbnail") in images,
        )
        for world in worlds
    )


async def show_world(node: Node, call: RequestContext, world: World) -> WorldView:
    """The view of one world."""
    return (await show_worlds(node, call, [world]))[0]
