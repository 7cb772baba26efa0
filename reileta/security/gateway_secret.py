"""The secrets that gateways and registries share (`--gateway-secret`).

A file with several of them is for the time in which one replaces another: gateways prove with the
first, and registries believe all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reileta.startup import StartupError

LEAST: Final = 32
LIMIT_BYTES: Final = 4096


def read_gateway_secrets(path: Path | None) -> tuple[bytes, ...]:
    """The lines of the file, without spaces around them and empty ones; none without a file.

    Raises StartupError if it can't be read, or one is too short.
    """
    if path is None:
        return ()
    try:
        with path.open("rb") as file:
            lines = file.read(LIMIT_BYTES).splitlines()
    except OSError as error:
        raise StartupError(f"can't read {path}: {error.strerror}") from error
    secrets = tuple(stripped for line in lines if (stripped := line.strip()))
    if not secrets or min(map(len, secrets)) < LEAST:
        raise StartupError(
            f"{path} must hold secrets of at least {LEAST} characters, each on a line"
        )
    return secrets
