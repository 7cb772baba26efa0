"""Garbage-collects files of uploads.

Requests release the files that they leave behind (`reileta/store/blobs.py`). A crash or an outage
can leave others, which this task collects:

- at the start: deletes partial uploads of an earlier process;
- at the start and every 30 minutes: creates a row for each complete file without one;
- every 2 minutes: deletes files that no row references.

A file is spared for 2 minutes after it was stored or last referenced, so that another process's
fresh upload is not deleted. A server that has lost its lock (`reileta/store/server_lock.py`)
collects nothing. Of the nodes of a cluster, one at a time collects.

With 100,000 files, PostgreSQL takes 0.2 s to find those without references, along three indexes.
Finding files without a row takes 3 s in small steps, 2 s of a core, and so it is done less often.
"""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from reileta.clock import Clock
from reileta.errors import DatabaseFault, DatabaseUnavailable, StorageUnavailable
from reileta.media.files import FileStore
from reileta.observability import log_events
from reileta.store.blobs import Blobs
from reileta.store.server_lock import ServerLock

SPARED_MS: Final = 2 * 60 * 1000
EVERY_S: Final = 2 * 60.0
ADOPTED_EVERY_S: Final = 30 * 60.0
AGAIN_S: Final = 60.0
"""When to try again if the database or the disk failed."""

_log = structlog.stdlib.get_logger(__name__)


class FileCollector:
    """Collects the files of one store. `run` is a task of the server."""

    def __init__(
        self, files: FileStore, blobs: Blobs, lock: ServerLock, clock: Clock, file_clock: Clock
    ) -> None:
        """`clock` is that of the database's rows, `file_clock` that of the file system."""
        self._files = files
        self._blobs = blobs
        self._lock = lock
        self._clock = clock
        self._file_clock = file_clock
        self._began = False
        self._adopts_at = -math.inf

    async def run(self) -> None:
        """Collects until cancelled."""
        while True:
            try:
                await self._round()
            except DatabaseFault:
                raise  # the supervisor shows it
            except (DatabaseUnavailable, StorageUnavailable):
                _log.debug(log_events.FILES_POSTPONED)
                await trio.sleep(AGAIN_S)
            else:
                await trio.sleep(EVERY_S)

    async def _round(self) -> None:
        if not await self._lock.held():
            return  # another server may have the files
        async with self._lock.alone("files") as alone:
            if alone:
                await self._collect()

    async def _collect(self) -> None:
        swept = adopted = 0
        if not self._began:
            swept = await self._files.sweep()
            self._began = True
        if trio.current_time() >= self._adopts_at:
            adopted = await self._blobs.adopt()
            self._adopts_at = trio.current_time() + ADOPTED_EVERY_S
        collected = await self._blobs.collect(
            self._clock.now_ms() - SPARED_MS,
            placed_before_ms=self._file_clock.now_ms() - SPARED_MS,
        )
        if swept or adopted or collected:
            _log.info(log_events.FILES_TIDIED, swept=swept, adopted=adopted, collected=collected)
