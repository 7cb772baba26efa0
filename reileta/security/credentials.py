"""Tokens: how they are made, and their hashes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final, Literal, get_args

TokenKind = Literal["ua", "sa", "ia", "ur", "na"]
"""An access key of a user, of another server, of another server's user; a refresh key; the key of
an instance node."""

KINDS: Final[tuple[TokenKind, ...]] = get_args(TokenKind)
TOKEN_BYTES: Final = 32
"""256 random bits."""
SEED_BYTES: Final = 32
"""256 random bits: the other half of what makes the successors of a refresh key."""


def new_token(kind: TokenKind) -> str:
    """A new token: `ua_` and 43 characters of base64url, for example. Never log it."""
    return f"{kind}_{secrets.token_urlsafe(TOKEN_BYTES)}"


def new_public_id() -> str:
    """A new id of a token, which is not secret: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def new_seed() -> bytes:
    """A new seed for `successor`."""
    return secrets.token_bytes(SEED_BYTES)


def successor(refresh_key: str, seed: bytes, kind: TokenKind) -> str:
    """A token of that kind that follows a refresh key: always the same for the same seed.

    So a server can give the same new keys twice without storing them. It stores the seed, and only
    the hash of the refresh key, from which the successor can't be made.
    """
    made = hmac.digest(_encoded(refresh_key), kind.encode() + b"\0" + seed, "sha256")
    return f"{kind}_{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def digest(token: str) -> bytes:
    """The SHA-256 of the token, 32 bytes; the database stores nothing else of it.

    Accepts any text, including lone surrogates, since it is called with whatever a client sends.
    """
    return hashlib.sha256(_encoded(token)).digest()


def _encoded(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
