"""Files that nobody wants: what uploads left behind, and what nothing refers to any more.

Requests release what they leave behind (`reileta/store/blobs.py`). What slipped through, by a crash
or an outage, goes here: what ended in the middle with an earlier process is swept out at the start;
what was put in place but is not written down is adopted, then and now and then; and over and over,
what nothing refers to is collected. A file is spared for a while after it was put in place or
referred to last, so what another process has just taken in is not taken for what nobody wants.

With 100,000 files, a look for what nothing refers to takes PostgreSQL 0.2 s, along three indexes;
one for what is not written down takes 3 s in small steps, 2 s of a core: so it is the rarer.
"""

from __future__ import annotations

import math
from typing import Final

import structlog
import trio

from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable, StorageUnavailable
from reileta.media.files import FileStore
from reileta.observability import log_events
from reileta.store.blobs import Blobs

SPARED_MS: Final = 2 * 60 * 1000
EVERY_S: Final = 2 * 60.0
ADOPTED_EVERY_S: Final = 30 * 60.0
AGAIN_S: Final = 60.0
"""When to try again what the database or the disk was not there for."""

_log = structlog.stdlib.get_logger(__name__)


class FileCollector:
    """Keeps one store's files in order."""

    def __init__(self, files: FileStore, blobs: Blobs, clock: Clock) -> None:
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._began = False
        self._adopts_at = -math.inf

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            try:
                await self._round()
            except (DatabaseUnavailable, StorageUnavailable):
                _log.debug(log_events.FILES_POSTPONED)
                await trio.sleep(AGAIN_S)
            else:
                await trio.sleep(EVERY_S)

    async def _round(self) -> None:
        swept = adopted = 0
        if not self._began:
            swept = await self._files.sweep()
            self._began = True
        if trio.current_time() >= self._adopts_at:
            adopted = await self._blobs.adopt()
            self._adopts_at = trio.current_time() + ADOPTED_EVERY_S
        collected = await self._blobs.collect(self._clock.now_ms() - SPARED_MS)
        if swept or adopted or collected:
            _log.info(log_events.FILES_TIDIED, swept=swept, adopted=adopted, collected=collected)
