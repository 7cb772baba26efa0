"""Accepting a WebSocket upgrade."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from quart import websocket
from werkzeug.datastructures import Headers

from api.ws.transport.base import Transport
from reileta.errors import MessageInvalid, NotImplementedHere

TRANSPORT_EXTENSION: Final = "reileta.transport"
"""The ASGI extension through which a route takes over the transport itself."""


class Handover(Protocol):
    """The extension: `claim` names the function that serves the transport after the upgrade.

    The server calls the function in any case, even when the client has gone meanwhile.
    """

    def claim(self, serve: Callable[[Transport], Awaitable[None]]) -> None: ...


async def accept(
    serve: Callable[[Transport], Awaitable[None]], headers: Headers, subprotocol: str
) -> None:
    """Accepts the current upgrade; the server calls `serve` with its transport after this.

    Args:
        subprotocol: the name of what is spoken on the socket. A client that offers none gets none.

    Raises:
        MessageInvalid: the client offers subprotocols, but not this one. A browser would fail
            without a reason if the server ignored them (RFC 6455, 4.1).
        NotImplementedHere: the server can't hand over a transport.
    """
    offered = websocket.requested_subprotocols
    if offered and subprotocol not in offered:
        raise MessageInvalid.field(
            "Sec-WebSocket-Protocol", f"must be left out, or contain {subprotocol}"
        )
    extensions = cast(dict[str, Any], websocket.scope.get("extensions") or {})
    handover: Handover | None = extensions.get(TRANSPORT_EXTENSION)
    if handover is None:
        raise NotImplementedHere.field("Upgrade", "needs HTTP/1.1 on this server's own port")
    await websocket.accept(headers, subprotocol if offered else None)
    handover.claim(serve)
