"""Follow endpoints: `/api/users/:id/follows` and `/api/users/:id/followers`."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import Cached
from api.http.lookups import find_user
from api.http.pagination import AFTER, Paging, TimePaging, list_view, page_of
from reileta.errors import (
    AlreadyFollowing,
    NotLoggedIn,
    ServerBlocked,
    ServerNotFound,
    UserCannotFetch,
    UserCannotUpdate,
    UserInvalid,
    UserNotFound,
)
from reileta.ids import At, is_user_at, server_of
from reileta.protocol.input_types import FollowerCursor
from reileta.protocol.views.registry import FollowView, ListView, NothingView, follow_view
from reileta.records import Follow, Page, User

_ERRORS = (UserNotFound, ServerNotFound, NotLoggedIn)
_CACHED: Final = Cached(
    ("users", "follows", "guests", "integrity_tokens", "server_rules", "vouched_follows")
)


class FollowerPaging(Paging):
    """Which page of the followers to return."""

    after: FollowerCursor | None = Field(default=None, description=AFTER)


def follow_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints that create, list and delete follows."""
    node = deps.node
    follows = node.store.follows
    routes = Routes("follows", deps, invalid=UserInvalid)

    async def own_user(
        call: RequestContext, error: type[UserCannotFetch] | type[UserCannotUpdate]
    ) -> User:
        """The user of the path. Raises `error` unless the caller is that user or an admin."""
        user = await find_user(node, call, call.args["ref"])
        if user.id != call.by.user.id and not call.admin:
            raise error
        return user

    async def followed_id(call: RequestContext) -> str:
        """The id of the followed user; for users of other servers, `UserIDAt`."""
        other = At.parse(call.args["other"])
        if is_user_at(str(other)) and not other.local_to(node.address):
            return str(other)
        return (await find_user(node, call, str(other))).id

    async def publish(user: User, followed: str) -> None:
        """Publishes the change of a follow, which can begin or end a friendship.

        Both users are published together, so that neither sees an outdated view of the other.
        """
        friend = await known_user(followed)
        node.changed("user", user, frozenset({followed}))
        if friend is not None:
            node.changed("user", friend, frozenset({user.id}))

    async def known_user(reference: str) -> User | None:
        """The user of this server, or the guest."""
        if server_of(reference) is None:
            return await node.store.users.by_id(reference)
        guest = await node.store.guests.get(reference)
        return None if guest is None else guest.as_user()

    async def follow_list(
        user: User, page: Page[Follow], other: Literal["followed", "follower"]
    ) -> ListView[FollowView]:
        """The page as views of the other user of each follow."""
        friends = await follows.among(user.id, [getattr(follow, other) for follow in page.items])
        return list_view(
            page,
            lambda follow: follow_view(
                getattr(follow, other),
                follow.following_at,
                friend=getattr(follow, other) in friends,
                address=node.address,
            ),
        )

    @routes.add(
        "PUT",
        "/api/users/<ref>/follows/<other>",
        summary="Follow a user",
        gives=FollowView,
        need="required",
        errors=(*_ERRORS, AlreadyFollowing, UserCannotUpdate, UserInvalid, ServerBlocked),
        audited=False,
    )
    async def follow_user(call: RequestContext) -> FollowView:
        """Follows a user of this server, or of another one (`u_…@server`). Two users who follow
        each other are friends. The user itself and admins may do this."""
        user = await own_user(call, UserCannotUpdate)
        followed = await followed_id(call)
        server = server_of(followed)
        if server is not None:
            node.servers.ensure_allowed(server)
        follow = await follows.put(user.id, followed)
        await publish(user, follow.followed)
        friend = await follows.is_friend(user.id, follow.followed)
        return follow_view(
            follow.followed, follow.following_at, friend=friend, address=node.address
        )

    @routes.add(
        "DELETE",
        "/api/users/<ref>/follows/<other>",
        summary="Unfollow a user",
        gives=NothingView,
        need="required",
        errors=(*_ERRORS, UserCannotUpdate),
        audited=False,
    )
    async def unfollow_user(call: RequestContext) -> NothingView:
        """Unfollows a user. It is not an error if the user was not followed. The user itself and
        admins may do this."""
        user = await own_user(call, UserCannotUpdate)
        followed = await followed_id(call)
        if await follows.remove(user.id, followed):
            await publish(user, followed)
        return NothingView()

    @routes.add(
        "GET",
        "/api/users/<ref>/follows",
        summary="List a user's follows",
        takes=TimePaging,
        gives=ListView[FollowView],
        need="required",
        errors=(*_ERRORS, UserCannotFetch),
        cached=_CACHED,
    )
    async def get_follows(call: RequestContext, params: TimePaging) -> ListView[FollowView]:
        """Lists the users that this user follows, oldest follow first. Users of blocked servers are
        left out. For the user itself and admins."""
        user = await own_user(call, UserCannotFetch)
        page = page_of(
            params, await follows.of(user.id), lambda one: (one.following_at, one.followed)
        )
        return await follow_list(user, page, "followed")

    @routes.add(
        "GET",
        "/api/users/<ref>/followers",
        summary="List a user's followers",
        takes=FollowerPaging,
        gives=ListView[FollowView],
        need="required",
        errors=(*_ERRORS, UserCannotFetch),
        cached=_CACHED,
    )
    async def get_followers(call: RequestContext, params: FollowerPaging) -> ListView[FollowView]:
        """Lists the users that follow this user, oldest follow first. For the user itself and
        admins."""
        user = await own_user(call, UserCannotFetch)
        page = await follows.followers(
            user.id, limit=params.limit, offset=params.offset, after=params.after
        )
        return await follow_list(user, page, "follower")

    return routes
