"""Files that nobody wants: what uploads left behind, and what nothing refers to any more.

What ended in the middle with an earlier process is swept out at the start, and what it had put in
place but not yet written down is adopted; then, over and over, what nothing refers to is collected.
A file is spared for a while after it was put in place or referred to last, so an upload that has
just come in is never taken for one that nobody wants (`reileta/store/blobs.py`).
"""

from __future__ import annotations

from typing import Final

import structlog
import trio

from reileta import logevents
from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable, StorageUnavailable
from reileta.files import FileStore
from reileta.store.blobs import Blobs

SPARED_MS: Final = 60 * 60 * 1000
EVERY_S: Final = 30 * 60.0
AGAIN_S: Final = 60.0
"""When to try again what the database or the disk was not there for."""

_log = structlog.stdlib.get_logger(__name__)


class Janitor:
    """Keeps one store's files in order."""

    def __init__(self, files: FileStore, blobs: Blobs, clock: Clock) -> None:
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._began = False

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            try:
                await self._round()
            except (DatabaseUnavailable, StorageUnavailable):
                _log.debug(logevents.FILES_POSTPONED)
                await trio.sleep(AGAIN_S)
            else:
                await trio.sleep(EVERY_S)

    async def _round(self) -> None:
        swept = adopted = 0
        if not self._began:
            swept = await self._files.sweep()
            adopted = await self._blobs.adopt()
            self._began = True
        collected = await self._blobs.collect(self._clock.now_ms() - SPARED_MS)
        if swept or adopted or collected:
            _log.info(logevents.FILES_TIDIED, swept=swept, adopted=adopted, collected=collected)
