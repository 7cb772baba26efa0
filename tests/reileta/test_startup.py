from __future__ import annotations

import errno
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reileta import startup
from reileta.errors import DatabaseUnavailable
from reileta.startup import StartupError

HERE = "127.0.0.1:3032"


def said(error: BaseException) -> str | None:
    return startup.reason(error, listening_on=HERE)


def test_a_startup_error_speaks_for_itself_from_within_any_group() -> None:
    error = StartupError("the data folder is in use")
    assert said(error) == "the data folder is in use"
    group = BaseExceptionGroup("x", [ValueError(), ExceptionGroup("y", [error])])
    assert said(group) == "the data folder is in use"


def test_a_database_that_is_away_is_said_to_be() -> None:
    assert "can't reach the database" in (said(DatabaseUnavailable()) or "")


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES])
def test_a_port_that_can_not_be_had_is_named(number: int) -> None:
    assert (said(OSError(number, os.strerror(number))) or "").startswith(HERE)


async def test_a_port_in_use_is_recognised_as_trio_reports_it() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(OSError) as caught:
            await trio.open_tcp_listeners(port, host="127.0.0.1")
    assert said(caught.value) == f"{HERE} is already in use"


def test_a_host_that_does_not_exist_is_named() -> None:
    assert "no such host" in (said(socket.gaierror(-2, "Name or service not known")) or "")


def test_a_file_that_can_not_be_used_is_named_and_not_the_port() -> None:
    assert said(PermissionError(errno.EACCES, "x", "/d/key")) == "can't use /d/key: " + os.strerror(
        errno.EACCES
    )


@pytest.mark.parametrize("defect", [KeyError("x"), OSError(errno.EBADF, "x"), OSError("bare")])
def test_a_defect_of_ours_is_not_explained_away(defect: BaseException) -> None:
    assert said(defect) is None


def test_without_tls_there_is_nothing_to_check() -> None:
    startup.check_tls(None, None)


def test_a_certificate_with_its_key_is_taken(tmp_path: Path) -> None:
    startup.check_tls(*_pair(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    cert, _ = _pair(tmp_path)
    with pytest.raises(StartupError, match="no-such-key"):
        startup.check_tls(cert, tmp_path / "no-such-key")


def test_files_that_are_no_certificate_are_refused(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk")
    with pytest.raises(StartupError, match="must be a PEM certificate"):
        startup.check_tls(junk, junk)


def test_the_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    cert, _ = _pair(tmp_path)
    _, key = _pair(tmp_path / "other")
    with pytest.raises(StartupError, match="must be a PEM certificate"):
        startup.check_tls(cert, key)


def test_a_key_with_a_passphrase_is_refused_without_asking(tmp_path: Path) -> None:
    cert, key = _pair(tmp_path, passphrase=b"hunter2")
    with pytest.raises(StartupError, match="unencrypted"):
        startup.check_tls(cert, key)


def _pair(folder: Path, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """A certificate of its own signing, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return cert_path, key_path
