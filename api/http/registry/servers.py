"""Endpoints for admins about other servers: what is known of them, and the rules about them."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server
from api.http.pagination import Paging, list_of, list_view
from reileta.errors import (
    BadData,
    BadRedirect,
    ChallengeRefused,
    MalformedData,
    NoData,
    NoResponse,
    Overloaded,
    ServerBlocked,
    ServerInvalid,
    ServerNotFound,
    VersionConflict,
)
from reileta.protocol.input_types import (
    CreateInput,
    HostPattern,
    Input,
    Reason,
    Reference,
    ServerAddress,
    TextCursor,
    TimeMs,
)
from reileta.protocol.views.federation import (
    PeerServerView,
    ServerRuleView,
    peer_view,
    rule_view,
)
from reileta.protocol.views.registry import ListView, NothingView
from reileta.records import PeerServer, PeerState
from reileta.rules.federation.addresses import canonical
from reileta.rules.federation.server_rules import RuleKind

REMOTE: Final = (NoResponse, NoData, BadData, BadRedirect, MalformedData)
"""The errors of requests to other servers."""


class ServerSearch(Paging):
    """Which servers to list."""

    after: TextCursor | None = Field(default=None, description="`next` of an answer.")
    state: PeerState | None = Field(default=None, description="Only servers in this state.")


class ServerContact(Input):
    """A server to get to know."""

    server: ServerAddress = Field(examples=["b.example.org"])


class KeyAcceptance(Input):
    """The key to accept."""

    accept_key: Reference = Field(
        description="The server's `offered_key`. If it has another one meanwhile: error 116.",
        examples=["tn1l3Cl-tyUW3vKlKVMmvXThmtSDyNxq1wFXqWHXVxk"],
    )


class RuleSearch(Paging):
    """Which rules to list."""

    after: TextCursor | None = Field(default=None, description="`next` of an answer.")
    kind: RuleKind | None = Field(default=None, description="Only rules of this kind.")


class RuleInput(CreateInput):
    """A rule about a host, and all hosts below it."""

    pattern: HostPattern = Field(description="The host; a port is ignored.")
    kind: RuleKind = Field(description="What the rule does.")
    reason: Reason | None = Field(default=None, description="For admins.", examples=["spam"])
    until: TimeMs | None = Field(
        default=None, description="When it ends; without it, when it is deleted."
    )


class RuleName(Input):
    """The rule to delete."""

    pattern: HostPattern = Field(description="As in the rule.")


def peer_server_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints about other servers."""
    node = deps.node
    routes = Routes("servers", deps, invalid=ServerInvalid)

    @routes.add(
        "GET",
        "/api/servers",
        summary="List other servers",
        takes=ServerSearch,
        gives=ListView[PeerServerView],
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def get_servers(call: RequestContext, params: ServerSearch) -> ListView[PeerServerView]:
        """Lists the servers that have proved who they are, and those whose key an admin must
        accept, by their addresses."""
        ensure_own_server(node, call)
        page = await node.store.servers.search(
            state=params.state, limit=params.limit, offset=params.offset, after=params.after
        )
        return list_of(page, await views(page.items))

    @routes.add(
        "POST",
        "/api/servers",
        summary="Get to know a server",
        takes=ServerContact,
        gives=PeerServerView,
        only="admin",
        need="required",
        errors=(ChallengeRefused, ServerBlocked, Overloaded, *REMOTE),
    )
    async def contact_server(call: RequestContext, params: ServerContact) -> PeerServerView:
        """Proves to another server who this one is, and gets a token there. This also happens when
        it is needed first; here an admin sees why it fails."""
        call.audit.add(server=params.server)
        if params.server == node.address:
            raise ServerInvalid.field("server", "must be another server")
        node.servers.ensure_allowed(params.server)
        await node.trust.challenger.challenge(params.server)
        return await view_of(params.server)

    @routes.add(
        "GET",
        "/api/servers/<peer>",
        summary="Get another server",
        gives=PeerServerView,
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def get_peer_server(call: RequestContext) -> PeerServerView:
        """Returns what is known of another server."""
        return await view_of(peer_of(call))

    @routes.add(
        "POST",
        "/api/servers/<peer>",
        summary="Accept a server's new key",
        takes=KeyAcceptance,
        gives=PeerServerView,
        only="admin",
        need="required",
        errors=(ServerNotFound, VersionConflict),
    )
    async def accept_server_key(call: RequestContext, params: KeyAcceptance) -> PeerServerView:
        """Pins a key of another server that does not follow from the key known before. Compare it
        with what the operator of that server says, on another way."""
        address = peer_of(call)
        call.audit.add(key=params.accept_key)
        accepted = await node.store.servers.accept_key(address, params.accept_key)
        server = await node.store.servers.get(address)
        if server is None:
            raise ServerNotFound
        if not accepted:
            raise VersionConflict.field("accept_key", "is not the key that the server offers now")
        node.trust.news.accepted(server, call.by.user.id)
        return await view_of(address)

    @routes.add(
        "DELETE",
        "/api/servers/<peer>",
        summary="Forget a server",
        gives=NothingView,
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def forget_server(call: RequestContext) -> NothingView:
        """Forgets another server: its key, its tokens here, this server's token there, and its
        guests, whose WebSockets close. If it comes again, it is a stranger. To keep it out, set a
        rule."""
        tokens = await node.guests.forget(peer_of(call), by=call.by.user.id)
        if tokens is None:
            raise ServerNotFound
        for token in tokens:
            deps.auth.forget_token(token)
        return NothingView()

    @routes.add(
        "GET",
        "/api/servers/rules",
        summary="List rules about servers",
        takes=RuleSearch,
        gives=ListView[ServerRuleView],
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def get_server_rules(
        call: RequestContext, params: RuleSearch
    ) -> ListView[ServerRuleView]:
        """Lists the rules about other servers, by their patterns."""
        ensure_own_server(node, call)
        page = await node.store.servers.search_rules(
            kind=params.kind, limit=params.limit, offset=params.offset, after=params.after
        )
        return list_view(page, rule_view)

    @routes.add(
        "PUT",
        "/api/servers/rules",
        summary="Set a rule about servers",
        takes=RuleInput,
        gives=ServerRuleView,
        only="admin",
        need="required",
        errors=(Overloaded,),
    )
    async def put_server_rule(call: RequestContext, params: RuleInput) -> ServerRuleView:
        """Sets the rule about a host and all hosts below it, in the place of an earlier one with
        that pattern. `block`: nothing goes there or comes from there; what came from there is gone
        at once. `silence`: it can read and be read, but its users can't come. `allow`: an
        exception, and what `--federation allowlist` needs. A block wins over all other rules."""
        call.audit.add(pattern=params.pattern, kind=params.kind, reason=params.reason)
        rule = await node.servers.put_rule(
            params.pattern,
            params.kind,
            by=call.by.user.id,
            reason=params.reason,
            until=params.until,
        )
        return rule_view(rule)

    @routes.add(
        "DELETE",
        "/api/servers/rules",
        summary="Delete a rule about servers",
        takes=RuleName,
        gives=NothingView,
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def delete_server_rule(call: RequestContext, params: RuleName) -> NothingView:
        """Deletes the rule with exactly that pattern."""
        call.audit.add(pattern=params.pattern)
        if not await node.servers.delete_rule(params.pattern, by=call.by.user.id):
            raise ServerNotFound.field("pattern", "there is no rule with that pattern")
        return NothingView()

    def peer_of(call: RequestContext) -> str:
        try:
            return canonical(call.args["peer"])
        except ValueError:
            raise ServerNotFound from None

    async def view_of(address: str) -> PeerServerView:
        server = await node.store.servers.get(address)
        if server is None:
            raise ServerNotFound
        (view,) = await views((server,))
        return view

    async def views(servers: tuple[PeerServer, ...]) -> tuple[PeerServerView, ...]:
        addresses = [one.address for one in servers]
        tokens = await node.store.servers.tokens_of(addresses)
        own = {one.server: one for one in await node.store.servers.peer_tokens(addresses)}
        guests = node.servers.connected_guests()
        return tuple(
            peer_view(
                one,
                decision=node.servers.decision(one.address),
                tokens=tuple(token for token in tokens if token.server == one.address),
                token_expires_at=own[one.address].expires_at if one.address in own else None,
                guests=guests.get(one.address, 0),
                condition=node.peers.condition(one.address),
            )
            for one in servers
        )

    return routes
