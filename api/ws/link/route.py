"""The route `/api/nodes/link`, to which instance nodes connect."""

from __future__ import annotations

from typing import Final

import trio
from quart import Blueprint, websocket
from werkzeug.datastructures import Headers

from api.credentials import bearer_from
from api.http.endpoint import address_of
from api.rate_limits import HttpRateLimits
from api.ws.accept import accept
from api.ws.gateway import Client, Gateway, redirect_link_if_drained
from api.ws.link.connection import LinkConnection
from api.ws.transport.base import Transport
from reileta.errors import CredentialInvalid
from reileta.protocol.node_link import MESSAGE_BYTES, SUBPROTOCOL
from reileta.security.credentials import digest

TOKEN: Final = "na_"  # noqa: S105 - how one begins, not a token
CLOSED_S: Final = 2.0
"""Seconds to write that a link has ended."""


def link_blueprint(gateway: Gateway, limits: HttpRateLimits) -> Blueprint:
    """The route `/api/nodes/link`."""
    blueprint = Blueprint("node_links", __name__)
    node, links = gateway.node, gateway.node.host_links

    @blueprint.websocket("/api/nodes/link")
    async def connect_node() -> None:
        """A node's link."""
        redirect_link_if_drained(node)
        limits.address(address_of(websocket))
        credential = bearer_from(websocket)
        token_hash = digest(credential.token)
        host = None
        if credential.token.startswith(TOKEN):
            host = await node.store.host_nodes.of_token(token_hash)
        if host is None:
            raise CredentialInvalid
        links.ensure_not_cut(host.id)
        node.clients.ensure_account(host.owner)
        client = Client.of(websocket._get_current_object())  # type: ignore[attr-defined]

        async def serve(transport: Transport) -> None:
            transport.take_binary(MESSAGE_BYTES)
            connection = LinkConnection(
                links,
                transport,
                host,
                token_hash,
                address=node.address,
                public_key=node.server.public_key,
            )
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.pump)
                    await gateway.serve_connection(connection, None, client)
                    nursery.cancel_scope.cancel()
            finally:
                with trio.move_on_after(CLOSED_S, shield=True):
                    await links.closed(connection, connection.reason)
                    if connection.cut_for is not None:
                        await links.cut(connection, connection.cut_for)

        await accept(serve, Headers(), SUBPROTOCOL)

    return blueprint
