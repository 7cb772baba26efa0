"""Tokens: how they are made, and their hashes."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, Literal, get_args

TokenKind = Literal["ua", "sa", "ia", "ur"]
"""An access key of a user, of another server, of another server's user; and a refresh key."""

KINDS: Final[tuple[TokenKind, ...]] = get_args(TokenKind)
TOKEN_BYTES: Final = 32
"""256 random bits."""


def new_token(kind: TokenKind) -> str:
    """A new token: `ua_` and 43 characters of base64url, for example. Never log it."""
    return f"{kind}_{secrets.token_urlsafe(TOKEN_BYTES)}"


def digest(token: str) -> bytes:
    """The SHA-256 of the token, 32 bytes; the database stores nothing else of it.

    Accepts any text, including lone surrogates, since it is called with whatever a client sends.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
