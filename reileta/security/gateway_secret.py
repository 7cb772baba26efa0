"""The secret that gateways and registries share (`--gateway-secret`)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from reileta.startup import StartupError

LEAST: Final = 32
LIMIT_BYTES: Final = 4096


def read_gateway_secret(path: Path | None) -> bytes | None:
    """The content of the file, without spaces around it; None without a file.

    Raises StartupError if it can't be read, or is too short.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            secret = file.read(LIMIT_BYTES).strip()
    except OSError as error:
        raise StartupError(f"can't read {path}: {error.strerror}") from error
    if len(secret) < LEAST:
        raise StartupError(f"{path} must hold a secret of at least {LEAST} characters")
    return secret
