"""Direct connections to instance nodes: what a node answers to prove that it is there. Pure."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

PROOF_PATH: Final = "/api/node"
SOCKET_PATH: Final = "/api/ws"
NONCE_LIMIT: Final = 128


def proof(token_hash: bytes, node: str, address: str, nonce: str) -> str:
    """The proof of the node that has that token, for that address; hexadecimal."""
    lines = "\n".join(("avr-direct-1", node, address, nonce))
    return hmac.new(token_hash, lines.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
