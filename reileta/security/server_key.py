"""The server's own key: Ed25519, made at the first start and kept (PROTOCOL §9)."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
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
    """Signs in the server's name. The private half never leaves this object."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_base64url: Final = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        """The public half: 32 bytes as 43 characters of base64url, without padding."""

    def sign(self, data: bytes) -> bytes:
        """The signature of the data, 64 bytes."""
        return self._private.sign(data)


def load_or_create(path: Path) -> ServerKey:
    """The key in that file (PKCS #8, PEM), which is made, for its owner alone, if it isn't there.

    Raises StartupError if it can't be read, written, or is no Ed25519 key: a new key in its place
    would make this server a stranger to all others, so that is left to its operator.
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
        raise StartupError(f"{path} holds no unencrypted Ed25519 key: restore it from a backup")
    return ServerKey(private)


def _create(path: Path) -> None:
    """Writes a fresh key as a whole or not at all; a key that is there already stays."""
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
            # A link, not a rename: of two processes that start at once, the first one's key stays.
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
