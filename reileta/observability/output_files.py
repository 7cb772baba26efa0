"""Standard output and standard error where they are files, opened again for log rotation."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

STANDARD: Final = (1, 2)


class OutputFiles:
    """Those of the descriptors that are files now, by their present names.

    A file that is renamed is still written to; `reopen` makes a new one of the old name.
    """

    def __init__(self, descriptors: tuple[int, ...] = STANDARD) -> None:
        self._paths: dict[int, Path] = {}
        for descriptor in descriptors:
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    self._paths[descriptor] = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:  # it is closed, or there is no /proc
                continue

    def reopen(self) -> list[Path]:
        """Opens the files again, and returns them.

        Raises:
            OSError: one can't be opened; it stays as it was.
        """
        for descriptor, path in self._paths.items():
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            flags |= os.O_NONBLOCK  # a pipe in place of the file would wait for its reader
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            new = os.open(path, flags, mode)
            try:
                os.set_blocking(new, True)
                os.dup2(new, descriptor)
            finally:
                os.close(new)
        return sorted(set(self._paths.values()))
