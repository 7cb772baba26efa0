"""`/api/users/:id/sessions`: a user's sessions, seen and ended by itself and by admins."""

from __future__ import annotations

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import find_user, own_server
from api.http.pagination import Paging, listed
from api.http.registry.users import may_change
from reileta.errors import (
    PermissionDenied,
    ServerNotFound,
    SessionInvalid,
    SessionNotFound,
    UserNotFound,
)
from reileta.ids import is_id
from reileta.protocol.views.registry import ListView, NothingView
from reileta.protocol.views.session import SessionEntry
from reileta.records import Session, User


def user_session_routes(edge: ApiDeps) -> Routes:
    """The endpoints that list and end a user's sessions."""
    node, auth = edge.node, edge.auth
    sessions = node.store.sessions
    routes = Routes("user-sessions", edge, invalid=SessionInvalid)

    async def whose(call: RequestContext) -> User:
        own_server(node, call)
        user = await find_user(node, call, call.args["ref"])
        if not may_change(call, user):
            raise PermissionDenied
        return user

    @routes.add(
        "GET",
        "/api/users/<ref>/sessions",
        summary="List a user's sessions",
        takes=Paging,
        gives=ListView[SessionEntry],
        need="required",
        errors=(UserNotFound, ServerNotFound, PermissionDenied),
    )
    async def get_user_sessions(call: RequestContext, given: Paging) -> ListView[SessionEntry]:
        """The user's sessions that are alive, newest first; itself and admins see them."""
        user = await whose(call)
        page = await sessions.of_user(user.id, limit=given.limit, offset=given.offset)

        def view(one: Session) -> SessionEntry:
            return SessionEntry(one.id, one.created_at, one.id == call.by.session_id)

        return listed(page, view)

    @routes.add(
        "DELETE",
        "/api/users/<ref>/sessions/<session>",
        summary="End a user's session",
        gives=NothingView,
        need="required",
        errors=(UserNotFound, ServerNotFound, PermissionDenied, SessionNotFound),
    )
    async def end_user_session(call: RequestContext) -> NothingView:
        """Ends a session with all that hangs on it, as logging out of it does; the user itself and
        admins may."""
        user = await whose(call)
        id_ = call.args["session"]
        session = await sessions.get(id_) if is_id(id_, "s") else None
        if session is None or session.user_id != user.id or not await sessions.end(id_):
            raise SessionNotFound
        auth.forget_session(id_)
        await node.end_session(id_)
        return NothingView()

    return routes
