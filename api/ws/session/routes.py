"""The routes `/ws/user` and `/ws/autopilot`, the session API's WebSockets.

Each checks the credential and the role before the upgrade, as every endpoint of the session API
does, and that the token has no other socket here (409).
"""

from __future__ import annotations

from quart import Blueprint, websocket
from werkzeug.datastructures import Headers

from api.credentials import bearer_from
from api.http.endpoint import DEPRECATION, Only, address_of, ensure_only
from api.rate_limits import HttpRateLimits
from api.ws.accept import accept
from api.ws.gateway import Gateway
from api.ws.session.channel import KINDS
from api.ws.session.connection import SessionConnection
from api.ws.transport.base import Transport
from reileta.errors import AlreadyConnected, CredentialInvalid
from reileta.rules.identity import Principal


class SessionSockets:
    """The tokens that have a socket at this server, open or being opened."""

    def __init__(self, gateway: Gateway, limits: HttpRateLimits):
        self._gateway = gateway
        self._limits = limits
        self._taken: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._taken)

    async def connect(self, only: Only) -> None:
        """Checks the current upgrade, and accepts it."""
        credential = bearer_from(websocket, query=True)
        principal = await self._gateway.auth.authenticate(credential)
        if principal is None:
            raise CredentialInvalid
        ensure_only(principal, only)
        self._limits.address(address_of(websocket))
        self._limits.principal(principal)
        if principal.token_hash in self._taken:
            raise AlreadyConnected.field("Authorization", "already has a WebSocket")
        self._gateway.rates.ensure_room(principal.user.id)
        self._taken.add(principal.token_hash)
        accepted = False

        async def serve(transport: Transport) -> None:
            nonlocal accepted
            accepted = True
            await self._serve(transport, principal)

        try:
            headers = Headers({"Deprecation": DEPRECATION} if credential.deprecated else {})
            await accept(serve, headers)
            accepted = True  # `serve` runs after this, and frees the token
        finally:
            if not accepted:
                self._taken.discard(principal.token_hash)

    async def _serve(self, transport: Transport, principal: Principal) -> None:
        gateway = self._gateway
        connection = SessionConnection(
            gateway.node,
            gateway.sampler,
            transport,
            gateway.new_log(KINDS),
            principal,
            gateway.rates,
        )
        try:
            await gateway.serve_connection(connection, principal)
        finally:
            self._taken.discard(principal.token_hash)


def session_blueprint(gateway: Gateway, limits: HttpRateLimits) -> Blueprint:
    """The routes `/ws/user` and `/ws/autopilot`."""
    blueprint = Blueprint("session_sockets", __name__)
    sockets = SessionSockets(gateway, limits)

    @blueprint.websocket("/ws/user")
    async def connect_user() -> None:
        """A client's socket."""
        await sockets.connect("client")

    @blueprint.websocket("/ws/autopilot")
    async def connect_autopilot() -> None:
        """An autopilot's socket."""
        await sockets.connect("autopilot")

    return blueprint
