"""`/ws/user` and `/ws/autopilot`: the WebSockets of the session API (S, PROTOCOL §8).

Credentials and roles are judged before the upgrade, as for any endpoint of S; so is that a token
has no other socket here (409).
"""

from __future__ import annotations

from quart import Blueprint, websocket
from werkzeug.datastructures import Headers

from api.credentials import bearer_from
from api.http.endpoint import DEPRECATION, Only, address_of, ensure_only
from api.rate_limits import Limits
from api.ws.gateway import Gateway, accept
from api.ws.session.connection import LineConnection
from api.ws.transport.base import Wire
from reileta.errors import AlreadyConnected, CredentialInvalid
from reileta.rules.instance.access import Asker


class Lines:
    """The tokens that have a line open at this server, or being opened."""

    def __init__(self, gateway: Gateway, limits: Limits):
        self._gateway = gateway
        self._limits = limits
        self._taken: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._taken)

    async def connect(self, only: Only) -> None:
        """Judges the upgrade at hand, and accepts it."""
        credential = bearer_from(websocket, query=True)
        asker = await self._gateway.auth.authenticate(credential)
        if asker is None:
            raise CredentialInvalid
        ensure_only(asker, only)
        self._limits.address(address_of(websocket))
        self._limits.asker(asker)
        if asker.token_hash in self._taken:
            raise AlreadyConnected.field("Authorization", "is a token that has a WebSocket")
        self._taken.add(asker.token_hash)
        accepted = False

        async def serve(wire: Wire) -> None:
            nonlocal accepted
            accepted = True
            await self._serve(wire, asker)

        try:
            headers = Headers({"Deprecation": DEPRECATION} if credential.deprecated else {})
            await accept(serve, headers)
            accepted = True  # by one that serves after this, come what may
        finally:
            if not accepted:
                self._taken.discard(asker.token_hash)

    async def _serve(self, wire: Wire, asker: Asker) -> None:
        gateway = self._gateway
        line = LineConnection(gateway.node, gateway.sampler, wire, gateway.new_log(), asker)
        try:
            await gateway.serve_connection(line, asker)
        finally:
            self._taken.discard(asker.token_hash)


def session_blueprint(gateway: Gateway, limits: Limits) -> Blueprint:
    """The routes `/ws/user` and `/ws/autopilot`."""
    blueprint = Blueprint("lines", __name__)
    lines = Lines(gateway, limits)

    @blueprint.websocket("/ws/user")
    async def connect_user() -> None:
        """A client's socket."""
        await lines.connect("client")

    @blueprint.websocket("/ws/autopilot")
    async def connect_autopilot() -> None:
        """An autopilot's socket."""
        await lines.connect("autopilot")

    return blueprint
