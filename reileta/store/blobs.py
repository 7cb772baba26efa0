"""Which files are wanted: the database's side of `reileta/files` (PROTOCOL §5).

A file lies in a `FileStore`; a row of `blobs` stands for it; assets and images reference the row.
Two rules keep a file that is referenced from being lost, whatever happens at the same time or ends
in the middle:

- Whoever references a file, and whoever removes one, holds the lock of its row meanwhile. Under the
  lock, a reference is made only to a file that is there, and a file is removed only if nothing
  references it, before its row's deletion is committed. A crash in between leaves a row without a
  file, that nothing references: harmless, and mended by the next upload of that content.
- An upload puts its file in place before it asks for a reference, and asks for it before its body
  ends (`Upload.commit`): until then the file store removes the file for nobody.

Whoever takes a reference away, or gets none for what it put in place, releases the file afterwards
(`releasing`): if it was the last, the file goes at once, so that nobody has more on the disk than
is counted. What a crash or an outage keeps from being released is found later: `adopt` makes a row
for a file without one, and `collect` removes what nothing has referenced for a while (`before_ms`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio

from reileta.clock import Clock
from reileta.errors import DatabaseUnavailable, StorageUnavailable
from reileta.media.files import FileStore
from reileta.observability import log_events
from reileta.store.database import ConstraintBroken, Queries, Row

RELEASE_S: Final = 5.0
"""How long a request waits for what it released to be removed; the rest is collected later."""
_AT_ONCE: Final = 1000
"""Files that are looked at in one statement."""

_log = structlog.stdlib.get_logger(__name__)


class Blobs:
    def __init__(self, queries: Queries, clock: Clock, files: FileStore) -> None:
        self._queries = queries
        self._clock = clock
        self._files = files

    async def hold(self, transaction: Queries, hash_: str, size: int) -> None:
        """Lets the transaction reference a file that was put in place; locks it until its end.

        Raises StorageUnavailable if the file is gone again: it has to be uploaded anew.
        """
        await transaction.execute(
            "INSERT INTO blobs (hash, size, created_at, touched_at) VALUES ($1, $2, $3, $3) "
            "ON CONFLICT (hash) DO UPDATE SET touched_at = excluded.touched_at",
            hash_,
            size,
            self._clock.now_ms(),
        )
        if not await self._files.has(hash_):
            raise StorageUnavailable

    @asynccontextmanager
    async def releasing(self) -> AsyncIterator[set[str]]:
        """A set for the body to put hashes in: they are released when it has ended, however it did,
        also when it is being cancelled.

        The body's transaction is to end within it, and so is an upload. Nothing is raised: what
        can't be removed within `RELEASE_S` is collected later.
        """
        hashes: set[str] = set()
        try:
            yield hashes
        finally:
            with trio.move_on_after(RELEASE_S, shield=True):
                try:
                    await self.release(hashes)
                except (DatabaseUnavailable, StorageUnavailable):
                    _log.debug(log_events.FILES_POSTPONED)

    async def release(self, hashes: Collection[str]) -> int:
        """Removes at once those of the files that nothing references, be there a row or not; how
        many. What an upload has put in place whose body goes on stays: that upload will see to it.

        Raises DatabaseUnavailable, StorageUnavailable; what it removed until then stays removed.
        """
        if not hashes:
            return 0
        # Looks first without a lock: what is wanted elsewhere, as is usual, costs this alone.
        rows = await self._queries.fetch(
            "SELECT hash FROM unnest($1::text[]) AS it (hash) "
            "WHERE NOT EXISTS (SELECT FROM assets WHERE assets.hash = it.hash) "
            "AND NOT EXISTS (SELECT FROM images WHERE images.hash = it.hash)",
            list(hashes),
        )
        released = 0
        for row in rows:
            released += await self._release(row["hash"])
        return released

    async def adopt(self) -> int:
        """Makes a row for each file that has none; how many these were."""
        adopted = 0
        after = ""
        while found := await self._files.listed(after, _AT_ONCE):
            adopted += await self._queries.execute(
                "INSERT INTO blobs (hash, size, created_at, touched_at) "
                "SELECT hash, size, $3, $3 FROM unnest($1::text[], $2::bigint[]) AS it (hash, size)"
                "ON CONFLICT (hash) DO NOTHING",
                [file.hash for file in found],
                [file.size for file in found],
                self._clock.now_ms(),
            )
            after = found[-1].hash
        return adopted

    async def collect(self, before_ms: int) -> int:
        """Removes the files that nothing references and nobody has touched since; how many.

        Raises StorageUnavailable; what it removed until then stays removed.
        """
        collected = 0
        after = ""
        while rows := await self._queries.fetch(
            "SELECT hash FROM blobs WHERE touched_at < $1 AND hash > $2 "
            "AND NOT EXISTS (SELECT FROM assets WHERE assets.hash = blobs.hash) "
            "AND NOT EXISTS (SELECT FROM images WHERE images.hash = blobs.hash) "
            "ORDER BY hash LIMIT $3",
            before_ms,
            after,
            _AT_ONCE,
        ):
            for row in rows:
                collected += await self._collect(row["hash"], before_ms)
            after = rows[-1]["hash"]
        return collected

    async def _release(self, hash_: str) -> bool:
        try:
            async with self._queries.transaction() as transaction:
                # The lock, also of a file that has no row yet: it never outlives the transaction.
                await transaction.execute(
                    "INSERT INTO blobs (hash, size, created_at, touched_at) VALUES ($1, 0, $2, $2) "
                    "ON CONFLICT (hash) DO UPDATE SET touched_at = blobs.touched_at",
                    hash_,
                    self._clock.now_ms(),
                )
                # Under the lock, the foreign keys look again.
                await transaction.execute("DELETE FROM blobs WHERE hash = $1", hash_)
                if not await self._files.remove(hash_, placed_before_ms=None):
                    raise _Fresh
        except (ConstraintBroken, _Fresh):
            return False
        return True

    async def _collect(self, hash_: str, before_ms: int) -> bool:
        try:
            async with self._queries.transaction() as transaction:
                # Looks again, under the lock. The foreign keys look a third time: they alone see
                # what was committed while the lock was waited for.
                deleted = await transaction.execute(
                    "DELETE FROM blobs WHERE hash = $1 AND touched_at < $2", hash_, before_ms
                )
                if not deleted:
                    return False
                if not await self._files.remove(hash_, placed_before_ms=before_ms):
                    raise _Fresh
        except (ConstraintBroken, _Fresh):
            return False
        return True


def hashes(rows: Collection[Row]) -> frozenset[str]:
    """The hashes in rows with a column `hash`, which may be null."""
    return frozenset(row["hash"] for row in rows if row["hash"] is not None)


class _Fresh(Exception):
    """The file was put in place again, or lately: its row stays as it was."""
