"""PostgreSQL on Trio: the only module that knows asyncpg and trio-asyncio.

`Queries` has the operations, for single statements (`Database`, each on a connection of the pool)
and within a transaction. All statements have parameters. Every failure of a connection is
`DatabaseUnavailable`; a fault that the operator must mend, such as a missing permission, is
`DatabaseFault`; a violated constraint is `ConstraintBroken`; text that PostgreSQL can't store is
`InvalidInput`.

The connections belong to an asyncio loop of their own (`asyncio_loop`), which keeps running while
the server is being cancelled, so that running statements can finish or be rolled back.
"""

from __future__ import annotations

import asyncio
import contextvars
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import asyncpg
import structlog
import trio
import trio_asyncio  # type: ignore[import-untyped]  # it brings no types
from asyncpg.connect_utils import SessionAttribute

from reileta.concurrency import plain_nursery, undone_on_failure
from reileta.errors import DatabaseFault, DatabaseUnavailable
from reileta.observability import log_events
from reileta.startup import StartupError
from reileta.store.hosts import hosts_of
from reileta.store.read_cache import ReadCache, written_by
from reileta.store.storable import check_storable

Row: TypeAlias = asyncpg.Record
Connection: TypeAlias = "asyncpg.Connection[Row]"
T = TypeVar("T")

CONNECT_S: Final = 3.0
"""Seconds a statement waits for a free or a new connection."""
STATEMENT_S: Final = 10.0
"""Seconds a statement can take."""
URGENT_S: Final = 1.0
"""Seconds a statement of `Database.urgent` can take, and can wait for its connection."""
IDLE_IN_TRANSACTION_S: Final = 2.0
"""Seconds between two statements of a transaction, after which PostgreSQL rolls it back and ends
its connection: a process that was paused within a transaction must not keep its locks."""
CANCEL_S: Final = 1.0
"""Seconds a cancelled statement can take to end, before its connection is ended."""
CLOSE_S: Final = 1.0
"""Seconds for an orderly close of a connection."""
IDLE_S: Final = 300.0
"""Seconds a connection can be idle; a firewall in between may have dropped it after that."""
RETRY_AFTER_S: Final = 1.0

_LOST: Final = (
    OSError,  # refused, reset, no such socket; TimeoutError is one of these
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, disk or memory full
    asyncpg.InternalClientError,  # the connection broke during an answer
    asyncpg.IdleInTransactionSessionTimeoutError,  # these two end the connection
    asyncpg.TransactionTimeoutError,
)
_SILENT: Final = (OSError, asyncpg.PostgresConnectionError)
"""Of `_LOST`, those after which other connections to the same server are lost, too."""
_TRY_AGAIN: Final = (
    asyncpg.TransactionRollbackError,  # a deadlock, a serialization failure
    asyncpg.LockNotAvailableError,  # the operator has set `lock_timeout`
    asyncpg.InvalidCachedStatementError,  # the operator has altered a table
)
_FAULTS: Final = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresSystemError,  # the disk is broken
    asyncpg.InternalServerError,  # data or indexes are corrupted
)
"""The statement is right, and the database is not as it must be."""
_EXCHANGED: Final = (
    asyncpg.InvalidSQLStatementNameError,  # prepared in another session
    asyncpg.DuplicatePreparedStatementError,  # the name of another session's statement
)
_SETTINGS: Final = (
    "SET standard_conforming_strings = on; "
    "SET default_transaction_isolation = 'read committed'; "
    f"SET idle_in_transaction_session_timeout = {int(IDLE_IN_TRANSACTION_S * 1000)}"
)
"""What statements rely on, where the defaults of the database or the account are others. Not in the
startup packet, because poolers refuse settings there."""
_READ_WRITE: Final = SessionAttribute.read_write
_BROKEN: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Loop(Protocol):
    """The operations of the asyncio loop that are used here."""

    async def run_aio_coroutine(self, coro: Coroutine[Any, Any, T]) -> T: ...


class SessionLost(DatabaseUnavailable):
    """The session is not the one that the connection had: a pooler has exchanged it."""


class ConstraintBroken(Exception):
    """A statement would have violated the constraint of that name; nothing was written."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


class Queries(ABC):
    """Operations on the database or within a transaction.

    Each raises DatabaseUnavailable, ConstraintBroken, or InvalidInput for text that can't be
    stored.
    """

    @abstractmethod
    async def fetch(self, sql: str, *args: object) -> list[Row]:
        """All rows."""

    async def recall(self, sql: str, *args: object) -> list[Row]:
        """Like `fetch`, for a statement that only reads.

        The database returns cached rows as long as none of their tables has changed; a transaction
        always reads.
        """
        return await self.fetch(sql, *args)

    @abstractmethod
    async def execute(self, sql: str, *args: object) -> int:
        """Returns the number of affected rows. Without arguments, `sql` can hold several
        statements."""

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[Queries]:
        """All of the body's statements or none; a nested transaction is a savepoint.

        A transaction uses one connection: one statement at a time, from one task.
        """

    async def fetch_one(self, sql: str, *args: object) -> Row | None:
        """The first row."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def recall_one(self, sql: str, *args: object) -> Row | None:
        """Like `fetch_one`, with `recall`."""
        rows = await self.recall(sql, *args)
        return rows[0] if rows else None

    async def value(self, sql: str, *args: object) -> Any:
        """The first column of the first row; None if there is no row."""
        row = await self.fetch_one(sql, *args)
        return None if row is None else row[0]


class _Busy(Exception):
    """All connections are in use: the load is too high, but the database is up."""


class _Closed(Exception):
    """The database was closed."""


class Database(Queries):
    """A pool of connections, opened on demand and reopened after an outage.

    The pool is our own and lives on Trio's side: a statement takes one trip to the asyncio loop and
    back. asyncpg's pool would take several, at more than twice the cost.
    """

    def __init__(self, loop: Loop, url: str, *, connections: int, remember: bool = False) -> None:
        """`url` is `postgresql://…`. Connects on first use.

        `remember` lets `recall` cache rows; only correct if no other server writes to the database.
        """
        self.reads: ReadCache[Row] = ReadCache(enabled=remember)
        self._loop = loop
        self._url = url
        self._first_host = 0
        """Of the URL's hosts, the one that is tried first: the last one that took writes."""
        self.name = f"reileta {secrets.token_hex(4)}"
        """The connections' `application_name`, unique per object: by it, the change feed ignores
        this process's own changes (store/change_feed.py)."""
        self._pool = _Pool(self, connections)
        self._urgent_pool = _Pool(self, 1)
        self._renewal_pool = _Pool(self, 1)
        self.urgent: Queries = _Urgent(self, self._urgent_pool)
        """Statements that must not wait behind slow ones, such as the renewal of leases. They have
        a connection of their own, one at a time, and each takes at most `URGENT_S`: a caller whose
        statement fails comes again."""
        self.renewals: Queries = _Urgent(self, self._renewal_pool, patient=False)
        """Like `urgent`, with a further connection, for the renewals of a node's lease alone. Their
        outcome does not matter once they are given up, so a connection that hangs is ended at
        once."""
        self.closed = False
        self._log = structlog.get_logger()
        self._outage = False
        self.available = False
        """Whether the last statement reached the database."""
        self.statements = 0
        """Statements run."""
        self.errors = 0
        """Statements that failed because the database was unavailable."""
        self.seconds = 0.0
        """Seconds spent in statements, without the wait for a connection."""

    async def close(self) -> None:
        """Closes idle connections now, and the others when they are released. Later calls fail."""
        self.closed = True
        idle = self._idle()

        async def closed() -> None:
            for connection in idle:
                try:
                    await connection.close(timeout=CLOSE_S)
                except _BROKEN:
                    connection.terminate()

        with trio.CancelScope(shield=True):
            await self._loop.run_aio_coroutine(closed())

    def generation(self, tables: Iterable[str]) -> int | None:
        """`ReadCache.generation`; also None while the database is down."""
        return self.reads.generation(tables) if self.available else None

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        check_storable(args)
        return await self._alone(sql, lambda it: it.fetch(sql, *args))

    async def recall(self, sql: str, *args: object) -> list[Row]:
        if not self.available:
            return await self.fetch(sql, *args)
        return await self.reads.rows(sql, args, lambda: self.fetch(sql, *args))

    async def execute(self, sql: str, *args: object) -> int:
        check_storable(args)
        return _touched(await self._alone(sql, lambda it: it.execute(sql, *args)))

    async def _alone(self, sql: str, ask: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Runs a statement outside of a transaction."""
        async with self._pool.connection(CONNECT_S) as connection:
            with self.reads.writing(written_by(sql)):
                return await self.guard(lambda: ask(connection), connection, STATEMENT_S)

    async def takes_writes(self) -> bool:
        """Whether a write would work: no standby, not read-only, and with the permission to."""
        try:
            async with self._pool.connection(CONNECT_S) as connection:
                # Checked like a write, but it writes nothing; so the read cache needs not know.
                await self.guard(
                    lambda: connection.execute("UPDATE server SET one = one WHERE false"),
                    connection,
                    STATEMENT_S,
                )
        except (DatabaseUnavailable, asyncpg.PostgresError):
            return False
        return True

    async def ping(self) -> bool:
        """Whether the database answers."""
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
        """One connection for several statements, each with that timeout."""
        async with self._pool.connection(CONNECT_S) as connection:
            yield _Bound(self, connection, statement_s)

    @asynccontextmanager
    async def dedicated(self) -> AsyncIterator[Queries]:
        """A new connection besides the pool, which is closed after the body."""
        connection = await self.guard(self.connect, None, CONNECT_S)
        try:
            yield _Bound(self, connection, STATEMENT_S)
        finally:
            connection.terminate()

    async def guard(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        connection: Connection | None,
        seconds: float,
        *,
        urgent: bool = False,
        patient: bool = True,
    ) -> T:
        """Runs asyncio's `work` with a timeout; counts it, times it, and translates its errors.

        `patient`: if it is given up, wait until it has ended.
        """
        self.statements += 1
        started = time.perf_counter()
        try:
            with trio.move_on_after(seconds) as scope:
                try:
                    result = await self._loop.run_aio_coroutine(work())
                except trio.Cancelled:
                    if connection is not None:
                        if patient:
                            await self._stop(connection)
                        else:
                            connection.terminate()
                    raise
            if scope.cancelled_caught:
                raise TimeoutError
        except asyncpg.IntegrityConstraintViolationError as error:
            self._found()
            raise ConstraintBroken(error.constraint_name or "") from error
        except (*_TRY_AGAIN, asyncio.CancelledError) as error:
            # asyncio was cancelled and Trio was not: the loop is being closed.
            raise self.unavailable() from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            # The other connections are to the same server, which may be a standby now.
            if connection is not None:
                connection.terminate()
            self._drop_idle()
            self._lost(error)
            raise self.unavailable() from error
        except _EXCHANGED as error:
            if connection is not None:
                connection.terminate()
            self._lost(error)
            self.errors += 1
            raise SessionLost(retry_after_s=RETRY_AFTER_S) from error
        except _LOST as error:
            # The connection may look open for a moment longer, or hang forever.
            if connection is not None:
                connection.terminate()
            # Urgent statements have little time. One that takes longer may only be slow, as others
            # may be, so it ends neither their connections nor the trust in the database.
            if not (urgent and isinstance(error, TimeoutError)):
                if isinstance(error, _SILENT):
                    self._drop_idle()
                self._lost(error)
            raise self.unavailable() from error
        except _FAULTS as error:
            self._found()
            self.errors += 1
            reason = error.args[0] if error.args else type(error).__name__
            self._log.error(log_events.DATABASE_FAULT, reason=reason, code=error.sqlstate)
            raise DatabaseFault(retry_after_s=RETRY_AFTER_S) from error
        except asyncpg.InterfaceError as error:
            # asyncpg raises this for a broken connection and for wrong use; the latter is a defect.
            if connection is not None and not connection.is_closed():
                raise
            self._lost(error)
            raise self.unavailable() from error
        finally:
            self.seconds += time.perf_counter() - started
        self._found()
        return result

    async def _stop(self, connection: Connection) -> None:
        """Waits until a statement that was given up has ended: then its connection can be used.

        asyncpg has sent PostgreSQL a request to cancel it. PostgreSQL ignores a request that comes
        before it has read the statement, and then runs the statement to its end. Its process is
        ended in that case. Bounded by `CANCEL_S` and `CONNECT_S`.
        """
        with trio.CancelScope(shield=True):
            if await self._succeeds(lambda: _answers(connection), CANCEL_S):
                return
            if not connection.is_closed():
                pid = connection.get_server_pid()
                await self._succeeds(lambda: self._end_process(pid), CONNECT_S)
        connection.terminate()

    async def _end_process(self, pid: int) -> None:
        """Ends PostgreSQL's process of a connection of ours. Behind a pooler, `pid` may name
        another one: it is ended only if it carries the name of our connections."""
        connection = await self.connect()
        try:
            await connection.fetchval(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid = $1 AND application_name = $2",
                pid,
                self.name,
            )
        finally:
            connection.terminate()

    async def _succeeds(
        self, work: Callable[[], Coroutine[Any, Any, object]], seconds: float
    ) -> bool:
        """Runs asyncio's `work`; False when it fails, or takes longer than `seconds`."""
        with trio.move_on_after(seconds):
            try:
                await self._loop.run_aio_coroutine(work())
            except (*_BROKEN, asyncio.CancelledError):
                return False
            return True
        return False

    def _drop_idle(self) -> None:
        for connection in self._idle():
            connection.terminate()

    def _idle(self) -> list[Connection]:
        """Takes all idle connections out."""
        pools = (self._pool, self._urgent_pool, self._renewal_pool)
        return [connection for pool in pools for connection in pool.empty()]

    async def connect(self) -> Connection:
        """Connects to the first host that takes writes. Raises ConnectionError."""
        try:
            hosts = hosts_of(self._url)
            if len(hosts) < 2:
                return await self._connect_to(self._url, CONNECT_S)
            # asyncpg would give all of the time to the first host, which may hang.
            last: Exception = ConnectionError()
            for place in range(len(hosts)):
                number = (self._first_host + place) % len(hosts)
                host = hosts[number]
                try:
                    connection = await self._connect_to(
                        self._url, CONNECT_S / len(hosts), host=host.name, port=host.port
                    )
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    last = error
                    continue
                self._first_host = number
                return connection
            raise last
        except ValueError:
            # asyncpg parses the URL only now. Its own message can contain the password.
            raise StartupError("--database must be a postgresql:// URL") from None
        except _EXCHANGED:
            raise
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ConnectionError("it takes no writes: it is a standby, or read-only") from error
        except (asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            # For any reason, PostgreSQL refused the connection.
            raise ConnectionError(str(error)) from error

    async def _connect_to(
        self, url: str, within_s: float, *, host: str | None = None, port: int | None = None
    ) -> Connection:
        connection = await asyncpg.connect(
            url,
            host=host,
            port=port,
            timeout=within_s,
            # A standby, or a server that is read-only, is as good as none: what it answers may be
            # older than what was acknowledged. Of several hosts, the one with writes counts.
            target_session_attrs=_READ_WRITE,
            server_settings={"application_name": self.name},
            # Else each statement has a timer of 5 minutes, which outlives its connection. Their
            # number is bounded anyway.
            max_cached_statement_lifetime=0,
        )
        with undone_on_failure(connection.terminate):
            await connection.execute(_SETTINGS, timeout=within_s)
        return connection

    def unavailable(self) -> DatabaseUnavailable:
        """The error of a failed statement, which is counted."""
        self.errors += 1
        return DatabaseUnavailable(retry_after_s=RETRY_AFTER_S)

    def _lost(self, error: BaseException) -> None:
        if self.available:
            self.available = False
            self._outage = True
            self._log.warning(log_events.DATABASE_LOST, reason=type(error).__name__)

    def _found(self) -> None:
        self.available = True
        if self._outage:
            self._outage = False
            self._log.info(log_events.DATABASE_BACK)


class _Pool:
    """The connections of a database that take turns; opened on demand, reopened after a loss."""

    def __init__(self, database: Database, size: int) -> None:
        self._database = database
        self._slots = trio.Semaphore(size, max_value=size)
        self._idle: list[tuple[Connection, float]] = []
        """Idle connections, the last used one last, and since when each is idle."""

    @asynccontextmanager
    async def connection(self, wait_s: float) -> AsyncIterator[Connection]:
        """A connection for the body alone; waits so long for a free one."""
        with trio.move_on_after(wait_s) as scope:
            await self._slots.acquire()
        if scope.cancelled_caught:
            raise self._database.unavailable() from _Busy()
        try:
            connection = self._take()
            if connection is None:
                connection = await self._database.guard(self._database.connect, None, CONNECT_S)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._slots.release()

    def empty(self) -> list[Connection]:
        """Takes all idle connections out."""
        idle, self._idle = self._idle, []
        return [connection for connection, _ in idle]

    def _take(self) -> Connection | None:
        if self._database.closed:
            raise self._database.unavailable() from _Closed()
        oldest = time.monotonic() - IDLE_S
        while self._idle:
            connection, since = self._idle.pop()
            if not connection.is_closed() and since > oldest:
                return connection
            connection.terminate()
        return None

    def _give_back(self, connection: Connection) -> None:
        if self._database.closed or not _usable(connection) or connection.is_in_transaction():
            connection.terminate()
        else:
            self._idle.append((connection, time.monotonic()))


class _Urgent(Queries):
    """`Database.urgent` and `Database.renewals`."""

    def __init__(self, database: Database, pool: _Pool, *, patient: bool = True) -> None:
        self._database = database
        self._pool = pool
        self._patient = patient

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        async with self._bound() as bound:
            return await bound.fetch(sql, *args)

    async def execute(self, sql: str, *args: object) -> int:
        async with self._bound() as bound:
            return await bound.execute(sql, *args)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Queries]:
        async with self._bound() as bound, bound.transaction() as transaction:
            yield transaction

    @asynccontextmanager
    async def _bound(self) -> AsyncIterator[Queries]:
        async with self._pool.connection(URGENT_S) as connection:
            yield _Bound(self._database, connection, URGENT_S, urgent=True, patient=self._patient)


class _Bound(Queries):
    """Statements on one connection, inside or outside of a transaction."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        statement_s: float,
        *,
        urgent: bool = False,
        patient: bool = True,
    ) -> None:
        self._database = database
        self._connection = connection
        self._statement_s = statement_s
        self._urgent = urgent
        self._patient = patient
        self._depth = 0
        self._written: frozenset[str] = frozenset()
        """Tables that the transaction has written to so far."""

    async def fetch(self, sql: str, *args: object) -> list[Row]:
        check_storable(args)
        return await self._ask(sql, lambda it: it.fetch(sql, *args))

    async def execute(self, sql: str, *args: object) -> int:
        check_storable(args)
        return _touched(await self._ask(sql, lambda it: it.execute(sql, *args)))

    async def _ask(self, sql: str, ask: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        written = written_by(sql)
        if self._depth:
            self._written |= written  # nobody else sees it before COMMIT
            written = frozenset()
        with self._database.reads.writing(written):
            return await self._here(ask)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Queries]:
        begin, commit, rollback = "BEGIN", "COMMIT", "ROLLBACK"
        if self._depth:
            begin = f"SAVEPOINT point_{self._depth}"
            commit, rollback = f"RELEASE {begin}", f"ROLLBACK TO {begin}"
        await self.execute(begin)
        self._depth += 1
        end = rollback
        try:
            yield self
            end = commit
        finally:
            self._depth -= 1
            with self._database.reads.writing(frozenset() if self._depth else self._written):
                await self._end(end)

    async def _end(self, sql: str) -> None:
        """Can't be cancelled: once COMMIT is sent, only its answer tells whether it succeeded. For
        the same reason it may take as long as any statement: it waits for the disk."""
        if self._connection.is_closed() and sql.startswith("ROLLBACK"):
            return
        seconds = max(self._statement_s, STATEMENT_S)
        with trio.CancelScope(shield=True):
            await self._database.guard(
                lambda: self._connection.execute(sql), self._connection, seconds
            )

    async def _here(self, ask: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        return await self._database.guard(
            lambda: ask(self._connection),
            self._connection,
            self._statement_s,
            urgent=self._urgent,
            patient=self._patient,
        )


def unavailable_because(error: DatabaseUnavailable) -> str:
    """The message of PostgreSQL or the system; it can contain addresses and accounts but no
    password."""
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return "it does not answer, or a pooler in front of it has no free connection"
    return str(cause).strip() or type(cause).__name__


def _usable(connection: Connection) -> bool:
    """Whether the connection is open and takes writes, as far as PostgreSQL has reported."""
    if connection.is_closed():
        return False
    settings = connection.get_settings()
    return "on" not in (
        getattr(settings, "default_transaction_read_only", "off"),
        getattr(settings, "in_hot_standby", "off"),
    )


async def _answers(connection: Connection) -> None:
    """Returns once the connection answers, whatever became of the transaction on it."""
    with suppress(asyncpg.InFailedSQLTransactionError):
        await connection.execute("SELECT 1")


def _touched(status: str) -> int:
    """The number of rows in a command's status: 3 for `UPDATE 3`, 0 for `CREATE TABLE`."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


class _Apart:
    """The loop, with tasks that don't run in the caller's context.

    A connection keeps the context in which it was opened, and its statement cache that of each
    statement's first caller: these would keep requests alive, with all their data.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = contextvars.copy_context()

    async def run_aio_coroutine(self, coro: Coroutine[Any, Any, T]) -> T:
        try:
            task = self._loop.create_task(coro, context=self._context.copy())
        except RuntimeError:  # the loop is closed
            coro.close()
            raise
        result: T = await trio_asyncio.run_aio_future(task)
        return result


def _log_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    structlog.get_logger().error(
        log_events.DATABASE_CALLBACK_FAILED, reason=context.get("message"), exc_info=error
    )


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[Loop]:
    """An asyncio loop that runs beside the body, until the body has ended.

    It runs in a shielded task of its own: a cancelled body can still finish its statements, and an
    exception of the body is raised unchanged, not in a group.
    """
    stop = trio.CancelScope(shield=True)

    async def run(*, task_status: trio.TaskStatus[Loop]) -> None:
        with stop:
            async with trio_asyncio.open_loop() as loop:
                # By default, trio-asyncio raises here what a callback of asyncpg raised, and that
                # would end the process. The statement concerned fails or times out by itself.
                loop.set_exception_handler(_log_failure)
                task_status.started(_Apart(loop))
                await trio.sleep_forever()

    async with plain_nursery() as nursery:
        # In a cancelled scope, `started` does nothing: `run` would never end, nor would `start`.
        with trio.CancelScope(shield=True):
            loop: Loop = await nursery.start(run)
        try:
            yield loop
        finally:
            stop.cancel()
