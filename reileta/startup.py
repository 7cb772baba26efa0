"""Startup errors in one sentence for the operator, and limits of the process."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from reileta.errors import DatabaseFault, DatabaseUnavailable


class StartupError(Exception):
    """The server can't start; the text says why and, if possible, how to fix it.

    Startup code raises it for problems that the operator can fix: a folder that is in use, a
    database of a newer version, a key that can't be read.
    """


_NETWORK: Final = {
    errno.EADDRINUSE: "is already in use",
    errno.EADDRNOTAVAIL: "is not an address of this machine",
    errno.EACCES: "needs more permissions than this account has",
    errno.EINVAL: "is not an address to listen on",
}
_FILES: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    }
)


def reason(error: BaseException, *, listening_on: str) -> str | None:
    """The sentence for an error that ended a start, or None for a defect of the server.

    Exception groups are searched, because nurseries wrap the errors of their tasks. `listening_on`
    is the `host:port` of the settings, since the system's own errors don't name it.
    """
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, StartupError):
            return str(leaf)
    for leaf in leaves:
        if isinstance(leaf, DatabaseFault):
            return f"can't use the database: {leaf.__cause__}"
        if isinstance(leaf, DatabaseUnavailable):
            return "can't reach the database: check --database, and that PostgreSQL is running"
        if isinstance(leaf, socket.gaierror):
            return f"can't listen on {listening_on}: no such host"
        if isinstance(leaf, OSError):
            number = _errno(leaf)
            if leaf.filename is not None and number in _FILES:
                return f"can't use {leaf.filename}: {os.strerror(number)}"
            if leaf.filename is None and number in _NETWORK:
                return f"{listening_on} {_NETWORK[number]}"
    return None


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Reads the certificate and its key as the server will. Raises StartupError."""
    if cert is None or key is None:
        return
    for path in (cert, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise StartupError(f"can't read {path}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without this, OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartupError(
            f"{cert} and {key} must be a PEM certificate and its matching, unencrypted PEM key"
        ) from error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _errno(error: OSError) -> int:
    """The error's number, also where trio raises a general error from the system's own."""
    if error.errno is not None:
        return error.errno
    cause = error.__cause__
    if isinstance(cause, BaseException):
        for leaf in _leaves(cause):
            if isinstance(leaf, OSError) and leaf.errno is not None:
                return leaf.errno
    return 0


RESERVED_DESCRIPTORS: Final = 256
"""File descriptors that are not available to connections: for the database, files, logs."""


def raise_descriptor_limit() -> None:
    """Raises the process's limit of open files to the highest that the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems allow less than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_that_fit(wanted: int) -> int:
    """The number of connections that the process's descriptors allow, at most `wanted`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - RESERVED_DESCRIPTORS))
