"""The server's Ed25519 key, created at the first start."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from reileta.startup import StartupError

_OWNER_ONLY: Final = 0o600


class ServerKey:
    """Signs as the server. The private key never leaves this object."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_base64url: Final = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        """The public key: 32 bytes as 43 characters of base64url, without padding."""

    def sign(self, data: bytes) -> bytes:
        """The signature of the data, 64 bytes."""
        return self._private.sign(data)

    def derive(self, purpose: bytes) -> bytes:
        """A secret key of 32 bytes for that purpose; always the same for the same server's key."""
        secret = self._private.private_bytes_raw()
        return HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret)

    @classmethod
    def generate(cls) -> ServerKey:
        """A new key, which is stored nowhere."""
        return cls(Ed25519PrivateKey.generate())


def load_or_create(path: Path) -> ServerKey:
    """Loads the key from that file (PKCS #8, PEM); creates the file, readable for its owner only.

    Raises StartupError if it can't be read or written, or is not an Ed25519 key. A new key in its
    place would make this server a stranger to all others, so the operator has to decide.
    """
    try:
        try:
            return _load(path)
        except FileNotFoundError:
            _create(path)
            return _load(path)
    except OSError as error:
        raise StartupError(f"can't use the server's key {path}: {error.strerror}") from error


def _load(path: Path) -> ServerKey:
    pem = path.read_bytes()
    if path.stat().st_mode & 0o077:
        path.chmod(_OWNER_ONLY)
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise StartupError(f"{path} is not an unencrypted Ed25519 key: restore it from a backup")
    return ServerKey(private)


def _create(path: Path) -> None:
    """Writes a new key atomically; an existing key stays."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, not a rename: if two processes start at once, the key of the first one stays.
            os.link(draft, path)
        except FileExistsError:
            return
        _sync_folder(path.parent)
    finally:
        draft.unlink()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
