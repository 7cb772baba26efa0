"""Endpoints of integrity: `/api/integrity`, by which a user of one server is a guest at another."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from pydantic import Field

from actors.federation.guests import Introduction
from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server
from api.http.pagination import AFTER, Paging, list_view
from api.http.presenters import site_of
from reileta.errors import (
    BadData,
    BadRedirect,
    ChallengeRefused,
    CredentialInvalid,
    IntegrityInvalid,
    IntegrityNotFound,
    MalformedData,
    NoData,
    NoResponse,
    NotLoggedIn,
    Overloaded,
    ServerBlocked,
    ServerNotFound,
)
from reileta.ids import At, at
from reileta.protocol.input_types import DisplayName, Input, NumberCursor, Reference
from reileta.protocol.views.integrity import (
    IntegrityView,
    IssuedIntegrityView,
    integrity_view,
    visit_view,
)
from reileta.protocol.views.registry import ListView, NothingView
from reileta.rules.federation.addresses import canonical
from reileta.rules.federation.introductions import followed_users, introduced_user, picture_of

FOLLOWS_LIMIT: Final = 1000
"""Users of this server that one introduction can name as followed."""
_REMOTE: Final = (NoResponse, NoData, BadData, BadRedirect, MalformedData)


class IntegrityCreate(Input):
    """The server that the user wants to visit."""

    server: Reference = Field(
        description="The address of another server.", examples=["far.example"]
    )


class IntroductionInput(Input):
    """A user of the server that sends it, as this server is to know it."""

    user: Reference = Field(
        description="`UserIDAt`, of exactly the server that sends it.",
        examples=["u_7f8c2c61-0d2b-4c8e-9e1f-3a7d5f0b9c11@home.example"],
    )
    displayname: DisplayName
    thumbnail: Reference | None = Field(
        default=None,
        description="The https URL of a picture at that server. Any other URL is ignored.",
        examples=["https://home.example/api/users/u_7f8c2c61/thumbnail"],
    )
    follows: Annotated[list[Reference], Field(max_length=FOLLOWS_LIMIT)] = Field(
        default_factory=list,
        examples=[["u_2b1d9c34-5e6f-4a70-8b9c-0d1e2f3a4b5c@play.example.org"]],
        description="The users of this server whom it follows, as `u_…@server`: two who follow"
        " each other are friends.",
    )


class IntegritySearch(Paging):
    """Which tokens to list."""

    after: NumberCursor | None = Field(default=None, description=AFTER)
    user: Reference | None = Field(
        default=None,
        description="For admins: only those of this guest, or with `@me` the admin's own at other"
        " servers.",
    )


def integrity_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints."""
    node = deps.node
    guests = node.store.guests
    routes = Routes("integrity", deps, invalid=IntegrityInvalid)

    @routes.add(
        "GET",
        "/api/integrity",
        summary="List integrity tokens",
        takes=IntegritySearch,
        gives=ListView[IntegrityView],
        need="optional",
        errors=(NotLoggedIn, ServerNotFound),
    )
    async def get_integrity(
        call: RequestContext, params: IntegritySearch
    ) -> ListView[IntegrityView]:
        """Lists valid tokens, the oldest first, without the tokens themselves. A user gets its own
        at other servers, a guest its own here, a server those of its users here, and an admin those
        of all guests here."""
        ensure_known(call)
        ensure_own_server(node, call)
        limit, offset, after = params.limit, params.offset, params.after
        tokens = partial(guests.tokens, limit=limit, offset=offset, after=after)
        if call.server is not None:
            page = await tokens(server=call.server.address)
        elif call.by.guest:
            page = await tokens(user=call.by.user.id)
        elif call.admin and params.user != "@me":
            page = await tokens(user=str(At.parse(params.user)) if params.user else None)
        else:
            visits = await guests.visits(call.by.user.id, limit=limit, offset=offset, after=after)
            return list_view(visits, partial(visit_view, address=node.address))
        return list_view(page, partial(integrity_view, address=node.address))

    @routes.add(
        "PUT",
        "/api/integrity",
        summary="Introduce a user",
        takes=IntroductionInput,
        gives=IssuedIntegrityView,
        need="required",
        only="server",
        errors=(IntegrityInvalid,),
        name="introduce_user",
    )
    async def introduce(call: RequestContext, params: IntroductionInput) -> IssuedIntegrityView:
        """Another server introduces a user of its own, and gets a token for it: the user is a guest
        here for an hour. A further token of the same user continues the same session. For servers
        only."""
        server = call.by_server.address
        user = introduced_user(params.user, server)
        known = await node.store.servers.get(server)
        places = [server] if known is None else [server, known.gateway_http, known.gateway_ws]
        welcome = await node.guests.admit(
            server,
            Introduction(
                user,
                params.displayname,
                picture_of(params.thumbnail, places),
                followed_users(params.follows, node.address),
            ),
        )
        for evicted in welcome.evicted:
            deps.token_revoked(evicted)
        stored = welcome.stored
        return IssuedIntegrityView(
            id=stored.id,
            user=stored.user,
            server=node.address,
            created_at=stored.created_at,
            expires_at=stored.expires_at,
            token=welcome.token,
        )

    @routes.add(
        "POST",
        "/api/integrity",
        summary="Visit another server",
        takes=IntegrityCreate,
        gives=IssuedIntegrityView,
        need="required",
        errors=(IntegrityInvalid, ServerBlocked, ChallengeRefused, Overloaded, *_REMOTE),
        audited=False,
        name="visit_server",
    )
    async def visit(call: RequestContext, params: IntegrityCreate) -> IssuedIntegrityView:
        """Gets a token of another server for the user, who is a guest there with it for an hour.
        This server introduces the user by its displayname, its thumbnail and whom it follows there.
        The token is revoked when the session that asked for it ends."""
        try:
            server = canonical(params.server)
        except ValueError as error:
            raise IntegrityInvalid.field("server", str(error)) from None
        if server == node.address:
            raise IntegrityInvalid.field("server", "must be another server")
        deps.limits.visit(call.by)
        begun = await node.visits.begin(
            call.by.user, call.by.session_id, server, site_of(node, call)
        )
        try:
            await call.renew()  # it may have logged out meanwhile
        except CredentialInvalid:
            await node.visits.end(begun.visit.id, user_id=call.by.user.id)
            raise
        view = visit_view(begun.visit, address=node.address)
        return IssuedIntegrityView(
            id=view.id,
            user=view.user,
            server=view.server,
            created_at=view.created_at,
            expires_at=view.expires_at,
            token=begun.token,
        )

    @routes.add(
        "DELETE",
        "/api/integrity/<token>",
        summary="Revoke an integrity token",
        gives=NothingView,
        need="optional",
        errors=(NotLoggedIn, IntegrityNotFound),
        guests="yes",
        name="revoke_integrity",
    )
    async def revoke(call: RequestContext) -> NothingView:
        """Revokes a token by its id: its WebSockets close (4000). A guest may do this, the server
        that introduced it, and admins. A user can end its own visit at another server, which is
        asked to revoke the token."""
        ensure_known(call)
        id_ = call.args["token"]
        if call.server is not None:
            revoked = await guests.revoke(id_, server=call.server.address)
            by = call.server.address
        elif call.by.guest:
            revoked = await guests.revoke(id_, user=call.by.user.id)
            by = call.by.user.id
        else:
            by = at(call.by.user.id, node.address)
            if await node.visits.end(id_, user_id=call.by.user.id):
                return NothingView()
            if not call.admin:
                raise IntegrityNotFound
            revoked = await guests.revoke(id_)
        deps.auth.forget_token(revoked.hash)
        node.guests.revoked(revoked, by)
        return NothingView()

    def ensure_known(call: RequestContext) -> None:
        """Raises NotLoggedIn unless a user, a guest or another server has sent the request."""
        if call.server is None and call.principal is None:
            raise NotLoggedIn

    return routes
