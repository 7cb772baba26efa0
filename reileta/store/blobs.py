"""References to stored files: which files are needed, and which to delete.

A file is in a `FileStore`, named by the hash of its content, and has a row in `blobs`. Assets and
images reference that row by a foreign key. Only this module deletes files.

Guarantee: if a committed asset or image references a hash, the file of that hash is stored. To see
why, follow the two procedures. Both lock the row of the hash (U2, D1) until their transaction ends.
So for one hash, U2 to U5 and D1 to D4 never overlap, also not between servers on one database.

To reference a file after an upload:

  U1. `FileUpload.commit` stores the file durably and claims it: `FileStore.remove` in this process
      refuses to delete it until the upload's body ends. After a crash, the file has no reference:
      `adopt` and `collect` delete it later.
  U2. `hold` inserts or updates the row, which locks it; it waits for a deletion in D1 to D4.
  U3. `hold` checks that the file is stored. Another process, which does not see the claim, may have
      deleted it after U1: then StorageUnavailable is raised, and the client must upload again.
  U4. The caller inserts the reference in the same transaction.
  U5. COMMIT. A crash or abort before it undoes U2 and U4: the file has no reference, as after U1.
      If the answer is lost, the reference may exist or not; releasing the file is safe (D2).

To delete a file that nothing references (`release`, `collect`):

  D1. Lock the row: `release` inserts it if there is none, `collect` deletes it (D2). This waits for
      an upload in U2 to U5. After that wait, `collect` sees the new `touched_at`, and stops.
  D2. DELETE the row. The foreign keys see every committed reference, also one that was committed
      during the wait in D1: then the statement fails, and the file stays.
  D3. `FileStore.remove` deletes the file. It refuses if an upload claims the file (U1) or, for
      `collect`, if the file was stored again lately: then ROLLBACK keeps the row.
      The lock must last for as long as the disk needs, so these transactions have no limit of
      `IDLE_IN_TRANSACTION_S`.
  D4. COMMIT. After a crash between D3 and D4 there is a row without a file. Nothing references it
      (D2), and nothing can until an upload stores the file again (U1, U3).

A caller that removes a reference, or gets none for an upload, releases the file (`releasing`), so
that a user never has more on the disk than the quota counts. If a crash or an outage prevents that,
`adopt` creates a row for the file, and `collect` deletes it after a while (`before_ms`).
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
from reileta.store.database import STATEMENT_S, ConstraintBroken, Queries, Row

RELEASE_S: Final = 5.0
"""Seconds a request waits for `release`; `collect` deletes the rest later."""
_AT_ONCE: Final = 1000
"""Files per statement."""
_WAIT_FOR_DISK: Final = f"SET LOCAL idle_in_transaction_session_timeout = {int(STATEMENT_S * 1000)}"
_KEEP_LOCK: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"

_log = structlog.stdlib.get_logger(__name__)


class Blobs:
    def __init__(self, queries: Queries, clock: Clock, files: FileStore) -> None:
        self._queries = queries
        self._clock = clock
        self._files = files

    async def hold(self, transaction: Queries, hash_: str, size: int) -> None:
        """Locks a stored file's row, so that the transaction can reference it (U2 and U3).

        Raises StorageUnavailable if the file is gone: it must be uploaded again.
        """
        await transaction.execute(_WAIT_FOR_DISK)
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
        """A set to which the body adds hashes; they are released when it ends, in any way.

        The body must contain the whole transaction and the whole upload. Raises nothing: files that
        can't be released within `RELEASE_S` are collected later.
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
        """Deletes those of the files that nothing references, with or without a row; returns how
        many.

        A file that an upload claims stays, and that upload releases it. Raises DatabaseUnavailable,
        StorageUnavailable; files deleted before that stay deleted.
        """
        if not hashes:
            return 0
        # First a look without a lock: a file that is still referenced, the usual case, costs only
        # this.
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
        """Creates a row for each file without one; returns how many."""
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

    async def collect(self, before_ms: int, *, placed_before_ms: int | None = None) -> int:
        """Deletes unreferenced files that were not touched since `before_ms`; returns how many.

        A file that was stored since `placed_before_ms`, by the clock of the file system, stays; by
        default that is the same time.

        Raises StorageUnavailable; files deleted before that stay deleted.
        """
        placed_ms = before_ms if placed_before_ms is None else placed_before_ms
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
                collected += await self._collect(row["hash"], before_ms, placed_ms)
            after = rows[-1]["hash"]
        return collected

    async def _release(self, hash_: str) -> bool:
        try:
            async with self._queries.transaction() as transaction:
                await transaction.execute(_KEEP_LOCK)
                # D1. A row inserted here never outlives the transaction.
                await transaction.execute(
                    "INSERT INTO blobs (hash, size, created_at, touched_at) VALUES ($1, 0, $2, $2) "
                    "ON CONFLICT (hash) DO UPDATE SET touched_at = blobs.touched_at",
                    hash_,
                    self._clock.now_ms(),
                )
                # D2
                await transaction.execute("DELETE FROM blobs WHERE hash = $1", hash_)
                if not await self._files.remove(hash_, placed_before_ms=None):
                    raise _Fresh
        except (ConstraintBroken, _Fresh):
            return False
        return True

    async def _collect(self, hash_: str, before_ms: int, placed_before_ms: int) -> bool:
        try:
            async with self._queries.transaction() as transaction:
                await transaction.execute(_KEEP_LOCK)
                # D1 and D2: the condition is evaluated again under the lock, and the foreign keys
                # also see references that were committed during the wait for the lock.
                deleted = await transaction.execute(
                    "DELETE FROM blobs WHERE hash = $1 AND touched_at < $2", hash_, before_ms
                )
                if not deleted:
                    return False
                if not await self._files.remove(hash_, placed_before_ms=placed_before_ms):
                    raise _Fresh
        except (ConstraintBroken, _Fresh):
            return False
        return True


def hashes(rows: Collection[Row]) -> frozenset[str]:
    """The hashes in rows with a nullable column `hash`."""
    return frozenset(row["hash"] for row in rows if row["hash"] is not None)


class _Fresh(Exception):
    """The file is claimed or was stored again lately: its row stays as it was."""
