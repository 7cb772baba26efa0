"""Reads of the database that are remembered until a table of theirs is written to.

All statements of a process pass through `postgres.py`, which tells `ReadCache` of each write once
it is committed and before its caller goes on. So what one client is told was changed is what every
request after it reads.

Of other processes' writes, `forget` tells: the change feed calls it for those to users, sessions,
tokens and owners (`store/changes.py`). Others are not seen. Therefore `ReadCache` remembers by
itself only over the embedded database, which one server has; commands (`reileta admin grant`) use
it too, and what they change is read after `TTL_S` at the latest.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import trio

from reileta.bounded_cache import BoundedCache
from reileta.errors import DatabaseUnavailable

R = TypeVar("R", bound=Iterable[Any])  # a row

TTL_S: Final = 1.0
"""How long rows are remembered: what another process changes is read after that."""
UNSETTLED_S: Final = 0.5
"""How long nothing is remembered after a write was cut off: it may be committed a moment later."""
LIMIT_BYTES: Final = 16 * 1024 * 1024
"""What all remembered rows may come to."""

TABLES: Final = frozenset(
    {
        *("assets", "bans", "blobs", "changes", "follows", "images", "instances"),
        *("known_networks", "leases", "moderations", "moderators", "resources", "server"),
        *("services", "sessions", "shares", "spent_refreshes", "tokens", "users", "worlds"),
    }
)
"""All tables."""
_BESIDE: Final = {"sessions": "leases"}
"""Tables whose triggers write to another one when a row is updated."""

_WORD: Final = re.compile(r"\w+")
_READS: Final = re.compile(r"\s*(SELECT|WITH|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET)\b", re.I)
_WRITES: Final = re.compile(r"\b(?:INSERT\s+INTO|UPDATE)\s+(?:ONLY\s+)?(\w+)", re.I)
_ALL: Final = re.compile(
    r"\b(?:DELETE|TRUNCATE|MERGE|COPY|ALTER|DROP|CREATE|CALL)\b|\bDO\s*\$", re.I
)


@lru_cache(maxsize=1024)
def read_by(sql: str) -> frozenset[str]:
    """The tables that a statement may read: all whose name is in it."""
    return TABLES.intersection(_WORD.findall(sql.lower()))


@lru_cache(maxsize=1024)
def written_by(sql: str) -> frozenset[str]:
    """The tables that a statement may write.

    A DELETE may delete from other tables as well (`ON DELETE CASCADE`, triggers), and of an unknown
    kind of statement nothing is known: these count as writes to all.
    """
    written = TABLES.intersection(table.lower() for table in _WRITES.findall(sql))
    if _ALL.search(sql) or not (written or _READS.match(sql)):
        return TABLES
    return written | {_BESIDE[table] for table in written if table in _BESIDE}


class ReadCache(Generic[R]):
    """The generations of the tables, and the rows that were read of them."""

    def __init__(self, *, enabled: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._monotonic = monotonic
        self._generations = dict.fromkeys(TABLES, 0)
        self._unsettled_until_s = 0.0
        self._rows: BoundedCache[list[R]] = BoundedCache(LIMIT_BYTES, TTL_S, monotonic)

    def generation(self, tables: Iterable[str]) -> int | None:
        """A number that grows with each write to one of the tables.

        None while nothing may be remembered.
        """
        if not self._enabled or self._monotonic() < self._unsettled_until_s:
            return None
        generations = self._generations
        return sum([generations[table] for table in tables])

    def forget(self) -> None:
        """Others have written, to whatever tables: nothing that was read before is given back."""
        for table in self._generations:
            self._generations[table] += 1

    @contextmanager
    def writing(self, tables: frozenset[str]) -> Iterator[None]:
        """For the statement, or the COMMIT, that writes to the tables: they have changed when the
        block ends, however it ends."""
        try:
            yield
        except (trio.Cancelled, DatabaseUnavailable):
            # It may be committed all the same, and later than now.
            if tables:
                self._unsettled_until_s = self._monotonic() + UNSETTLED_S
            raise
        finally:
            for table in tables:
                self._generations[table] += 1

    async def rows(
        self, sql: str, args: Sequence[object], read: Callable[[], Awaitable[list[R]]]
    ) -> list[R]:
        """The statement's rows, from memory or else as `read` reads them. Not to be changed."""
        tables = read_by(sql)
        if not tables:
            return await read()
        generation = self.generation(tables)
        key = (sql, *(tuple(arg) if isinstance(arg, list) else arg for arg in args))
        rows = self._rows.get(key, generation)
        if rows is None:
            rows = await read()
            self._rows.put(key, generation, rows, _size(key) + sum(map(_size, rows)))
        return rows


def _size(values: Iterable[object]) -> int:
    """About how many bytes the values take, and what they hold if they are lists."""
    return 100 + sum(
        _size(value) if isinstance(value, list | tuple) else sys.getsizeof(value)
        for value in values
    )
