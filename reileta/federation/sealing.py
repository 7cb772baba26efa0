"""Encryption of the tokens that other servers gave to this one.

They are stored encrypted with a key that is made from the server's own. So a dump of the database
without the key file gives no access to other servers.
"""

from __future__ import annotations

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from reileta.security.server_key import ServerKey

_INFO: Final = b"avr-peer-token-1"
_NONCE_BYTES: Final = 12


class Sealing:
    """Encrypts and decrypts short texts; each is bound to the name that it is stored under."""

    def __init__(self, key: ServerKey) -> None:
        self._cipher = ChaCha20Poly1305(key.derive(_INFO))

    def seal(self, text: str, name: str) -> bytes:
        """The encrypted text."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), name.encode())

    def open(self, sealed: bytes, name: str) -> str | None:
        """The text; None if it was encrypted with another key, under another name, or changed."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, name.encode()).decode()
        except (InvalidTag, ValueError):
            return None
