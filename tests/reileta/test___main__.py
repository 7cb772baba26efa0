from __future__ import annotations

import subprocess
import sys

from reileta import __version__


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reileta", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"reileta {__version__}\n")


def test_its_status_is_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reileta", "zzz"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "reileta: No such command 'zzz'.\n"
