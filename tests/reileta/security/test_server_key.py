from __future__ import annotations

import base64
import threading
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reileta.security.server_key import ServerKey, load_or_create
from reileta.startup import StartupError


def public(key: ServerKey) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.public_base64url + "="))


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "server.pem"
    first = load_or_create(path)
    assert load_or_create(path).public_base64url == first.public_base64url
    assert len(first.public_base64url) == 43
    assert [file.name for file in path.parent.iterdir()] == ["server.pem"]


def test_signatures_verify_with_the_public_half(tmp_path: Path) -> None:
    key = load_or_create(tmp_path / "key")
    signature = key.sign(b"data")
    public(key).verify(signature, b"data")
    with pytest.raises(InvalidSignature):
        public(key).verify(signature, b"other")


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    start = threading.Barrier(8)
    keys: list[str] = []

    def load() -> None:
        start.wait()
        keys.append(load_or_create(path).public_base64url)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_file_that_holds_no_such_key_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    other = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in (b"", b"rubbish", other):
        path.write_bytes(content)
        with pytest.raises(StartupError, match="not an unencrypted Ed25519 key"):
            load_or_create(path)
        assert path.read_bytes() == content


def test_a_path_that_can_not_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="can't use the server's key"):
        load_or_create(tmp_path / "file" / "key")
