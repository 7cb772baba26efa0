"""Tokens: how they are made, and what the database keeps of them (PROTOCOL §3)."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, Literal, get_args

TokenKind = Literal["ua", "sa", "ia", "ur"]
"""a user's access key, another server's, another server's user's, and a refresh key"""

KINDS: Final[tuple[TokenKind, ...]] = get_args(TokenKind)
TOKEN_BYTES: Final = 32
"""256 random bits."""


def new_token(kind: TokenKind) -> str:
    """A fresh token, such as `ua_` and 43 characters of base64url. Never log it."""
    return f"{kind}_{secrets.token_urlsafe(TOKEN_BYTES)}"


def kind_of(token: str) -> TokenKind | None:
    """Whose token it says it is, by its first letters; None if it can be no token at all."""
    return next((kind for kind in KINDS if token.startswith(f"{kind}_")), None)


def digest(token: str) -> bytes:
    """The token's SHA-256, 32 bytes: all that the database knows of it.

    Takes any text, since it is asked about whatever a client sends; lone surrogates included.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
