"""Under which account of the system PostgreSQL runs, which refuses to run as root.

Started by root, it runs as an unprivileged account, which must be able to reach the data folder and
PostgreSQL's own files. So folders on the way that are closed to others are opened for passing
through (`o+x`), no further: their names stay hidden and what lies in them stays as it is.
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
"""Accounts that will do, in this order; the last one is made if there is none.

Not `nobody`: whatever else runs as nobody could reach the database.
"""


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the system, for `subprocess`."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Makes the path the account's own."""
        os.chown(path, self.uid, self.gid)


def account_for(cluster: Path) -> Account | None:
    """The account to run PostgreSQL as, or None for the one this process runs as.

    A folder that an earlier start has made decides. Raises StartupError if root has no account to
    run it as.
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
    """Lets other accounts pass through the folders above the path; those that were closed."""
    opened = []
    for folder in path.parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
            opened.append(folder)
    return opened


def open_tree(root: Path) -> None:
    """Lets other accounts read what is below: PostgreSQL's programs, libraries, and tables."""
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
            "PostgreSQL does not run as root, and no account for it could be made: start Reileta "
            "as another user, or give --database"
        ) from None
