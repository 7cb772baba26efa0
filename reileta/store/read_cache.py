"""A cache of database rows, valid until one of their tables is written.

All statements of a process pass through `database.py`, which reports each write to `ReadCache` once
it is committed and before its caller continues. So a request that starts after the answer to a
change always reads the new values.

Writes of other processes are reported by `forget`, which the change feed calls for changes of
users, sessions, tokens and owners (`store/change_feed.py`). Other changes are not noticed.
Therefore the cache is on by default only for the embedded database, which has one server. Commands
(`reileta admin grant`) use that database, too; their changes are visible after `TTL_S` at the
latest.
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
"""Seconds for which rows are cached; changes by another process are visible after that."""
UNSETTLED_S: Final = 0.5
"""Seconds without caching after a write was interrupted, since it may be committed a moment
later."""
LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Total size of the cached rows."""

TABLES: Final = frozenset(
    {
        *(
            "assets",
            "attempts",
            "audit_log",
            "bans",
            "blobs",
            "challenges",
            "changes",
            "client_rules",
            "deeds_done",
            "follows",
            "guests",
            "hosts",
        ),
        *("images", "instances", "integrity_tokens", "known_networks", "leases", "moderations"),
        *("moderators", "mutes", "nodes", "peer_tokens", "places", "resources", "server"),
        *("server_rules", "server_tokens", "servers", "services", "sessions", "shares"),
        *("server_runs", "soft_states", "spent_refreshes", "tokens", "users", "visits"),
        *("vouched_follows", "worlds"),
    }
)
"""All tables."""
_BESIDE: Final = {"sessions": frozenset({"leases", "visits"}), "tokens": frozenset({"visits"})}
"""Tables whose triggers write to other tables when a row is updated."""

_WORD: Final = re.compile(r"\w+")
_READS: Final = re.compile(r"\s*(SELECT|WITH|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET)\b", re.I)
_WRITES: Final = re.compile(r"\b(?:INSERT\s+INTO|UPDATE)\s+(?:ONLY\s+)?(\w+)", re.I)
_ALL: Final = re.compile(
    r"\b(?:DELETE|TRUNCATE|MERGE|COPY|ALTER|DROP|CREATE|CALL)\b|\bDO\s*\$", re.I
)


@lru_cache(maxsize=1024)
def read_by(sql: str) -> frozenset[str]:
    """The tables that a statement can read: all whose name occurs in it."""
    return TABLES.intersection(_WORD.findall(sql.lower()))


@lru_cache(maxsize=1024)
def written_by(sql: str) -> frozenset[str]:
    """The tables that a statement can write.

    A DELETE can delete from other tables as well (`ON DELETE CASCADE`, triggers), and an unknown
    kind of statement can do anything: these count as writes to all tables.
    """
    written = TABLES.intersection(table.lower() for table in _WRITES.findall(sql))
    if _ALL.search(sql) or not (written or _READS.match(sql)):
        return TABLES
    return written.union(*(_BESIDE[table] for table in written if table in _BESIDE))


class ReadCache(Generic[R]):
    """The generations of the tables, and the rows read from them."""

    def __init__(self, *, enabled: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._enabled = enabled
        self._monotonic = monotonic
        self._generations = dict.fromkeys(TABLES, 0)
        self._unsettled_until_s = 0.0
        self._rows: BoundedCache[list[R]] = BoundedCache(LIMIT_BYTES, TTL_S, monotonic)

    def generation(self, tables: Iterable[str]) -> int | None:
        """A number that grows with each write to one of the tables.

        None while nothing may be cached.
        """
        if not self._enabled or self._monotonic() < self._unsettled_until_s:
            return None
        generations = self._generations
        return sum([generations[table] for table in tables])

    def forget(self) -> None:
        """Another process has written to unknown tables: all cached rows become invalid."""
        for table in self._generations:
            self._generations[table] += 1

    @contextmanager
    def writing(self, tables: frozenset[str]) -> Iterator[None]:
        """A block around a statement or COMMIT that writes to the tables: they count as changed
        when the block ends, in any way."""
        try:
            yield
        except (trio.Cancelled, DatabaseUnavailable):
            # It may be committed anyway, and after the block.
            if tables:
                self._unsettled_until_s = self._monotonic() + UNSETTLED_S
            raise
        finally:
            for table in tables:
                self._generations[table] += 1

    async def rows(
        self, sql: str, args: Sequence[object], read: Callable[[], Awaitable[list[R]]]
    ) -> list[R]:
        """The statement's rows, from the cache or from `read`. Don't change them."""
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
    """The approximate size of the values, including the contents of lists."""
    return 100 + sum(
        _size(value) if isinstance(value, list | tuple) else sys.getsizeof(value)
        for value in values
    )
