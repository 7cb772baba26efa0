"""Endpoints for admins: suspensions, whereabouts, the audit log."""

from __future__ import annotations

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server, find_user, find_user_or_guest
from api.http.pagination import Paging, list_view
from api.http.presenters import ANY_USER, AnyUserView, show_user
from api.http.suspensions import Suspensions
from reileta.errors import ServerNotFound, UserCannotUpdate, UserInvalid, UserNotFound
from reileta.protocol.input_types import Input, Reason, Reference, TimeMs
from reileta.protocol.views.administration import (
    AuditEntryView,
    WhereaboutsView,
    audit_entry_view,
    whereabouts_view,
)
from reileta.protocol.views.registry import ListView


class SuspensionInput(Input):
    """Why, and for how long."""

    reason: Reason | None = Field(
        default=None,
        description="The user reads it when it tries to log in.",
        examples=["no spam"],
    )
    until: TimeMs | None = Field(
        default=None, description="When the suspension ends; without it, when it is lifted."
    )


class AuditSearch(Paging):
    """Which entries to list."""

    by: Reference | None = Field(default=None, description="Only actions of this admin.")
    target: Reference | None = Field(
        default=None, description="Only actions on this object: an id, a username or `@me`."
    )
    action: Reference | None = Field(
        default=None, description="Only this action.", examples=["suspend_user"]
    )


def administration_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints of suspensions, whereabouts and the audit log."""
    node = deps.node
    suspensions = Suspensions(deps)
    routes = Routes("administration", deps, invalid=UserInvalid)

    @routes.add(
        "POST",
        "/api/users/<ref>/suspension",
        summary="Suspend a user",
        takes=SuspensionInput,
        gives=ANY_USER,
        only="admin",
        need="required",
        errors=(UserNotFound, ServerNotFound, UserCannotUpdate),
    )
    async def suspend_user(call: RequestContext, params: SuspensionInput) -> AnyUserView:
        """Suspends an account: its sessions end, its WebSockets close (4000), its players leave,
        and logins get error 133. A second suspension replaces the first. Admins can't suspend
        themselves, the main admin and the server's own account."""
        user = await find_user(node, call, call.args["ref"])
        user = await suspensions.suspend(call, user, until=params.until, reason=params.reason)
        return await show_user(node, call, user)

    @routes.add(
        "DELETE",
        "/api/users/<ref>/suspension",
        summary="Lift a suspension",
        gives=ANY_USER,
        only="admin",
        need="required",
        errors=(UserNotFound, ServerNotFound),
    )
    async def unsuspend_user(call: RequestContext) -> AnyUserView:
        """Lifts the suspension of an account. It is not an error if there is none. Sessions that
        have ended stay so: the user logs in again."""
        user = await find_user(node, call, call.args["ref"])
        user = await suspensions.lift(call, user)
        return await show_user(node, call, user)

    @routes.add(
        "GET",
        "/api/users/<ref>/whereabouts",
        summary="Find a user",
        gives=WhereaboutsView,
        only="admin",
        need="required",
        errors=(UserNotFound, ServerNotFound),
        audited=True,
        about_guests=True,
    )
    async def get_whereabouts(call: RequestContext) -> WhereaboutsView:
        """Returns the user's sessions that are connected, or were a moment ago, with the instances
        they are inside, and the instances in whose queue the user waits. The user can be a guest,
        by `id@server`. Each request is in the audit log."""
        user = await find_user_or_guest(node, call)
        call.audit.about(user)
        return whereabouts_view(
            user.id,
            node.directory.status(user),
            node.sessions.presence(user.id),
            node.directory.candidacies(user.id),
        )

    @routes.add(
        "GET",
        "/api/audit",
        summary="List the audit log",
        takes=AuditSearch,
        gives=ListView[AuditEntryView],
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def get_audit(call: RequestContext, params: AuditSearch) -> ListView[AuditEntryView]:
        """Lists what admins and commands did, newest first."""
        ensure_own_server(node, call)
        page = await node.store.audit.search(
            by=await reference(call, params.by),
            target=await reference(call, params.target),
            action=params.action,
            limit=params.limit,
            offset=params.offset,
            after=params.after,
        )
        return list_view(page, audit_entry_view)

    async def reference(call: RequestContext, text: str | None) -> str | None:
        """The id of a user that exists, else the text itself: the log outlives users."""
        if text is None:
            return None
        try:
            return (await find_user(node, call, text)).id
        except UserNotFound:
            return text

    return routes
