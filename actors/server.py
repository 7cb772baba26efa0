"""The running server's public description: address, key, start time."""

from __future__ import annotations

from dataclasses import dataclass

from reileta.protocol.views import server
from reileta.store import ServerInfo


@dataclass(slots=True)
class LiveServer:
    """How clients reach the server. `address` is its `ServerAt`; `public_key` is base64url.

    `ready_at` is when it began to take connections (ms); None before that.
    """

    address: str
    secure: bool
    public_key: str
    ready_at: int | None = None

    def view(self, info: ServerInfo) -> server.ServerView:
        """The server as clients see it; `info` is what the database has of it."""
        return server.server_view(
            id_=info.id,
            title=info.title,
            description=info.description,
            icon=info.icon,
            created_at=info.created_at,
            updated_at=info.updated_at,
            address=self.address,
            secure=self.secure,
            public_key=self.public_key,
            ready_at=self.ready_at,
        )
