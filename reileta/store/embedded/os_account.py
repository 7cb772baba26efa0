"""The system account that runs PostgreSQL, which refuses to run as root.

If the server runs as root, PostgreSQL runs as an unprivileged account, which must be able to reach
the data folder and PostgreSQL's own files. So folders on the way get the permission to pass through
(`o+x`), but not to list them; the permissions of their contents don't change.
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

from reileta.startup import StartupError

ACCOUNTS: Final = ("postgres", "embedded_postgres")
"""Accounts to use, in this order; the last one is created if none exists.

Not `nobody`: other programs that run as nobody could reach the database.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A system account, for `subprocess`."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Makes the account the owner of the path."""
        os.chown(path, self.uid, self.gid)


def account_for(cluster: Path) -> Account | None:
    """The account to run PostgreSQL as, or None for the account of this process.

    An existing cluster's owner is used. Raises StartupError if root finds no account.
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


def open_way_to(path: Path) -> list[Path]:
    """Lets other accounts pass through the folders above the path; returns the folders it
    changed."""
    opened = []
    for folder in path.parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
            opened.append(folder)
    return opened


def open_tree(root: Path) -> None:
    """Lets other accounts read all files below: PostgreSQL's programs, libraries and tables."""
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
        return _account(name)
    except KeyError:
        raise StartupError(
            "PostgreSQL does not run as root, and creating an account for it failed: start Reileta "
            "as another user, or use --database"
        ) from None
