"""Why a server can't start, in one sentence for whoever runs it."""

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

from reileta.errors import DatabaseUnavailable


class StartupError(Exception):
    """The server can't start; the text says why and, where one can know it, what to do.

    Whatever is made ready at the start raises it for what its operator can put right: a folder that
    is in use, a database of a newer version, a key that can't be read.
    """


_NETWORK: Final = {
    errno.EADDRINUSE: "is in use already",
    errno.EADDRNOTAVAIL: "is no address of this machine",
    errno.EACCES: "may not be listened on by this user",
}
_FILES: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    }
)


def reason(error: BaseException, *, listening_on: str) -> str | None:
    """The sentence for an error that ended a start, or None when it is a defect of ours.

    Looks into exception groups, because nurseries wrap what their tasks raise. `listening_on` is
    the `host:port` that was asked for, since the system's own errors don't name it.
    """
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, StartupError):
            return str(leaf)
    for leaf in leaves:
        if isinstance(leaf, DatabaseUnavailable):
            return "the database can't be reached: check --database and that PostgreSQL runs"
        if isinstance(leaf, socket.gaierror):
            return f"{listening_on} can't be listened on: no such host"
        if isinstance(leaf, OSError):
            number = _errno(leaf)
            if leaf.filename is not None and number in _FILES:
                return f"can't use {leaf.filename}: {os.strerror(number)}"
            if leaf.filename is None and number in _NETWORK:
                return f"{listening_on} {_NETWORK[number]}"
    return None


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Reads the certificate and its key as the server will; raises StartupError if it can't."""
    if cert is None or key is None:
        return
    for path in (cert, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise StartupError(f"can't read {path}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A passphrase would be asked for on the terminal, and a server has no one to ask.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartupError(
            f"{cert} and {key} are no certificate and its unencrypted key, both PEM"
        ) from error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _errno(error: OSError) -> int:
    """The error's number, also where trio has put the system's own error behind a general one."""
    if error.errno is not None:
        return error.errno
    cause = error.__cause__
    if isinstance(cause, BaseException):
        for leaf in _leaves(cause):
            if isinstance(leaf, OSError) and leaf.errno is not None:
                return leaf.errno
    return 0


RESERVED_DESCRIPTORS: Final = 256
"""Of the process's descriptors, those that are not for connections: the database, files, logs."""


def raise_descriptor_limit() -> None:
    """Lets the process open as many files and connections as the system allows it to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_that_fit(wanted: int) -> int:
    """How many connections the process's descriptors allow: `wanted`, or fewer."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, soft - RESERVED_DESCRIPTORS))
