"""PostgreSQL on Trio: the one file that knows asyncpg and trio-asyncio (DESIGN §4).

`Queries` is what can be asked, whether of the `Database` (each statement by itself, on a connection
of the pool) or within a transaction. Everything is parameterised. Whatever goes wrong with the
connection is `DatabaseUnavailable`; a broken constraint is `ConstraintBroken`; text that PostgreSQL
can't hold is `InvalidInput`, decided here for everything that is stored or searched.

The connections belong to an asyncio loop of their own (`asyncio_loop`), which goes on while the
server is being cancelled, so that what is under way can be finished or rolled back.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import asyncpg
import structlog
import trio
import trio_asyncio  # type: ignore[import-untyped]  # it brings no types

from reileta import logevents
from reileta.errors import DatabaseUnavailable, InvalidInput
from reileta.startup import StartupError
from reileta.store.nursery import plain_nursery

Row: TypeAlias = asyncpg.Record
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[Row]"
T = TypeVar("T")

CONNECT_S: Final = 3.0
"""How long a statement waits for a free connection, or for a new one to be made."""
STATEMENT_S: Final = 10.0
"""How long a statement may take."""
CLOSE_S: Final = 2.0
"""How long the pool waits for statements that are under way when it is closed."""
RETRY_AFTER_S: Final = 1.0

_BIGINT: Final = range(-(2**63), 2**63)

_LOST: Final = (
    OSError,  # refused, reset, no such socket; TimeoutError is one of these
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk or memory full
)
_TRY_AGAIN: Final = (
    asyncpg.TransactionRollbackError,  # a deadlock, a serialisation failure
    asyncpg.ReadOnlySQLTransactionError,  # it became a standby
)


class Loop(Protocol):
    """The asyncio loop, as far as it is used here."""

    async def run_aio_coroutine(self, coro: Coroutine[Any, Any, T]) -> T: ...


class ConstraintBroken(Exception):
    """A statement would have broken the constraint of that name; nothing was written."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


class Queries(ABC):
    """What can be asked of the database or within a transaction.

    Each raises DatabaseUnavailable, ConstraintBroken, or InvalidInput for text it can't hold.
    """

    @abstractmethod
    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """All rows."""

    @abstractmethod
    async def execute(self, sql: str, *args: object) -> int:
        """How many rows it touched. Without arguments, `sql` may hold several statements."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[Queries]:
        """All of it or nothing; a transaction within a transaction is a savepoint.

        A transaction is one connection: it takes one statement at a time, from one task.
        """

    async def fetch_one(self, sql: str, *args: object) -> Row | None:
        """The first row."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def value(self, sql: str, *args: object) -> Any:
        """The first row's first column; None if there is no row."""
        row = await self.fetch_one(sql, *args)
        return None if row is None else row[0]


class _Busy(Exception):
    """All connections are at work: the server asks too much, but nothing is lost."""


class _Closed(Exception):
    """The pool was closed."""


class Database(Queries):
    """A pool of connections that are made when they are needed, and made anew after an outage."""

    def __init__(self, loop: Loop, pool: asyncpg.Pool[Row]) -> None:
        self._loop = loop
        self._pool = pool
        self._log = structlog.get_logger()
        self.available = True
        """Whether the last statement reached the database."""
        self.statements = 0
        """How many times it was asked."""
        self.errors = 0
        """How many of these failed for want of a database."""
        self.seconds = 0.0
        """How long all of these took together, waiting for a connection included."""

    @classmethod
    async def open(cls, loop: Loop, url: str, *, connections: int) -> Database:
        """A pool of up to so many connections. It connects to nothing yet."""

        async def opened() -> asyncpg.Pool[Row]:
            return await asyncpg.create_pool(
                url,
                min_size=0,
                max_size=connections,
                timeout=CONNECT_S,
                command_timeout=STATEMENT_S,
                reset=_leave,
                server_settings={"application_name": "reileta"},
            )

        return cls(loop, await loop.run_aio_coroutine(opened()))

    async def close(self) -> None:
        """Closes all connections; what is under way has two seconds, then it is cut off."""

        async def closed() -> None:
            try:
                await asyncio.wait_for(self._pool.close(), CLOSE_S)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._pool.terminate()

        with trio.CancelScope(shield=True):
            await self._loop.run_aio_coroutine(closed())

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        _check_storable(args)
        return await self._anywhere(lambda connection: connection.fetch(sql, *args))

    async def execute(self, sql: str, *args: object) -> int:
        _check_storable(args)
        return _touched(await self._anywhere(lambda connection: connection.execute(sql, *args)))

    async def ping(self) -> bool:
        """Whether the database gives a sign of life."""
        try:
            await self.fetch("SELECT 1")
        except DatabaseUnavailable:
            return False
        return True

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Queries]:
        async with self.connection() as bound, bound.transaction() as transaction:
            yield transaction

    @asynccontextmanager
    async def connection(self, *, statement_s: float = STATEMENT_S) -> AsyncIterator[Queries]:
        """One connection for several statements, each of which may take so many seconds."""
        connection = await self.guard(self._acquire)
        try:
            yield _Bound(self, connection, statement_s)
        finally:
            # What the body left open is rolled back here, so it must not be cancelled halfway.
            with trio.CancelScope(shield=True):
                await self.guard(lambda: self._release(connection))

    async def guard(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs asyncio's `work`: counts it, times it, and says what its failure means."""
        self.statements += 1
        started = time.perf_counter()
        try:
            result = await self._loop.run_aio_coroutine(work())
        except asyncpg.IntegrityConstraintViolationError as error:
            self._found()
            raise ConstraintBroken(error.constraint_name or "") from error
        except (_Busy, _Closed, *_TRY_AGAIN, asyncio.CancelledError) as error:
            # asyncio's cancellation, where Trio knows of none, is the loop being closed.
            self.errors += 1
            raise DatabaseUnavailable(retry_after_s=RETRY_AFTER_S) from error
        except _LOST as error:
            self.errors += 1
            self._lost(error)
            raise DatabaseUnavailable(retry_after_s=RETRY_AFTER_S) from error
        finally:
            self.seconds += time.perf_counter() - started
        self._found()
        return result

    async def _anywhere(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """Asks on a free connection, in one trip to the asyncio loop and back."""

        async def asked() -> T:
            connection = await self._acquire()
            try:
                return await _ask(connection, ask)
            finally:
                await self._release(connection)

        return await self.guard(asked)

    async def _acquire(self) -> Connection:
        try:
            return await self._pool.acquire(timeout=CONNECT_S)
        except TimeoutError as error:
            if self._pool.get_size() == self._pool.get_max_size():
                raise _Busy from error
            raise
        except ValueError:
            # asyncpg reads the URL only now. Its own words may hold the password.
            raise StartupError("--database is no URL of a PostgreSQL database") from None
        except asyncpg.InterfaceError as error:
            if self._pool.is_closing():
                raise _Closed from error
            raise ConnectionError(str(error)) from error
        except asyncpg.PostgresError as error:
            # Whatever PostgreSQL has against a new connection, there is none.
            raise ConnectionError(str(error)) from error

    async def _release(self, connection: Connection) -> None:
        await self._pool.release(connection, timeout=CLOSE_S)

    def _lost(self, error: BaseException) -> None:
        if self.available:
            self.available = False
            self._log.warning(logevents.DATABASE_LOST, reason=type(error).__name__)

    def _found(self) -> None:
        if not self.available:
            self.available = True
            self._log.info(logevents.DATABASE_BACK)


class _Bound(Queries):
    """Statements on one connection, within a transaction or not."""

    def __init__(self, database: Database, connection: Connection, statement_s: float) -> None:
        self._database = database
        self._connection = connection
        self._statement_s = statement_s
        self._depth = 0

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        _check_storable(args)
        return await self._here(lambda it: it.fetch(sql, *args, timeout=self._statement_s))

    async def execute(self, sql: str, *args: object) -> int:
        _check_storable(args)
        return _touched(
            await self._here(lambda it: it.execute(sql, *args, timeout=self._statement_s))
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Queries]:
        point = f"point_{self._depth}"
        outermost = self._depth == 0
        await self.execute("BEGIN" if outermost else f"SAVEPOINT {point}")
        self._depth += 1
        try:
            yield self
        except BaseException:
            await self._end("ROLLBACK" if outermost else f"ROLLBACK TO SAVEPOINT {point}")
            raise
        else:
            await self._end("COMMIT" if outermost else f"RELEASE SAVEPOINT {point}")
        finally:
            self._depth -= 1

    async def _end(self, sql: str) -> None:
        """Not to be cancelled: once COMMIT is sent, only its answer tells what has happened."""
        if self._connection.is_closed() and sql.startswith("ROLLBACK"):
            return
        with trio.CancelScope(shield=True):
            await self.execute(sql)

    async def _here(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        return await self._database.guard(lambda: _ask(self._connection, ask))


async def _ask(connection: Connection, ask: Callable[[Connection], Awaitable[T]]) -> T:
    try:
        return await ask(connection)
    except asyncpg.InterfaceError as error:
        # asyncpg says so both of a connection that broke and of wrong use; the latter is a defect.
        if connection.is_closed():
            raise ConnectionError(str(error)) from error
        raise


async def _leave(connection: asyncpg.Connection[Row]) -> None:
    """Resets nothing when a connection goes back to the pool, which saves a round trip each time.

    asyncpg rolls an open transaction back by itself, and nothing else is ever set on a session.
    """


def _check_storable(args: Iterable[object]) -> None:
    """Raises InvalidInput for what PostgreSQL can't hold: NUL, lone surrogates, huge numbers."""
    for arg in args:
        if isinstance(arg, str):
            if "\x00" in arg or not _is_unicode(arg):
                raise InvalidInput.field("text", "must not hold NUL or half a surrogate pair")
        elif isinstance(arg, int):
            if arg not in _BIGINT:
                raise InvalidInput.field("number", "must fit into 64 bits")
        elif isinstance(arg, (list, tuple)):
            _check_storable(arg)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _touched(status: str) -> int:
    """The rows that a command's status tells of: 3 in `UPDATE 3`, none in `CREATE TABLE`."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[Loop]:
    """An asyncio loop that runs beside the body, until the body has ended.

    It runs in a task of its own, shielded: a body that is being cancelled can still finish what it
    has asked, and an error of the body comes out as it is, in no group.
    """
    stop = trio.CancelScope(shield=True)

    async def run(*, task_status: trio.TaskStatus[Loop]) -> None:
        with stop:
            async with trio_asyncio.open_loop() as loop:
                task_status.started(loop)
                await trio.sleep_forever()

    async with plain_nursery() as nursery:
        loop: Loop = await nursery.start(run)
        try:
            yield loop
        finally:
            stop.cancel()
