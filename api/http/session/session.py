"""Session endpoint of the session API: `GET /session`, the caller's own session."""

from __future__ import annotations

from msgspec import Struct

from actors.node import Node
from api.http.endpoint import ApiDeps, RequestContext, Routes
from reileta.errors import SessionInvalid, SessionNotFound
from reileta.protocol.views.session import SessionView, held_view, session_view
from reileta.records import User


class SessionAnswer(Struct):
    """A session."""

    session: SessionView


async def show_session(node: Node, id_: str, user: User) -> SessionView:
    """A session as the database has it, which includes every acknowledged change.

    Raises SessionNotFound.
    """
    store = node.store
    state, _ = await store.states.load(id_)
    held = await store.leases.of_session(id_)
    if held is None:
        return session_view(id_, user, state, None)
    owner = await store.users.by_id(held.resource.owner)
    kind = store.resources.types.of(held.resource.type)
    return session_view(id_, user, state, held_view(held, kind, owner, user))


def session_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoint."""
    node = deps.node
    routes = Routes("sessions", deps, invalid=SessionInvalid, api="session")

    @routes.add(
        "GET",
        "/session",
        summary="Get your session",
        gives=SessionAnswer,
        need="required",
        errors=(SessionNotFound,),
    )
    async def get_session(call: RequestContext) -> SessionAnswer:
        """Returns the caller's session, with its state and its resource."""
        return SessionAnswer(await show_session(node, call.by.session_id, call.by.user))

    return routes
