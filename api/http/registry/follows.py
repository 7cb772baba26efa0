"""`/api/users/:id/follows` and `/followers`: who follows whom (PROTOCOL §4)."""

from __future__ import annotations

from typing import Final

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_user
from api.http.pagination import Paging, listed, part
from reileta.errors import (
    AlreadyFollowing,
    NotLoggedIn,
    ServerNotFound,
    UserCannotFetch,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
)
from reileta.ids import At, is_user_at
from reileta.protocol.views.registry import FollowView, ListView, NothingView, follow_view
from reileta.records import Follow, Page, User

_ERRORS = (UserNotFound, ServerNotFound, NotLoggedIn)
_SHOWN: Final = Cached(("users", "follows"))


def follow_routes(edge: ApiDeps) -> Routes:
    """The endpoints that make and show follows."""
    node = edge.node
    follows = node.store.follows
    routes = Routes("follows", edge, invalid=UserInvalid)

    async def own(
        call: RequestContext, error: type[UserCannotFetch] | type[UserCannotUpdate]
    ) -> User:
        """The user of the path, who asks itself or has an admin ask."""
        user = await find_user(node, call, call.args["ref"])
        if user.id != call.by.user.id and not call.admin:
            raise error
        return user

    async def other(call: RequestContext) -> str:
        """Who is followed: a user of this server, or the `UserIDAt` of another's."""
        text = call.args["other"]
        if is_user_at(text) and not At.parse(text).local_to(node.address):
            return text
        return (await find_user(node, call, text)).id

    async def tell(user: User, followed: str) -> None:
        """The user follows others than before; and the other may be a friend now, or no more.

        Both at once, so that neither is shown to the other as it was before.
        """
        friend = await node.store.users.by_id(followed)
        node.changed("user", user, frozenset({followed}))
        if friend is not None:
            node.changed("user", friend, frozenset({user.id}))

    async def shown(user: User, page: Page[Follow], whom: str) -> ListView[FollowView]:
        others = [getattr(one, whom) for one in page.items]
        friends = await follows.among(user.id, others)
        return listed(
            page,
            lambda one: follow_view(
                getattr(one, whom),
                one.following_at,
                friend=getattr(one, whom) in friends,
                address=node.address,
            ),
        )

    @routes.add(
        "PUT",
        "/api/users/<ref>/follows/<other>",
        summary="Follow a user",
        gives=FollowView,
        need="required",
        errors=(*_ERRORS, AlreadyFollowing, UserCannotUpdate, UserInvalid),
    )
    async def follow_user(call: RequestContext) -> FollowView:
        """Follows another, of this server or (as `u_…@server`) of another one. Two who follow each
        other are friends. The user itself and admins may."""
        user = await own(call, UserCannotUpdate)
        made = await follows.put(user.id, await other(call))
        await tell(user, made.followed)
        friend = await follows.is_friend(user.id, made.followed)
        return follow_view(made.followed, made.following_at, friend=friend, address=node.address)

    @routes.add(
        "DELETE",
        "/api/users/<ref>/follows/<other>",
        summary="Follow a user no more",
        gives=NothingView,
        need="required",
        errors=(*_ERRORS, UserCannotUpdate),
    )
    async def unfollow_user(call: RequestContext) -> NothingView:
        """Follows another no more; to follow nobody of that name is no error."""
        user = await own(call, UserCannotUpdate)
        followed = await other(call)
        if await follows.remove(user.id, followed):
            await tell(user, followed)
        return NothingView()

    @routes.add(
        "GET",
        "/api/users/<ref>/follows",
        summary="List whom a user follows",
        takes=Paging,
        gives=ListView[FollowView],
        need="required",
        errors=(*_ERRORS, UserCannotFetch),
        shows=_SHOWN,
    )
    async def get_follows(call: RequestContext, given: Paging) -> ListView[FollowView]:
        """Whom the user follows, the first one first, for the user itself and admins."""
        user = await own(call, UserCannotFetch)
        return await shown(user, part(given, await follows.of(user.id)), "followed")

    @routes.add(
        "GET",
        "/api/users/<ref>/followers",
        summary="List a user's followers",
        takes=Paging,
        gives=ListView[FollowView],
        need="required",
        errors=(*_ERRORS, UserCannotFetch),
        shows=_SHOWN,
    )
    async def get_followers(call: RequestContext, given: Paging) -> ListView[FollowView]:
        """Who follows the user, the first one first, for the user itself and admins."""
        user = await own(call, UserCannotFetch)
        page = await follows.followers(user.id, limit=given.limit, offset=given.offset)
        return await shown(user, page, "follower")

    return routes
