"""JSON objects about the server itself."""

from __future__ import annotations

from collections.abc import Sequence
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
from reileta.records import Notice, NoticeLevel
from reileta.rules.federation.signatures import CHAIN_LENGTH, Link
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
    temporary_accounts: (
        Annotated[
            Literal[True],
            Meta(description="`POST /api/auth/temporary` makes accounts. Left out if it does not"),
        ]
        | UnsetType
    ) = UNSET


class KeyView(Struct, kw_only=True):
    """A key that replaced the key before it."""

    public_key: PublicKey
    since: Millis
    by: Annotated[
        str,
        Meta(
            description=(
                "Signature of the key before it (Ed25519, base64url) over the lines `avr-key-1`, "
                "the server's address, the key before it, this key, and `since`"
            ),
        ),
    ]


class DiscoveryView(Struct, kw_only=True):
    """The first information that another server needs."""

    address: Address
    secure: Secure
    public_key: PublicKey
    keys: Annotated[
        tuple[KeyView, ...],
        Meta(
            description=(
                "The chain from earlier keys to `public_key`, newest first; empty if the key was "
                "never replaced"
            ),
            max_length=CHAIN_LENGTH,
        ),
    ]
    gateways: Gateways
    version: Annotated[str, Meta(description="Of Reileta", examples=["0.1.0"])]


class NoticeView(Struct, kw_only=True):
    """What an admin tells everyone who is connected."""

    text: Annotated[
        str | None,
        Meta(description="null: the notice was withdrawn", examples=["Restart in five minutes"]),
    ]
    level: Annotated[NoticeLevel, Meta(description="How urgent it is", examples=["warning"])]
    created_at: Millis
    until: (
        Annotated[Millis, Meta(description="Those who connect before that get it, too")] | UnsetType
    ) = UNSET


class HealthView(Struct, kw_only=True):
    """The health of the server."""

    status: Annotated[Health, Meta(examples=["ready"])]


def notice_view(notice: Notice) -> NoticeView:
    return NoticeView(
        text=notice.text,
        level=notice.level,
        created_at=notice.created_at,
        until=known(notice.until),
    )


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
    temporary_accounts: bool = False,
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
        gateways=_gateways(site),
        public_key=public_key,
        created_at=created_at,
        updated_at=updated_at,
        ready_at=known(ready_at),
        temporary_accounts=True if temporary_accounts else UNSET,
    )


def discovery_view(site: Site, public_key: str, links: Sequence[Link]) -> DiscoveryView:
    """The server for other servers. `links` lead to the public key, newest first."""
    return DiscoveryView(
        address=site.address,
        secure=site.secure,
        public_key=public_key,
        keys=tuple(
            KeyView(public_key=link.public_key, since=link.since, by=link.by) for link in links
        ),
        gateways=_gateways(site),
        version=__version__,
    )


def _gateways(site: Site) -> Gateways:
    return Gateways(http=site.url, ws=f"{site.websocket_url}/api/ws")
