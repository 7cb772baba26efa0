"""The server's Ed25519 key: created at the first start, and replaced by `reileta key rotate`.

Other servers remember the public key. So each new key is signed by the one before it; these
signatures are the links of a chain, by which another server gets from the key that it remembers to
the present one.

The command only writes the new key to a file of its own (`prepare`). The server takes it at its
start or at SIGHUP (`adopt`), since it knows its address, which is in the signature. The key and its
links are in one file, which is replaced in one step: after a crash the server has the old key and
the file with the new one, or the new key.

The database knows the public key, too (`load_known`): a server that is started with its database on
another machine, or without its data folder, must not make a key of its own, which would make it a
stranger to all other servers.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
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
from joserfc.jwk import OKPKey

from reileta.concurrency import undone_on_failure
from reileta.rules.federation.signatures import (
    CHAIN_LENGTH,
    Link,
    encode,
    follows_chain,
    key_bytes,
)
from reileta.settings import Settings
from reileta.startup import StartupError

KEY_FILE: Final = "server.key"
"""The name of the key's file in the data folder."""
_OWNER_ONLY: Final = 0o600
_ADVICE: Final = (
    "restore it from a backup, or name its file with --key; if the key is lost, run `reileta key "
    "accept`, after which other servers must accept the new key"
)
_END: Final = b"-----END PRIVATE KEY-----\n"
_LINK: Final = re.compile(r"link: (?P<key>[\w-]{43}) (?P<since>\d{1,15}) (?P<by>[\w-]{86})", re.A)


class ServerKey:
    """Signs as the server.

    Attributes:
        links: the chain from earlier keys to this one, newest first, at most `CHAIN_LENGTH`.
    """

    def __init__(self, private: Ed25519PrivateKey, links: Sequence[Link] = ()) -> None:
        self._private = private
        self.links: Final = tuple(links)
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_base64url: Final = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        """The public key: 32 bytes as 43 characters of base64url, without padding."""

    def sign(self, data: bytes) -> bytes:
        """The signature of the data, 64 bytes."""
        return self._private.sign(data)

    def for_tokens(self) -> OKPKey:
        """The same key, for signing JWTs."""
        secret = base64.urlsafe_b64encode(self._private.private_bytes_raw()).rstrip(b"=").decode()
        return OKPKey.import_key(
            {"kty": "OKP", "crv": "Ed25519", "x": self.public_base64url, "d": secret}
        )

    def derive(self, purpose: bytes) -> bytes:
        """A secret key of 32 bytes for that purpose; always the same for the same server's key."""
        secret = self._private.private_bytes_raw()
        return HKDF(SHA256(), 32, salt=None, info=purpose).derive(secret)

    @classmethod
    def generate(cls) -> ServerKey:
        """A new key, which is stored nowhere."""
        return cls(Ed25519PrivateKey.generate())

    def replaced_by(self, other: ServerKey, address: str, now_ms: int) -> ServerKey:
        """The other key with the links to it. `address` is the server's canonical address."""
        since = max([now_ms, *(link.since + 1 for link in self.links[:1])])
        new = other.public_base64url
        by = encode(self.sign(key_bytes(address, self.public_base64url, new, since)))
        return ServerKey(other._private, (Link(new, since, by), *self.links)[:CHAIN_LENGTH])

    def _content(self) -> bytes:
        """The content of the key's file: PEM, and a line for each link."""
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        lines = [f"link: {link.public_key} {link.since} {link.by}\n" for link in self.links]
        return pem + "".join(lines).encode()


def load_or_create(path: Path) -> ServerKey:
    """Loads the key from that file (PKCS #8, PEM); creates the file, readable for its owner only.

    Raises StartupError if it can't be read or written, or is not an Ed25519 key. A new key in its
    place would make this server a stranger to all others, so the operator has to decide.
    """
    try:
        try:
            return _load(path)
        except FileNotFoundError:
            _create(path, ServerKey.generate())
            return _load(path)
    except OSError as error:
        raise StartupError(f"can't use the server's key {path}: {error.strerror}") from error


def key_path(settings: Settings) -> Path:
    """The file of the server's key."""
    return settings.key or settings.data / KEY_FILE


def load_known(path: Path, known: str | None, address: str) -> ServerKey:
    """Loads the key from that file. Its public half, or that of an earlier key in its chain, must
    be `known`; None: no server has started with the database, and `load_or_create` applies.

    `address` is the server's canonical address. Raises StartupError.
    """
    if known is None:
        return load_or_create(path)
    try:
        key = _load(path)
    except FileNotFoundError:
        raise StartupError(f"the server's key {path} does not exist: {_ADVICE}") from None
    except OSError as error:
        raise StartupError(f"can't use the server's key {path}: {error.strerror}") from error
    if key.public_base64url == known:
        return key
    newest = key.links[0].public_key if key.links else None
    if newest != key.public_base64url or not follows_chain(known, key.links, address):
        raise StartupError(
            f"the server's key {path} is not the one that the database knows, {known}: {_ADVICE}"
        )
    return key


def prepare(path: Path) -> str:
    """Writes a new key beside that of the file, for the server to adopt. Returns its public half.

    Raises StartupError if there is no key yet, or a new one already waits; OSError.
    """
    try:
        owner = path.stat()
    except FileNotFoundError:
        raise StartupError(
            f"{path} does not exist: the server makes it at its first start"
        ) from None
    key = ServerKey.generate()
    if not _create(_next(path), key, owner):
        raise StartupError(
            "a new key waits already: the server takes it when it starts or gets SIGHUP"
        )
    return key.public_base64url


def adopt(path: Path, key: ServerKey, address: str, now_ms: int) -> ServerKey:
    """The key that waits beside the server's own key, now in its place; else the key itself.

    Raises StartupError; then the key stays.
    """
    waiting = _next(path)
    try:
        try:
            new = _load(waiting)
        except FileNotFoundError:
            return key
        if new.public_base64url != key.public_base64url:  # a crash came before the last step
            key = key.replaced_by(new, address, now_ms)
            _replace(path, key)
        waiting.unlink(missing_ok=True)  # another process may have been faster
        _sync_folder(path.parent)
    except OSError as error:
        raise StartupError(f"can't use the server's new key {waiting}: {error.strerror}") from error
    return key


def renew(path: Path, key: ServerKey, address: str, now_ms: int) -> ServerKey:
    """The key that follows from `key`, if it was replaced meanwhile; else the key itself.

    Another process with the same file may have taken a new key before this one: then the next key
    must be signed by that. Raises StartupError; then the key stays.
    """
    current = load_known(path, key.public_base64url, address)
    if current.public_base64url == key.public_base64url:
        current = key
    return adopt(path, current, address, now_ms)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _load(path: Path) -> ServerKey:
    pem = path.read_bytes()
    if path.stat().st_mode & 0o077:
        with suppress(OSError):  # a secret that a container mounts belongs to another account
            path.chmod(_OWNER_ONLY)
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise StartupError(f"{path} is not an unencrypted Ed25519 key: restore it from a backup")
    return ServerKey(private, _links(path, pem.partition(_END)[2]))


def _links(path: Path, lines: bytes) -> Sequence[Link]:
    matches = [_LINK.fullmatch(line) for line in lines.decode("utf-8", "replace").splitlines()]
    links = [Link(match["key"], int(match["since"]), match["by"]) for match in matches if match]
    if len(links) != len(matches) or len(links) > CHAIN_LENGTH:
        raise StartupError(f"{path} has wrong lines after the key: restore it from a backup")
    return links


def _create(path: Path, key: ServerKey, owner: os.stat_result | None = None) -> bool:
    """Writes the key to a new file in one step; returns whether it did. An existing file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path, key)
    try:
        if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            # A command that root runs makes a file that the server can read.
            os.chown(draft, owner.st_uid, owner.st_gid)
        try:
            # A link, not a rename: if two processes start at once, the key of the first one stays.
            os.link(draft, path)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
    finally:
        draft.unlink()
    return True


def _replace(path: Path, key: ServerKey) -> None:
    """Writes the key to its file in one step."""
    draft = _draft(path, key)
    with undone_on_failure(draft.unlink):
        draft.replace(path)
    _sync_folder(path.parent)


def _draft(path: Path, key: ServerKey) -> Path:
    """A file beside that path with the key, on the disk."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with undone_on_failure(draft.unlink), os.fdopen(handle, "wb") as file:
        file.write(key._content())
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
