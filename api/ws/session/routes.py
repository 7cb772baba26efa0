"""The routes `/ws/user` and `/ws/autopilot`, the session API's WebSockets.

Each checks the credential and the role before the upgrade, as every endpoint of the session API
does, and that the token has no other socket, at any node of a cluster (409). One whose client does
not answer a ping gives way.
"""

from __future__ import annotations

from quart import Blueprint, websocket
from werkzeug.datastructures import Headers

from api.credentials import bearer_from
from api.http.endpoint import DEPRECATION, Only, address_of, ensure_only
from api.rate_limits import HttpRateLimits
from api.ws.accept import accept
from api.ws.gateway import Client, Gateway, redirect_if_drained
from api.ws.session.channel import KINDS, SESSION_CHANNEL
from api.ws.session.connection import SessionConnection
from api.ws.session.other_nodes import SocketsElsewhere
from api.ws.transport.base import Transport
from reileta.errors import AlreadyConnected, CredentialInvalid
from reileta.rules.identity import Principal


class _Place:
    """The place of a token's one socket. `connection` is None until the upgrade is complete."""

    __slots__ = ("connection",)

    def __init__(self) -> None:
        self.connection: SessionConnection | None = None

    async def vacant(self) -> bool:
        """Whether its client does not answer a ping, so that a new one may take the place.

        A socket that is only being opened is never vacant.
        """
        return self.connection is not None and not await self.connection.transport.answers()


class SessionSockets:
    """The tokens that have a socket at this server, open or being opened."""

    def __init__(self, gateway: Gateway, limits: HttpRateLimits):
        self._gateway = gateway
        self._limits = limits
        self._places: dict[bytes, _Place] = {}
        shared = gateway.node.shared
        self._elsewhere: SocketsElsewhere | None = None
        if shared is not None and shared.calls is not None:
            directory = gateway.node.directory
            self._elsewhere = SocketsElsewhere(directory, shared.calls, self.vacate)

    def __len__(self) -> int:
        return len(self._places)

    async def connect(self, only: Only) -> None:
        """Checks the current upgrade, and accepts it."""
        redirect_if_drained(self._gateway.node)
        credential = bearer_from(websocket, query=True)
        principal = await self._gateway.auth.authenticate(credential)
        if principal is None:
            raise CredentialInvalid
        ensure_only(principal, only)
        self._limits.address(address_of(websocket))
        self._limits.principal(principal)
        token = principal.token_hash
        place, replaced = await self._take_place(token, principal.session_id)
        accepted = False
        client = Client.of(websocket._get_current_object())  # type: ignore[attr-defined]

        async def serve(transport: Transport) -> None:
            nonlocal accepted
            accepted = True
            await self._serve(transport, principal, place, replaced, client)

        try:
            self._gateway.rates.ensure_room(principal.user.id)
            headers = Headers({"Deprecation": DEPRECATION} if credential.deprecated else {})
            await accept(serve, headers, SESSION_CHANNEL.subprotocol)
            accepted = True  # `serve` runs after this, and frees the place
        finally:
            if not accepted:
                self._free(token, place)

    async def _take_place(
        self, token: bytes, session_id: str
    ) -> tuple[_Place, SessionConnection | None]:
        """The token's place for a new socket, and the one that had it and did not answer.

        Raises:
            AlreadyConnected: the token has a socket whose client answers, or one that is just being
                opened.
        """
        before = self._places.get(token)
        if before is not None:
            vacant = await before.vacant()
            # Of several that waited, the first takes the place.
            if not vacant or self._places.get(token) not in (before, None):
                raise AlreadyConnected.field("Authorization", "already has a WebSocket")
        place = self._places[token] = _Place()
        replaced = None if before is None else before.connection
        if replaced is not None:
            replaced.displace()
        if self._elsewhere is not None:
            vacant = False
            try:
                vacant = await self._elsewhere.vacate(session_id, token)
            finally:
                if not vacant:
                    self._free(token, place)
            if not vacant:
                raise AlreadyConnected.field("Authorization", "already has a WebSocket")
        return place, replaced

    async def vacate(self, token: bytes) -> bool:
        """The token is to get a socket at another node: ends its socket here if the client does not
        answer. Whether it has none here now."""
        place = self._places.get(token)
        if place is None:
            return True
        vacant = await place.vacant()
        if not vacant or self._places.get(token) not in (place, None):
            return False
        self._free(token, place)
        if place.connection is not None:
            place.connection.displace()
        return True

    def _free(self, token: bytes, place: _Place) -> None:
        if self._places.get(token) is place:
            del self._places[token]

    async def _serve(
        self,
        transport: Transport,
        principal: Principal,
        place: _Place,
        replaced: SessionConnection | None,
        client: Client,
    ) -> None:
        gateway = self._gateway
        place.connection = connection = SessionConnection(
            gateway.node,
            gateway.sampler,
            transport,
            gateway.new_log(KINDS),
            principal,
            gateway.rates,
            replaced,
        )
        try:
            await gateway.serve_connection(connection, principal, client)
        finally:
            self._free(principal.token_hash, place)


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
