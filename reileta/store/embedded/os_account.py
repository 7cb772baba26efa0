"""The system account that the embedded PostgreSQL runs as.

PostgreSQL refuses to run as root. If Reileta runs as root, PostgreSQL runs as an unprivileged
account, which must be able to reach its data folder and its own programs. A folder above these that
the account can't pass gets `o+x` (`u+x` or `g+x` if it belongs to the account): others can pass
through it, but can't list it. No other folder is changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from reileta.observability import log_events
from reileta.startup import StartupError

ACCOUNTS: Final = ("postgres", "embedded_postgres")
"""Accounts to use, in this order. If none exists, the last one is created.

Not `nobody`, because every other program that runs as nobody could reach the database.
"""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Account:
    """A system account, for `subprocess`."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Makes the account the owner of the path."""
        os.chown(path, self.uid, self.gid)

    def pass_bit(self, folder: Path) -> int:
        """The bit of the folder's mode that decides whether the account can pass through it."""
        entry = folder.stat()
        if entry.st_uid == self.uid:
            return stat.S_IXUSR
        return stat.S_IXGRP if entry.st_gid == self.gid else stat.S_IXOTH


def account_for(cluster: Path) -> Account | None:
    """The account to run PostgreSQL as; None for the account of this process.

    The owner of an existing cluster runs it again. Raises StartupError if there is no account that
    root could use.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and cluster.stat().st_uid != 0:
        owner = cluster.stat()
        return Account(owner.st_uid, owner.st_gid)
    for name in ACCOUNTS:
        try:
            return _account(name)
        except KeyError:
            continue
    return _make(ACCOUNTS[-1])


def open_way_to(path: Path, account: Account) -> list[Path]:
    """Lets the account pass through the folders above the path.

    Changes only the folders that it can't pass, by one bit of their modes, and returns these.
    """
    opened = []
    for folder in path.parents:
        bit, mode = account.pass_bit(folder), stat.S_IMODE(folder.stat().st_mode)
        if not mode & bit:
            folder.chmod(mode | bit)
            opened.append(folder)
    return opened


def open_tree(root: Path) -> None:
    """Lets other accounts read a folder and its contents: PostgreSQL's programs and libraries."""
    for folder, _, files in os.walk(root):
        _allow(Path(folder), stat.S_IROTH | stat.S_IXOTH)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                runs = path.stat().st_mode & stat.S_IXUSR
                _allow(path, stat.S_IROTH | (stat.S_IXOTH if runs else 0))


def _allow(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)


def _account(name: str) -> Account:
    entry = pwd.getpwnam(name)
    return Account(entry.pw_uid, entry.pw_gid)


def _make(name: str) -> Account:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is not None:
        subprocess.run(  # noqa: S603 - all of it is written here
            [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
            check=False,
            capture_output=True,
        )
    try:
        account = _account(name)
    except KeyError:
        raise StartupError(
            "PostgreSQL can't run as root, and no account for it could be created: start Reileta "
            "as another user, or set --database"
        ) from None
    _log.warning(log_events.DATABASE_ACCOUNT_CREATED, account=name)
    return account
