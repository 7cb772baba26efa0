"""The running server's public description: address, key, start time."""

from __future__ import annotations

from dataclasses import dataclass

from reileta.protocol.views import server
from reileta.rules.federation.signatures import Link
from reileta.security.server_key import ServerKey
from reileta.site import Site
from reileta.store import ServerInfo


@dataclass(slots=True)
class LiveServer:
    """How clients reach the server. `address` is its `ServerAt`; `public_key` is base64url.

    An answer to a request has the scheme that its client used. Events go to many clients at once,
    and so have one scheme for all: `secure` is set from the start if the server itself speaks TLS,
    and otherwise as soon as a trusted proxy has passed on a request that came over TLS.

    `gateway`: the address of this gateway, if it has one of its own; empty for none.

    `temporary_accounts`: whether anyone can get one.

    `ready_at` is when it began to take connections (ms); None before that. `links` lead from
    earlier keys to `public_key`, newest first; `revision` grows when the key changes.
    """

    address: str
    secure: bool
    public_key: str
    ready_at: int | None = None
    base_path: str = ""
    gateway: str = ""
    links: tuple[Link, ...] = ()
    revision: int = 0
    temporary_accounts: bool = False

    def take_key(self, key: ServerKey) -> None:
        """Shows another key from now on."""
        self.public_key, self.links = key.public_base64url, key.links
        self.revision += 1

    @property
    def site(self) -> Site:
        """The site as events show it."""
        return self.site_over(secure=self.secure)

    def site_over(self, *, secure: bool, gateway: str = "") -> Site:
        """The site as a client sees it that comes over TLS (`secure`), or without; through that
        gateway, if it is not this process."""
        gateway = gateway or self.gateway
        if gateway == self.address:
            gateway = ""
        return Site(self.address, secure, self.base_path, gateway)

    def view(self, info: ServerInfo, site: Site | None = None) -> server.ServerView:
        """The server as clients see it; `info` is what the database has of it. `site`: None for
        that of events."""
        return server.server_view(
            id_=info.id,
            title=info.title,
            description=info.description,
            icon=info.icon,
            created_at=info.created_at,
            updated_at=info.updated_at,
            site=site or self.site,
            public_key=self.public_key,
            ready_at=self.ready_at,
            temporary_accounts=self.temporary_accounts,
        )
