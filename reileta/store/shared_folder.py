"""Checks that all nodes of a cluster have one folder of uploaded files.

A file that is uploaded at one node must be there at all. So the folder has an id in a file of its
own, which the database knows, too; a node with another folder does not start.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

import trio

from reileta.startup import StartupError
from reileta.store.database import Database

ID_FILE: Final = "folder-id"
_ID_BYTES: Final = 16
_READ_BYTES: Final = 128


async def ensure_shared_folder(database: Database, folder: Path) -> None:
    """Makes the folder the cluster's, if the cluster has none yet.

    Raises:
        StartupError: the other nodes have another folder, or the folder can't be used.
        DatabaseUnavailable: try again.
    """
    async with database.transaction() as transaction:
        # The lock of the row: of two nodes that start at once, one is first.
        row = await transaction.fetch_one("SELECT files_id FROM server FOR UPDATE")
        known = None if row is None else row["files_id"]
        try:
            found = await trio.to_thread.run_sync(_read_or_make, folder, known is None)
        except OSError as error:
            raise StartupError(f"--files {folder}: {error.strerror}") from error
        if known is None:
            await transaction.execute("UPDATE server SET files_id = $1", found)
        elif found != known:
            raise StartupError(
                f"--files {folder} is not the folder of the other nodes: all nodes of a cluster "
                f"need the same folder of uploaded files. If it was moved there, or was lost, "
                f"write {known} to {folder / ID_FILE}"
            )


def _read_or_make(folder: Path, make: bool) -> str | None:
    """The id in the folder; a new one is stored there if there is none and `make`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / ID_FILE
    try:
        with file.open("rb") as opened:
            return opened.read(_READ_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError:
        if not make:
            return None
    new = secrets.token_hex(_ID_BYTES)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as opened:
        opened.write(f"{new}\n")
        opened.flush()
        os.fsync(descriptor)
    return new
