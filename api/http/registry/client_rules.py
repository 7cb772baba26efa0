"""Endpoints for admins: the rules about clients."""

from __future__ import annotations

from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server
from api.http.pagination import Paging, list_view
from reileta.errors import Overloaded, RequestNotFound, ServerInvalid, ServerNotFound
from reileta.protocol.input_types import CreateInput, Input, Reason, TextCursor, TimeMs
from reileta.protocol.views.federation import ClientRuleView, client_rule_view
from reileta.protocol.views.registry import ListView, NothingView
from reileta.rules.client_rules import (
    PATTERN_LENGTH,
    ClientRule,
    ClientRuleBook,
    ClientRuleKind,
    canonical_pattern,
)


class ClientRuleSearch(Paging):
    """Which rules to list."""

    after: TextCursor | None = Field(default=None, description="`next` of an answer.")
    kind: ClientRuleKind | None = Field(default=None, description="Only rules of this kind.")


class ClientRuleName(Input):
    """A rule about clients, by its kind and pattern."""

    kind: ClientRuleKind = Field(description="What the pattern is about.")
    pattern: str = Field(
        description="An address or network; a `User-Agent`, with `*` for any text; or a user's id.",
        min_length=1,
        max_length=PATTERN_LENGTH,
        examples=["192.0.2.0/24"],
    )


class ClientRuleInput(CreateInput, ClientRuleName):
    """A rule about clients."""

    reason: Reason | None = Field(default=None, description="For admins.", examples=["spam"])
    until: TimeMs | None = Field(
        default=None, description="When it ends; without it, when it is deleted."
    )


def client_rule_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints of the rules about clients."""
    node = deps.node
    routes = Routes("clients", deps, invalid=ServerInvalid)

    @routes.add(
        "GET",
        "/api/clients/rules",
        summary="List rules about clients",
        takes=ClientRuleSearch,
        gives=ListView[ClientRuleView],
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def get_client_rules(
        call: RequestContext, params: ClientRuleSearch
    ) -> ListView[ClientRuleView]:
        """Lists the rules about clients, by kind and pattern."""
        ensure_own_server(node, call)
        page = await node.store.client_rules.search(
            kind=params.kind, limit=params.limit, offset=params.offset, after=params.after
        )
        return list_view(page, client_rule_view)

    @routes.add(
        "PUT",
        "/api/clients/rules",
        summary="Set a rule about clients",
        takes=ClientRuleInput,
        gives=ClientRuleView,
        only="admin",
        need="required",
        errors=(Overloaded,),
    )
    async def put_client_rule(call: RequestContext, params: ClientRuleInput) -> ClientRuleView:
        """Refuses clients by their network, their `User-Agent` or their account, in the place of an
        earlier rule with that pattern. Requests and upgrades get error 137, and open WebSockets are
        closed (4010), at all nodes. A rule that would refuse its author is refused itself."""
        pattern = pattern_of(params)
        call.audit.add(kind=params.kind, pattern=pattern, reason=params.reason, until=params.until)
        one = ClientRuleBook([ClientRule(params.kind, pattern, call.by.user.id, 0)])
        agent = call.request.headers.get("User-Agent", "")
        if one.of_client(call.ip, agent, 0) or one.of_account(call.by.user.id, 0):
            raise ServerInvalid.field("pattern", "would refuse yourself")
        rule = await node.clients.put(
            params.kind,
            pattern,
            by=call.by.user.id,
            reason=params.reason,
            until=params.until,
        )
        return client_rule_view(rule)

    @routes.add(
        "DELETE",
        "/api/clients/rules",
        summary="Delete a rule about clients",
        takes=ClientRuleName,
        gives=NothingView,
        only="admin",
        need="required",
        errors=(RequestNotFound,),
    )
    async def delete_client_rule(call: RequestContext, params: ClientRuleName) -> NothingView:
        """Deletes the rule with exactly that kind and pattern."""
        pattern = pattern_of(params)
        call.audit.add(kind=params.kind, pattern=pattern)
        if not await node.clients.delete(params.kind, pattern, by=call.by.user.id):
            raise RequestNotFound.field("pattern", "there is no rule with that pattern")
        return NothingView()

    def pattern_of(params: ClientRuleName) -> str:
        try:
            return canonical_pattern(params.kind, params.pattern, node.address)
        except ValueError as error:
            raise ServerInvalid.field("pattern", str(error)) from None

    return routes
