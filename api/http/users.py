"""`/api/users`: accounts as others see them, and as they see themselves (PROTOCOL §4)."""

from __future__ import annotations

from api.http.lists import Search, listed
from api.http.refs import find_user, own_server
from api.operations import Call, Edge, Routes
from reileta.errors import NotLoggedIn, ServerNotFound, UserInvalid, UserNotFound
from reileta.records import User
from reileta.views import ListView, UserMeView, UserView, user_view


def user_routes(edge: Edge) -> Routes:
    """The endpoints that read users."""
    node = edge.node
    routes = Routes("users", edge, invalid=UserInvalid)

    def view(user: User, call: Call) -> UserView | UserMeView:
        return user_view(user, node.status(user), call.user, node.address)

    @routes.add(
        "GET",
        "/api/users",
        summary="Search users",
        takes=Search,
        gives=ListView[UserView],
        errors=(ServerNotFound,),
    )
    async def get_users(call: Call, given: Search) -> ListView[UserView | UserMeView]:
        """Users whose username, displayname or description holds `query`."""
        own_server(node, call)
        page = await node.store.users.search(
            query=given.query, limit=given.limit, offset=given.offset
        )
        return listed(page, lambda user: view(user, call))

    @routes.add(
        "GET",
        "/api/users/<ref>",
        summary="Get a user",
        gives=(UserView, UserMeView),
        errors=(UserNotFound, ServerNotFound, NotLoggedIn),
    )
    async def get_user(call: Call) -> UserView | UserMeView:
        """A user by its id or username, or `@me`, `@server`, `@admin`; the asker as `UserMe`."""
        return view(await find_user(node, call, call.args["ref"]), call)

    return routes
