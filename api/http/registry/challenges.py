"""Endpoints of challenges: other servers prove who they are, and get tokens."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET
from pydantic import Field

from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.lookups import ensure_own_server
from api.http.pagination import TimePaging, list_view, page_of
from api.rate_limits import network
from reileta.errors import (
    ChallengeInvalid,
    ChallengeNotFound,
    ChallengeRefused,
    NoResponse,
    NotLoggedIn,
    PermissionDenied,
    ServerNotFound,
)
from reileta.federation.verifier import Claim
from reileta.observability import log_events
from reileta.protocol.input_types import MAX_TIME_MS, Input, Reference
from reileta.protocol.views.federation import (
    ChallengeEntryView,
    ChallengeView,
    ServerTokenView,
    challenge_entry,
    refusal_entry,
)
from reileta.protocol.views.registry import ListView, NothingView
from reileta.records import Cursor
from reileta.rules.federation.signatures import challenge_bytes, encode

LISTED: Final = 1_000
"""Challenges of this server that the list shows at most."""


class ChallengeInput(Input):
    """A challenge that the other server has begun."""

    server: Reference = Field(
        description="The address of the server that begun it.", examples=["a.example.org"]
    )
    id: Reference = Field(
        description="Its id: 43 characters of base64url.",
        examples=["pVfs5zkCHcbOBDMDbQ0mPuzFGEnYzHyvY1y6fAW2LU4"],
    )
    nonce: Reference = Field(
        description="Its nonce: 43 characters of base64url.",
        examples=["0yGbZbHRKk5hV0yrJ4qgJXG2v6hAfkq7bVnCzEyhZ6o"],
    )


def challenge_routes(deps: ApiDeps) -> Routes:
    """Declares the endpoints of challenges."""
    node = deps.node
    routes = Routes("challenges", deps, invalid=ChallengeInvalid)

    @routes.add(
        "GET",
        "/api/challenges",
        summary="List challenges",
        takes=TimePaging,
        gives=ListView[ChallengeEntryView],
        only="admin",
        need="required",
        errors=(ServerNotFound,),
    )
    async def get_challenges(
        call: RequestContext, params: TimePaging
    ) -> ListView[ChallengeEntryView]:
        """Lists the challenges that this server has begun in the last hour, and the last ones of
        other servers that it refused, with the cause. Newest first."""
        ensure_own_server(node, call)
        sent = await node.store.challenges.search(limit=LISTED, offset=0)
        entries = [
            *map(challenge_entry, sent.items),
            *map(refusal_entry, node.trust.verifier.refusals),
        ]
        entries.sort(key=_place)
        return list_view(page_of(params, entries, _place), lambda entry: entry)

    @routes.add(
        "PUT",
        "/api/challenges",
        summary="Answer a challenge",
        takes=ChallengeInput,
        gives=ServerTokenView,
        need="none",
        errors=(ChallengeRefused, NoResponse),
    )
    async def answer_challenge(call: RequestContext, params: ChallengeInput) -> ServerTokenView:
        """Gives a token to the server that has begun a challenge. This server asks the address that
        the other one claims for the challenge and for its key. If anything about it is wrong, the
        answer is error 110, whatever it is. A server that is known gets error 6 if it can't be
        reached."""
        claim = Claim(params.server, params.id, params.nonce, network(call.ip))
        issued = await node.trust.verifier.answer(claim)
        return ServerTokenView(
            id=issued.record.id, token=issued.token, expires_at=issued.record.expires_at
        )

    @routes.add(
        "GET",
        "/api/challenges/<challenge>",
        summary="Fetch a challenge",
        gives=ChallengeView,
        need="none",
        errors=(ChallengeNotFound,),
    )
    async def get_challenge(call: RequestContext) -> ChallengeView:
        """Returns a challenge that this server has begun, once and within 60 s, to whoever has its
        id. The other server does so to check it."""
        id_ = call.args["challenge"]
        challenge = await node.store.challenges.fetch(id_)
        if challenge is None:
            raise ChallengeNotFound
        signed = challenge_bytes(
            node.trust.address, challenge.server, id_, challenge.nonce, challenge.expires_at
        )
        return ChallengeView(
            id=id_,
            server=challenge.server,
            nonce=challenge.nonce,
            expires_at=challenge.expires_at,
            signature=encode(node.key.sign(signed)),
        )

    @routes.add(
        "DELETE",
        "/api/challenges/<challenge>",
        summary="Revoke a server's token",
        gives=NothingView,
        errors=(ChallengeNotFound, NotLoggedIn, PermissionDenied),
    )
    async def revoke_server_token(call: RequestContext) -> NothingView:
        """Revokes the token of another server, by the `id` of the answer to its challenge. For that
        server with one of its tokens, and for admins."""
        if call.server is None and not call.by.administers:
            raise PermissionDenied
        of = None if call.server is None else call.server.address
        revoked = await node.store.servers.revoke_token(call.args["challenge"], server=of)
        if revoked is None:
            raise ChallengeNotFound
        node.activity.note(
            log_events.SERVER_TOKEN_REVOKED,
            of,
            server=revoked.server,
            token=revoked.id,
            by=None if call.user is None else call.user.id,
        )
        return NothingView()

    return routes


def _place(entry: ChallengeEntryView) -> Cursor:
    """The newest first."""
    id_ = "" if entry.id is UNSET else entry.id.rstrip("…")
    return MAX_TIME_MS - entry.created_at, f"{entry.direction}:{id_}"
