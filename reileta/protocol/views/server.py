"""JSON objects about the server itself."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from reileta import __version__
from reileta.protocol.views.registry import (
    Address,
    Description,
    Millis,
    PublicKey,
    Secure,
    Title,
    known,
)
from reileta.site import Site

Health = Literal["alive", "ready"]


class Gateways(Struct, kw_only=True):
    """The addresses of the server's HTTP and WebSocket APIs."""

    http: Annotated[
        str, Meta(description="Of the HTTP API", examples=["https://play.example.org:3032"])
    ]
    ws: Annotated[
        str,
        Meta(
            description="Of the players' WebSocket", examples=["wss://play.example.org:3032/api/ws"]
        ),
    ]


class ServerView(Struct, kw_only=True):
    """A server."""

    id: Annotated[
        str, Meta(description="Its id", examples=["5d0c6a1e-8f3b-4f0e-9a57-6f1b2c3d4e5f"])
    ]
    title: Annotated[Title, Meta(examples=["Reileta"])]
    description: Description | UnsetType = UNSET
    icon: Annotated[str, Meta(description="URL of its icon")] | UnsetType = UNSET
    address: Address
    secure: Secure
    version: Annotated[str, Meta(description="Of Reileta", examples=["0.1.0"])]
    gateways: Gateways
    public_key: PublicKey
    created_at: Millis
    updated_at: Millis
    ready_at: Millis | UnsetType = UNSET


class DiscoveryView(Struct, kw_only=True):
    """The first information that another server needs."""

    address: Address
    secure: Secure
    public_key: PublicKey
    version: Annotated[str, Meta(description="Of Reileta", examples=["0.1.0"])]


class HealthView(Struct, kw_only=True):
    """The health of the server."""

    status: Annotated[Health, Meta(examples=["ready"])]


def server_view(
    *,
    id_: str,
    title: str,
    description: str | None,
    icon: str | None,
    created_at: int,
    updated_at: int,
    site: Site,
    public_key: str,
    ready_at: int | None,
) -> ServerView:
    """The server's own object, with its addresses."""
    return ServerView(
        id=id_,
        title=title,
        description=known(description),
        icon=known(icon),
        address=site.address,
        secure=site.secure,
        version=__version__,
        gateways=Gateways(http=site.url, ws=f"{site.websocket_url}/api/ws"),
        public_key=public_key,
        created_at=created_at,
        updated_at=updated_at,
        ready_at=known(ready_at),
    )
