"""JSON objects about other servers: challenges, rules, and what is known of them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta.protocol.views.registry import Address, Millis, PublicKey, Secure, known
from reileta.records import (
    Challenge,
    ChallengeRefusal,
    PeerServer,
    PeerState,
    ServerToken,
)
from reileta.rules.client_rules import ClientRule, ClientRuleKind
from reileta.rules.federation.server_rules import Decision, Rule, RuleKind

ChallengeDirection = Literal["sent", "refused"]


class ChallengeView(Struct, kw_only=True):
    """A challenge that this server has begun, for the other server to check."""

    id: Annotated[str, Meta(description="As it was sent to the other server")]
    server: Annotated[
        str, Meta(description="The server that it is for", examples=["b.example.org"])
    ]
    nonce: Annotated[str, Meta(description="As it was sent to the other server")]
    expires_at: Millis
    signature: Annotated[
        str, Meta(description="By this server's key, base64url: see `docs/federation.md`")
    ]


class ServerTokenView(Struct, kw_only=True):
    """A token for another server. It is shown only this once."""

    id: Annotated[str, Meta(description="Public name of the token, to revoke it")]
    token: Annotated[
        str,
        Meta(
            description="`sa_` and 43 characters",
            examples=["sa_pVfs5zkCHcbOBDMDbQ0mPuzFGEnYzHyvY1y6fAW2LU4"],
        ),
    ]
    expires_at: Millis


class ChallengeEntryView(Struct, kw_only=True):
    """A challenge that this server has begun in the last hour, or has refused lately."""

    direction: Annotated[
        ChallengeDirection,
        Meta(description="`sent`: begun by this server; `refused`: begun by the other one"),
    ]
    created_at: Millis
    id: (
        Annotated[str, Meta(description="The beginning of its id, which is a secret")] | UnsetType
    ) = UNSET
    server: Annotated[str, Meta(description="Left out if it was not an address")] | UnsetType = (
        UNSET
    )
    expires_at: Millis | UnsetType = UNSET
    fetched_at: Annotated[Millis, Meta(description="When it was fetched")] | UnsetType = UNSET
    cause: Annotated[str, Meta(description="Why it was refused")] | UnsetType = UNSET


class PeerTokenView(Struct, kw_only=True):
    """A valid token that another server has from this one."""

    id: Annotated[str, Meta(description="For `DELETE /api/challenges/:id`")]
    created_at: Millis
    expires_at: Millis


class PeerChangeView(Struct, kw_only=True):
    """What changed about another server."""

    address: Address
    state: Annotated[PeerState, Meta(description="`pending`: an admin must accept its key")]
    decision: Annotated[Decision, Meta(description="What the rules and the settings say")]
    public_key: PublicKey | UnsetType = UNSET
    offered_key: (
        Annotated[str, Meta(description="A key that does not follow from the pinned one")]
        | UnsetType
    ) = UNSET


class PeerServerView(Struct, kw_only=True):
    """Another server, as admins see it."""

    address: Address
    secure: Secure
    state: Annotated[
        PeerState,
        Meta(
            description="`known`: its key is pinned; `pending`: it has a key that an admin must "
            "accept"
        ),
    ]
    decision: Annotated[Decision, Meta(description="What the rules and the settings say")]
    public_key: PublicKey | UnsetType = UNSET
    key_since: Annotated[Millis, Meta(description="When it was pinned")] | UnsetType = UNSET
    offered_key: (
        Annotated[str, Meta(description="A key that does not follow from the pinned one")]
        | UnsetType
    ) = UNSET
    offered_at: Millis | UnsetType = UNSET
    version: Annotated[str, Meta(description="As it says")] | UnsetType = UNSET
    first_seen: Millis
    last_seen: Millis | UnsetType = UNSET
    tokens: Annotated[
        tuple[PeerTokenView, ...], Meta(description="That it has from this server, newest first")
    ]
    token_expires_at: (
        Annotated[Millis, Meta(description="Of the token that this server has there")] | UnsetType
    ) = UNSET
    guests: Annotated[int, Meta(ge=0, description="Guests from there who are connected now")]
    failures: Annotated[int, Meta(ge=0, description="In a row, of requests to it")]
    retry_at: (
        Annotated[Millis, Meta(description="It failed; when it is asked again")] | UnsetType
    ) = UNSET


class ServerRuleView(Struct, kw_only=True):
    """A rule about a host and all hosts below it."""

    pattern: Annotated[str, Meta(description="The host", examples=["evil.example"])]
    kind: Annotated[RuleKind, Meta(description="What the rule does")]
    by: Annotated[str, Meta(description="An admin's id, or the account that ran a command")]
    created_at: Millis
    reason: Annotated[str, Meta(description="For admins", examples=["spam"])] | UnsetType = UNSET
    until: Annotated[Millis, Meta(description="When it ends")] | UnsetType = UNSET


class ClientRuleView(Struct, kw_only=True):
    """A rule about clients."""

    kind: Annotated[ClientRuleKind, Meta(description="What the pattern is about")]
    pattern: Annotated[
        str,
        Meta(description="A network, a `User-Agent` or a user's id", examples=["192.0.2.0/24"]),
    ]
    by: Annotated[str, Meta(description="An admin's id, or the account that ran a command")]
    created_at: Millis
    reason: Annotated[str, Meta(description="For admins", examples=["spam"])] | UnsetType = UNSET
    until: Annotated[Millis, Meta(description="When it ends")] | UnsetType = UNSET


def challenge_entry(challenge: Challenge) -> ChallengeEntryView:
    """A challenge of this server, for lists."""
    return ChallengeEntryView(
        direction="sent",
        id=f"{challenge.hint}…",
        server=challenge.server,
        created_at=challenge.created_at,
        expires_at=challenge.expires_at,
        fetched_at=known(challenge.fetched_at),
    )


def refusal_entry(refusal: ChallengeRefusal) -> ChallengeEntryView:
    """A challenge of another server that was refused, for lists."""
    return ChallengeEntryView(
        direction="refused",
        server=known(refusal.server),
        created_at=refusal.at,
        cause=refusal.cause,
    )


def peer_view(
    server: PeerServer,
    *,
    decision: Decision,
    tokens: tuple[ServerToken, ...],
    token_expires_at: int | None,
    guests: int,
    condition: tuple[int, int | None],
) -> PeerServerView:
    """Another server, as admins see it. `condition`: failures, and when it is asked again."""
    failures, retry_at = condition
    return PeerServerView(
        address=server.address,
        secure=server.secure,
        state=server.state,
        decision=decision,
        public_key=known(server.public_key),
        key_since=known(server.key_since),
        offered_key=known(server.offered_key),
        offered_at=known(server.offered_at),
        version=known(server.version),
        first_seen=server.first_seen,
        last_seen=known(server.last_seen),
        tokens=tuple(
            PeerTokenView(id=one.id, created_at=one.created_at, expires_at=one.expires_at)
            for one in tokens
        ),
        token_expires_at=known(token_expires_at),
        guests=guests,
        failures=failures,
        retry_at=known(retry_at),
    )


def peer_change(server: PeerServer, decision: Decision) -> PeerChangeView:
    """What changed about another server, for events."""
    return PeerChangeView(
        address=server.address,
        state=server.state,
        decision=decision,
        public_key=known(server.public_key),
        offered_key=known(server.offered_key),
    )


def rule_view(rule: Rule) -> ServerRuleView:
    return ServerRuleView(
        pattern=rule.pattern,
        kind=rule.kind,
        by=rule.by,
        created_at=rule.created_at,
        reason=known(rule.reason),
        until=known(rule.until),
    )


def client_rule_view(rule: ClientRule) -> ClientRuleView:
    return ClientRuleView(
        kind=rule.kind,
        pattern=rule.pattern,
        by=rule.by,
        created_at=rule.created_at,
        reason=known(rule.reason),
        until=known(rule.until),
    )
