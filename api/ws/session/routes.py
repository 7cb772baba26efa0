"""`/ws/user` and `/ws/autopilot`: the WebSockets of the session API (S, PROTOCOL §8).

Credentials and roles are judged before the upgrade, as for any endpoint of S; so is that a token
has no other socket here (409).
"""

from __future__ import annotations

from quart import Blueprint, websocket
from werkzeug.datastructures import Headers

from api.credentials import bearer_from
from api.http.endpoint import DEPRECATION, Only, address_of, ensure_only
from api.rate_limits import HttpRateLimits
from api.ws.gateway import Gateway, accept
from api.ws.session.connection import SessionConnection
from api.ws.transport.base import Transport
from reileta.errors import AlreadyConnected, CredentialInvalid
from reileta.rules.identity import Principal


class SessionSockets:
    """The tokens that have a line open at this server, or being opened."""

    def __init__(self, gateway: Gateway, limits: HttpRateLimits):
        self._gateway = gateway
        self._limits = limits
        self._taken: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._taken)

    async def connect(self, only: Only) -> None:
        """Judges the upgrade at hand, and accepts it."""
        credential = bearer_from(websocket, query=True)
        principal = await self._gateway.auth.authenticate(credential)
        if principal is None:
            raise CredentialInvalid
        ensure_only(principal, only)
        self._limits.address(address_of(websocket))
        self._limits.principal(principal)
        if principal.token_hash in self._taken:
            raise AlreadyConnected.field("Authorization", "is a token that has a WebSocket")
        self._taken.add(principal.token_hash)
        accepted = False

        async def serve(wire: Transport) -> None:
            nonlocal accepted
            accepted = True
            await self._serve(wire, principal)

        try:
            headers = Headers({"Deprecation": DEPRECATION} if credential.deprecated else {})
            await accept(serve, headers)
            accepted = True  # by one that serves after this, come what may
        finally:
            if not accepted:
                self._taken.discard(principal.token_hash)

    async def _serve(self, wire: Transport, principal: Principal) -> None:
        gateway = self._gateway
        line = SessionConnection(
            gateway.node, gateway.sampler, wire, gateway.new_log(), principal, gateway.rates
        )
        try:
            await gateway.serve_connection(line, principal)
        finally:
            self._taken.discard(principal.token_hash)


def session_blueprint(gateway: Gateway, limits: HttpRateLimits) -> Blueprint:
    """The routes `/ws/user` and `/ws/autopilot`."""
    blueprint = Blueprint("lines", __name__)
    lines = SessionSockets(gateway, limits)

    @blueprint.websocket("/ws/user")
    async def connect_user() -> None:
        """A client's socket."""
        await lines.connect("client")

    @blueprint.websocket("/ws/autopilot")
    async def connect_autopilot() -> None:
        """An autopilot's socket."""
        await lines.connect("autopilot")

    return blueprint
