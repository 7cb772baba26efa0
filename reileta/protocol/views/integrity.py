"""JSON objects of integrity: tokens with which users of one server are guests at another."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from reileta.ids import at
from reileta.protocol.views.registry import Millis, UserAt
from reileta.records import IntegrityToken, Visit

IntegrityId = Annotated[
    str,
    Meta(
        description="The token's id, which is not secret",
        examples=["5f0c9a3b7e1d4c8a9b6e2f7d8c1a0b3e"],
    ),
]
Where = Annotated[
    str, Meta(description="The server where the user is a guest", examples=["far.example"])
]


class IntegrityView(Struct, kw_only=True):
    """A token with which a user is a guest at a server."""

    id: IntegrityId
    user: UserAt
    server: Where
    created_at: Millis
    expires_at: Millis


class IssuedIntegrityView(IntegrityView, kw_only=True):
    """A token that was just issued, with the token itself."""

    token: Annotated[
        str, Meta(description="The credential, at `server` alone", examples=["ia_5uqk0CZ1m0…"])
    ]


def integrity_view(token: IntegrityToken, address: str) -> IntegrityView:
    """A guest's token at this server, whose address it is."""
    return IntegrityView(
        id=token.id,
        user=token.user,
        server=address,
        created_at=token.created_at,
        expires_at=token.expires_at,
    )


def visit_view(visit: Visit, address: str) -> IntegrityView:
    """The token of a user of this server, whose address it is, at another server."""
    return IntegrityView(
        id=visit.id,
        user=at(visit.user_id, address),
        server=visit.server,
        created_at=visit.created_at,
        expires_at=visit.expires_at,
    )
