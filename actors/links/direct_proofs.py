"""Checks that an instance node is where it says that clients can reach it.

Without that, a node could name an address of somebody else, and all its players would knock there.
The node proves with its token, which only it and the server know.
"""

from __future__ import annotations

import hmac
import json
import secrets
from typing import Final, Protocol

from reileta.errors import ReiletaError
from reileta.federation.peers import HttpClient
from reileta.records import DirectAddress
from reileta.rules.nodes.direct import PROOF_PATH, proof

OK: Final = 200


class Proofs(Protocol):
    """Looks for nodes."""

    async def holds(self, node: str, direct: DirectAddress, token_hash: bytes) -> bool:
        """Whether the node that has that token answers at that address."""
        ...


class DirectProofs:
    """Asks over a client that reaches no internal address."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def holds(self, node: str, direct: DirectAddress, token_hash: bytes) -> bool:
        """As `Proofs.holds`."""
        if self._client.secure(direct.address) != direct.secure:
            return False  # without TLS only servers are asked that a setting names
        nonce = secrets.token_urlsafe(24)
        try:
            # The next proof makes a connection of its own, and so looks the name up again: the
            # client checks each address that it finds.
            answer = await self._client.request(
                "GET",
                direct.address,
                PROOF_PATH,
                query=[("nonce", nonce)],
                headers={"Connection": "close"},
            )
            given = json.loads(answer.body)["proof"] if answer.status == OK else ""
        except (ReiletaError, ValueError, KeyError, TypeError, RecursionError):
            return False
        expected = proof(token_hash, node, direct.address, nonce)
        return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())
