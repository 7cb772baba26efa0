"""Endpoints that list and end a user's sessions: `/api/users/:id/sessions`."""

from __future__ import annotations

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server, find_user
from api.http.pagination import TimePaging, list_view
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
from reileta.records import SessionRecord, User


def user_session_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints, for the user itself and admins."""
    node = deps.node
    sessions = node.store.sessions
    routes = Routes("user-sessions", deps, invalid=SessionInvalid)

    async def own_user(call: RequestContext) -> User:
        """The user of the path. Raises PermissionDenied unless the caller is it or an admin."""
        ensure_own_server(node, call)
        user = await find_user(node, call, call.args["ref"])
        if not may_change(call, user):
            raise PermissionDenied
        return user

    @routes.add(
        "GET",
        "/api/users/<ref>/sessions",
        summary="List a user's sessions",
        takes=TimePaging,
        gives=ListView[SessionEntry],
        need="required",
        errors=(UserNotFound, ServerNotFound, PermissionDenied),
    )
    async def get_user_sessions(call: RequestContext, params: TimePaging) -> ListView[SessionEntry]:
        """Lists the user's open sessions, newest first. For the user itself and admins."""
        user = await own_user(call)
        page = await sessions.of_user(
            user.id, limit=params.limit, offset=params.offset, after=params.after
        )

        def view(session: SessionRecord) -> SessionEntry:
            return SessionEntry(session.id, session.created_at, session.id == call.by.session_id)

        return list_view(page, view)

    @routes.add(
        "DELETE",
        "/api/users/<ref>/sessions/<session>",
        summary="End a user's session",
        gives=NothingView,
        need="required",
        errors=(UserNotFound, ServerNotFound, PermissionDenied, SessionNotFound),
        temporary=True,
    )
    async def end_user_session(call: RequestContext) -> NothingView:
        """Ends a session: revokes its tokens, closes its WebSockets (4000) and removes its players.
        The user itself and admins may do this."""
        user = await own_user(call)
        id_ = call.args["session"]
        session = await sessions.get(id_) if is_id(id_, "s") else None
        if session is None or session.user_id != user.id or not await sessions.end(id_):
            raise SessionNotFound
        await deps.session_ended(id_)
        return NothingView()

    return routes
