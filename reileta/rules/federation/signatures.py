"""Signatures between servers: the signed bytes, and chains of keys. Pure.

Each kind of signature has its own first line, so that a signature means nothing anywhere else. The
other lines are values without line breaks. So nothing has to be brought into a canonical form.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CHAIN_LENGTH: Final = 8
"""Most links of a chain of keys."""
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_WEAK_KEYS: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        *(first + "ff" * 30 + "7f" for first in ("ec", "ed", "ee")),
    )
)
"""Points of small order, without the bit of the sign, in all their encodings. One signature can be
valid for such a key and many messages, whoever made it."""


@dataclass(frozen=True, slots=True)
class Link:
    """A key that replaced another one.

    Attributes:
        public_key: the new key, base64url.
        since: when it replaced the previous key (ms).
        by: the signature of the previous key over `key_bytes`, base64url.
    """

    public_key: str
    since: int
    by: str


def challenge_bytes(asker: str, asked: str, id_: str, nonce: str, expires_at: int) -> bytes:
    """The bytes that the server `asker` signs for the server `asked`; both are canonical
    addresses, `expires_at` is in ms. Raises ValueError if a value has a line break."""
    return _lines("avr-challenge-1", asker, asked, id_, nonce, str(expires_at))


def key_bytes(address: str, old: str, new: str, since: int) -> bytes:
    """The bytes that the key `old` of the server at `address` signs for the key `new`, which
    replaces it at `since` (ms). Raises ValueError if a value has a line break."""
    return _lines("avr-key-1", address, old, new, str(since))


def encode(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def is_public_key(text: str) -> bool:
    """Whether the text has the form of a public key: 32 bytes in base64url, and not one of the
    points for which signatures prove nothing."""
    return _key(text) is not None


def verify(public_key: str, data: bytes, signature: str) -> bool:
    """Whether the signature (base64url) of the data is by that key (base64url, Ed25519)."""
    key, signed = _key(public_key), _decoded(signature, _SIGNATURE_BYTES)
    if key is None or signed is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def follows_chain(pin: str, keys: Sequence[Link], address: str) -> bool:
    """Whether the newest key of a server follows from the key `pin` that is known of it.

    `keys` begins with the newest, of which the caller checks that it is the offered key. Each must
    be signed by the previous one; links before `pin` don't matter. Without links, nothing follows.
    """
    if not keys or len(keys) > CHAIN_LENGTH:
        return False
    newer: list[Link] = []
    for link in keys:
        if link.public_key == pin:
            break
        newer.append(link)
    old = pin
    for link in reversed(newer):
        if not _replaces(old, link, address):
            return False
        old = link.public_key
    return True


def _replaces(old: str, link: Link, address: str) -> bool:
    try:
        data = key_bytes(address, old, link.public_key, link.since)
    except ValueError:
        return False
    return is_public_key(link.public_key) and verify(old, data, link.by)


def _lines(*values: str) -> bytes:
    if any("\n" in value for value in values):
        raise ValueError("must have no line breaks")
    return "\n".join(values).encode()


def _key(text: str) -> bytes | None:
    raw = _decoded(text, _KEY_BYTES)
    if raw is None or raw[:-1] + bytes([raw[-1] & 0x7F]) in _WEAK_KEYS:
        return None
    return raw


def _decoded(text: str, length: int) -> bytes | None:
    """The bytes of base64url without padding, if there are so many and it is their only spelling.
    A key with two spellings would look like two keys."""
    if len(text) > 2 * length:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == length and encode(raw) == text else None
