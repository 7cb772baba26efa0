"""Accepting a WebSocket upgrade."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from quart import websocket
from werkzeug.datastructures import Headers

from api.ws.transport.base import Transport
from reileta.errors import NotImplementedHere

TRANSPORT_EXTENSION: Final = "reileta.transport"
"""The ASGI extension through which a route takes over the transport itself."""


class Handover(Protocol):
    """The extension: `claim` names the function that serves the transport after the upgrade.

    The server calls the function in any case, even when the client has gone meanwhile.
    """

    def claim(self, serve: Callable[[Transport], Awaitable[None]]) -> None: ...


async def accept(
    serve: Callable[[Transport], Awaitable[None]],
    headers: Headers,
) -> None:
    """Accepts the current upgrade; the server calls `serve` with its transport after this.

    Raises NotImplementedHere where the server can't hand over a transport.
    """
    extensions = cast(dict[str, Any], websocket.scope.get("extensions") or {})
    handover: Handover | None = extensions.get(TRANSPORT_EXTENSION)
    if handover is None:
        raise NotImplementedHere.field("Upgrade", "needs HTTP/1.1 on this server's own port")
    await websocket.accept(headers)
    handover.claim(serve)
