from __future__ import annotations

import asyncio
import gc
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import pytest
import trio
from structlog.testing import capture_logs

from reileta.errors import DatabaseFault, DatabaseUnavailable, InvalidInput
from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import Store, open_store
from reileta.store.database import ConstraintBroken, Database, Queries, asyncio_loop
from tests.conftest import PATIENCE_S, ManualClock
from tests.reileta.store.late_statements import late_statements


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Two connections, so that a test can use them up."""
    async with asyncio_loop() as loop:
        database = Database(loop, database_url, connections=2)
        await database.execute("CREATE TABLE notes (id integer PRIMARY KEY, text text)")
        yield database
        await database.close()


async def ids(queries: Queries) -> list[int]:
    return [row["id"] for row in await queries.fetch("SELECT id FROM notes ORDER BY id")]


async def sleeping(database: Database) -> bool:
    """Whether a connection runs `pg_sleep`."""
    running = await database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' "
        "AND state = 'active' AND datname = current_database()"
    )
    return bool(running)


async def waits_for_a_lock(database: Database) -> bool:
    """Whether a statement waits for what another transaction has changed."""
    waiting = await database.value(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(waiting)


async def cut_all(database: Database) -> int:
    """Ends every other connection, as an administrator or a restart does; how many there were."""
    rows = await database.fetch(
        "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(rows)


async def test_rows_a_row_a_value_and_a_count(database: Database) -> None:
    assert await database.execute("INSERT INTO notes VALUES (1, 'a'), (2, $1)", "b") == 2
    assert [row["text"] for row in await database.fetch("SELECT * FROM notes ORDER BY id")] == [
        "a",
        "b",
    ]
    row = await database.fetch_one("SELECT * FROM notes WHERE id = $1", 2)
    assert row is not None
    assert row["text"] == "b"
    assert await database.fetch_one("SELECT * FROM notes WHERE id = 3") is None
    assert await database.value("SELECT count(*) FROM notes") == 2
    assert await database.value("SELECT id FROM notes WHERE id = 3") is None
    assert await database.execute("CREATE TABLE x (); DROP TABLE x") == 0


async def test_a_broken_constraint_has_its_name(database: Database) -> None:
    await database.execute("INSERT INTO notes VALUES (1)")
    with pytest.raises(ConstraintBroken) as caught:
        await database.execute("INSERT INTO notes VALUES (1)")
    assert caught.value.constraint == "notes_pkey"
    assert database.available
    assert await ids(database) == [1]


async def test_what_can_not_be_kept_never_reaches_the_database(database: Database) -> None:
    asked = database.statements
    for argument in ("\x00", "\ud800", ["ok", "\x00"], 2**63, -(2**63) - 1):
        with pytest.raises(InvalidInput):
            await database.fetch("SELECT $1", argument)
    assert database.statements == asked
    assert await database.value("SELECT $1::bigint", 2**63 - 1) == 2**63 - 1


async def test_a_defect_in_a_statement_is_no_outage(database: Database) -> None:
    with pytest.raises(Exception, match="syntax error") as caught:
        await database.fetch("SELEC")
    assert not isinstance(caught.value, DatabaseUnavailable)
    with pytest.raises(Exception, match="expects 1 argument") as caught:
        await database.fetch("SELECT $1::int")
    assert not isinstance(caught.value, DatabaseUnavailable)
    assert await database.value("SELECT 1") == 1


async def test_a_fault_that_the_operator_must_mend_has_a_name_of_its_own(
    database: Database,
) -> None:
    await database.execute(
        "CREATE FUNCTION broken() RETURNS void LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION USING ERRCODE = 'XX001'; END $$"
    )
    for sql in (
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO notes (other) VALUES (1)",
        "SELECT nothing()",
        "SELECT pg_read_file('x') FROM pg_authid",
        "SELECT broken()",
    ):
        with capture_logs() as logs, pytest.raises(DatabaseFault):
            await database.fetch(sql)
        assert [line["event"] for line in logs] == ["database.fault"]
    assert database.available
    assert database.errors == 5
    assert await database.value("SELECT 1") == 1


async def test_a_lock_timeout_of_the_operator_passes(database: Database) -> None:
    async with database.transaction() as one:
        await one.execute("LOCK TABLE notes")
        with pytest.raises(DatabaseUnavailable) as caught:  # noqa: PT012
            async with database.transaction() as other:
                await other.execute("SET LOCAL lock_timeout = 1")
                await other.execute("INSERT INTO notes VALUES (1)")
        assert not isinstance(caught.value, DatabaseFault)
    assert await ids(database) == []


async def test_defaults_of_the_operator_change_no_meaning(database: Database) -> None:
    name = await database.value("SELECT current_database()")
    await database.execute(
        f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable; '
        f'ALTER DATABASE "{name}" SET standard_conforming_strings = off'
    )
    await cut_all(database)
    async with database.transaction() as one, database.transaction() as other:
        for queries, number in ((one, 1), (other, 2)):
            assert await ids(queries) == []
            await queries.execute("INSERT INTO notes VALUES ($1)", number)
    assert await ids(database) == [1, 2]
    assert await database.value(r"SELECT U&'i\0307'") == "i\u0307"


async def test_of_several_hosts_one_that_hangs_is_passed_over(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a primary that has vanished without a word, in front of the standby that follows it."""
    monkeypatch.setattr("reileta.store.database.CONNECT_S", 2.0)
    parts = urlsplit(database_url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    with TemporaryDirectory(prefix="hang-") as folder, socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(f"{folder}/.s.PGSQL.{query['port']}")
        hanging.listen()
        query["host"] = f"{folder},{query['host']}"
        url = urlunsplit(parts._replace(query=urlencode(query)))
        async with asyncio_loop() as loop:
            database = Database(loop, url, connections=1)
            answer = None
            with trio.fail_after(PATIENCE_S):
                while answer is None:  # a busy machine may need longer than each host is given
                    with suppress(DatabaseUnavailable):
                        answer = await database.value("SELECT 1")
            assert answer == 1
            await database.close()


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    async with database.transaction() as transaction:
        await transaction.execute("INSERT INTO notes VALUES (1)")
        assert await ids(database) == []
        assert await ids(transaction) == [1]
    assert await ids(database) == [1]
    with pytest.raises(RuntimeError, match="mine"):  # noqa: PT012
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES (2)")
            raise RuntimeError("mine")
    assert await ids(database) == [1]


async def test_a_transaction_within_one_is_a_savepoint(database: Database) -> None:
    async with database.transaction() as outer:
        await outer.execute("INSERT INTO notes VALUES (1)")
        with pytest.raises(ConstraintBroken):  # noqa: PT012
            async with outer.transaction() as inner:
                await inner.execute("INSERT INTO notes VALUES (2)")
                await inner.execute("INSERT INTO notes VALUES (1)")
        async with outer.transaction() as inner:
            await inner.execute("INSERT INTO notes VALUES (3)")
    assert await ids(database) == [1, 3]


async def test_a_cancelled_transaction_leaves_nothing_behind(database: Database) -> None:
    with trio.CancelScope() as scope:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES (1)")
            scope.cancel()
            await transaction.execute("INSERT INTO notes VALUES (2)")
    assert scope.cancelled_caught
    assert await ids(database) == []
    assert (
        await database.value("SELECT count(*) FROM pg_locks WHERE relation = 'notes'::regclass")
        == 0
    )


async def test_a_cancelled_statement_is_stopped_and_harms_nobody(database: Database) -> None:
    async def sleep() -> None:
        await database.fetch("SELECT pg_sleep(60)")

    async def sleep_in_transaction() -> None:
        async with database.transaction() as transaction:
            await transaction.fetch("SELECT pg_sleep(60)")

    for work in (sleep, sleep_in_transaction, sleep, sleep):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            while not await sleeping(database):
                pass
            nursery.cancel_scope.cancel()
        async with database.transaction() as first, database.transaction() as second:
            assert await first.value("SELECT 1") == await second.value("SELECT 1")
    assert not await sleeping(database)


async def test_a_statement_that_is_cancelled_before_the_server_has_read_it_is_stopped(
    database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.database.CANCEL_S", 0.1)
    sleep = "SELECT pg_sleep($1)"
    async with late_statements(database_url, tmp_path) as (way, url), asyncio_loop() as loop:
        late = Database(loop, url, connections=1)
        await late.fetch(sleep, 0.0)  # later it is sent in one piece
        way.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late.fetch, sleep, 60.0)
            await way.held.wait()
            nursery.cancel_scope.cancel()
        assert await late.value("SELECT 1") == 1
        await late.close()
    while await sleeping(database):
        pass


async def test_a_statement_that_takes_too_long_is_stopped(database: Database) -> None:
    async with database.connection(statement_s=0.05) as connection:
        with pytest.raises(DatabaseUnavailable):
            await connection.fetch("SELECT pg_sleep(60)")
    while await sleeping(database):
        pass


async def test_cancelling_at_any_moment_loses_no_connection(database: Database) -> None:
    async def work() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES (1) ON CONFLICT DO NOTHING")
        await database.fetch("SELECT 1")

    for checkpoints in range(60):
        if checkpoints % 10 == 0:
            await cut_all(database)  # so that connecting is interrupted as well
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
    with trio.fail_after(PATIENCE_S):
        async with database.transaction() as first, database.transaction() as second:
            assert await first.value("SELECT 1") == await second.value("SELECT 1")


async def test_who_waits_too_long_for_a_connection_is_sent_away(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.connection(), database.connection():
        with monkeypatch.context() as impatient:
            impatient.setattr("reileta.store.database.CONNECT_S", 0.05)
            with pytest.raises(DatabaseUnavailable):
                await database.fetch("SELECT 1")
        assert database.available, "it is busy, not gone"
    assert await database.value("SELECT 1") == 1


async def test_a_statement_that_takes_too_long_is_an_outage(database: Database) -> None:
    async with database.connection(statement_s=0.05) as connection:
        with pytest.raises(DatabaseUnavailable):
            await connection.fetch("SELECT pg_sleep(60)")
        assert not database.available
        with pytest.raises(DatabaseUnavailable):
            await connection.fetch("SELECT 1")
    assert await database.value("SELECT 1") == 1
    assert database.available


async def test_connections_that_were_cut_are_made_anew(database: Database) -> None:
    async with database.connection(), database.connection():
        pass
    assert await cut_all(database) == 1
    async with database.transaction() as first, database.transaction() as second:
        assert await first.value("SELECT 1") == await second.value("SELECT 1")


async def test_a_connection_cut_in_a_transaction_is_an_outage_and_no_more(
    database: Database,
) -> None:
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES (1)")
            await cut_all(database)
            await transaction.execute("INSERT INTO notes VALUES (2)")
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with database.transaction() as transaction:
            await transaction.execute("INSERT INTO notes VALUES (3)")
            await cut_all(database)
    assert await ids(database) == []
    assert database.available


async def test_an_urgent_statement_does_not_wait_behind_slow_ones(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.database.CONNECT_S", PATIENCE_S)
    async with database.connection(), database.connection():  # all of the pool
        with trio.fail_after(PATIENCE_S / 2):
            assert await database.urgent.execute("INSERT INTO notes VALUES (1)") == 1
            async with database.urgent.transaction() as transaction:
                assert await ids(transaction) == [1]


async def test_an_urgent_statement_that_waits_for_a_lock_fails_soon(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.execute("INSERT INTO notes VALUES (1)")
    monkeypatch.setattr("reileta.store.database.URGENT_S", 0.05)
    update = "UPDATE notes SET text = 'urgent'"
    async with database.transaction() as transaction:
        await transaction.execute("UPDATE notes SET text = 'slow'")
        with trio.fail_after(PATIENCE_S), pytest.raises(DatabaseUnavailable):
            await database.urgent.execute(update)
    assert database.available  # it may only be slow
    monkeypatch.undo()
    assert await database.urgent.execute(update) == 1
    assert await database.value("SELECT text FROM notes") == "urgent"


async def test_a_commit_may_take_longer_than_an_urgent_statement(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the disk, here for a trigger; and only its answer tells whether it succeeded."""
    await database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_sleep(0.3); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    async with database.urgent.transaction() as transaction:
        monkeypatch.setattr("reileta.store.database.URGENT_S", 0.1)
        await transaction.execute("INSERT INTO notes VALUES (1)")
    assert await ids(database) == [1]


async def test_an_urgent_statement_survives_a_restart_of_the_database(database: Database) -> None:
    assert await database.urgent.value("SELECT 1") == 1
    assert await cut_all(database) == 1
    assert await database.urgent.value("SELECT 1") == 1


async def test_a_renewal_of_a_node_waits_for_nothing_else(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reileta.store.database.CONNECT_S", PATIENCE_S)
    async with (
        database.connection(),
        database.connection(),  # all of the pool
        database.urgent.transaction(),
    ):
        with trio.fail_after(PATIENCE_S / 2):
            assert await database.renewals.value("SELECT 1") == 1


async def test_a_renewal_that_is_given_up_leaves_the_next_one_a_new_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await database.renewals.value("SELECT pg_backend_pid()")
    monkeypatch.setattr("reileta.store.database.CANCEL_S", PATIENCE_S)
    await database.execute("INSERT INTO notes VALUES (1)")
    async with database.transaction() as transaction:
        await transaction.execute("UPDATE notes SET text = 'held'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.renewals.execute, "UPDATE notes SET text = 'renewed'")
            with trio.fail_after(PATIENCE_S / 2):
                while not await waits_for_a_lock(database):
                    pass
            nursery.cancel_scope.cancel()
        with trio.fail_after(PATIENCE_S / 2):
            assert await database.renewals.value("SELECT pg_backend_pid()") != before


PAUSED = """
import os, signal, structlog, sys, trio
from reileta.errors import DatabaseUnavailable
from reileta.store.database import Database, asyncio_loop

async def main(url, statements):
    async with asyncio_loop() as loop:
        database = Database(loop, url, connections=1)
        for _ in range(2):
            try:
                async with database.transaction() as transaction:
                    await transaction.execute("UPDATE notes SET text = text || ' paused'")
                    if statements is not None:
                        os.write(1, b"locked\\n")
                        os.kill(os.getpid(), signal.SIGSTOP)
                    for statement in statements or ():
                        await transaction.execute(statement)
            except DatabaseUnavailable as error:
                os.write(1, b"unavailable %d\\n" % error.code)
                statements = None
            else:
                os.write(1, b"committed\\n")
        await database.close()

structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
trio.run(main, sys.argv[1], sys.argv[2:])
"""
"""Updates a row in a transaction, is stopped within it, and tries once more."""


@pytest.mark.slow
@pytest.mark.parametrize("statements", [[], ["SELECT 1"]], ids=["commit", "statement"])
async def test_a_process_that_was_paused_in_a_transaction_lets_go_and_tries_again(
    database: Database, database_url: str, statements: list[str]
) -> None:
    await database.execute("INSERT INTO notes VALUES (1, 'first')")
    command = [sys.executable, "-c", PAUSED, database_url, *statements]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE_S):
            assert await process.stdout.receive_some() == b"locked\n"
            # This waits for the lock of the paused process.
            assert await database.execute("UPDATE notes SET text = 'taken over'") == 1
            process.send_signal(signal.SIGCONT)
            printed = b"".join([part async for part in process.stdout])
            assert await process.wait() == 0
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        await process.stdout.aclose()
    assert printed == b"unavailable 122\ncommitted\n"
    assert await database.value("SELECT text FROM notes") == "taken over paused"


async def test_a_connection_that_stood_idle_for_long_is_not_used(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = await database.value("SELECT pg_backend_pid()")
    assert await database.value("SELECT pg_backend_pid()") == process
    monkeypatch.setattr("reileta.store.database.IDLE_S", 0.0)
    assert await database.value("SELECT pg_backend_pid()") != process


async def test_statements_are_counted_and_timed(database: Database) -> None:
    asked, failed, spent = database.statements, database.errors, database.seconds
    await database.fetch("SELECT pg_sleep(0.01)")
    assert database.statements == asked + 1
    assert database.errors == failed
    assert database.seconds >= spent + 0.01


async def test_a_database_that_is_away_is_unavailable(unused_address: str) -> None:
    async with asyncio_loop() as loop:
        database = Database(loop, f"postgresql://x@{unused_address}/x", connections=1)
        for failures in range(1, 4):
            with pytest.raises(DatabaseUnavailable) as caught:
                await database.fetch("SELECT 1")
            assert caught.value.retry_after_s
            assert not database.available
            assert database.errors == failures
        assert not await database.ping()
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction():
                pytest.fail("there is nothing to begin a transaction on")
        await database.close()


async def test_a_server_that_says_nothing_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reileta.store.database.CONNECT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        async with asyncio_loop() as loop:
            database = Database(loop, f"postgresql://x@{host}:{port}/x", connections=1)
            with pytest.raises(DatabaseUnavailable):
                await database.fetch("SELECT 1")
            await database.close()


async def test_a_closed_database_is_unavailable(database_url: str) -> None:
    async with asyncio_loop() as loop:
        database = Database(loop, database_url, connections=1)
        assert await database.ping()
        await database.close()
        assert not await database.ping()
    with pytest.raises(DatabaseUnavailable):
        await database.fetch("SELECT 1")


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@h:port/x", "postgresql://u:hunter2@h/x?sslmode=what"]
)
async def test_an_url_that_is_none_is_said_without_its_password(
    url: str, clock: ManualClock
) -> None:
    with pytest.raises(StartupError) as caught:
        async with open_store(Settings(database=url), clock):
            pytest.fail("it can't be opened")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


async def test_the_bodys_error_comes_out_as_it_is(database_url: str, clock: ManualClock) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_store(Settings(database=database_url), clock):
            raise KeyError("mine")


async def test_what_is_being_cancelled_can_still_ask(store: Store) -> None:
    said = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                said.append(await store.database.value("SELECT 1"))
    assert said == [1]


async def test_a_cancelled_store_closes_in_order(database_url: str, clock: ManualClock) -> None:
    with trio.CancelScope() as scope:
        async with open_store(Settings(database=database_url), clock) as store:
            await store.database.fetch("SELECT 1")
            scope.cancel()
            await store.database.fetch("SELECT pg_sleep(60)")
    assert scope.cancelled_caught


@pytest.fixture
def unused_address() -> str:
    """Where nothing listens: bound once, and given back."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return f"{host}:{port}"


async def test_connections_keep_nothing_of_who_had_them_made(database: Database) -> None:
    """What a request keeps in its context would stay as long as the connection."""

    class Request: ...

    variable: ContextVar[Request] = ContextVar("request")
    requests: list[weakref.ref[Request]] = []

    async def ask() -> None:
        request = Request()
        requests.append(weakref.ref(request))
        variable.set(request)
        await database.fetch("SELECT pg_sleep(0.01)")

    await cut_all(database)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    gc.collect()
    assert [request() for request in requests] == [None, None]


async def test_statements_leave_no_timers(database: Database) -> None:
    """asyncpg would start one for each cached statement, also of connections that have ended."""

    def timers() -> int:
        soon = trio.current_time() + 60
        found = [one for one in gc.get_objects() if type(one) is asyncio.TimerHandle]
        return sum(one.when() > soon for one in found)

    before = timers()
    for number in range(10):
        await database.fetch(f"SELECT {number}, $1::text", "a")
    assert timers() == before


async def test_a_failure_of_the_driver_outside_of_a_statement_ends_nothing(
    database_url: str,
) -> None:
    async def fail_later() -> None:
        asyncio.get_running_loop().call_soon({}.popitem)

    with capture_logs() as logged:
        async with asyncio_loop() as loop:
            await loop.run_aio_coroutine(fail_later())
            database = Database(loop, database_url, connections=1)
            assert await database.ping()
            await database.close()
    (failed,) = logged
    assert failed["event"] == "database.callback_failed"


async def set_read_only(operator: Database, on: bool) -> None:
    """As an operator does before maintenance: for new connections, and the old ones are cut."""
    name = await operator.value("SELECT current_database()")
    change = "SET default_transaction_read_only = on" if on else "RESET ALL"
    await operator.execute(f'ALTER DATABASE "{name}" {change}')
    await cut_all(operator)


async def test_a_database_that_is_read_only_for_a_while_is_an_outage(
    database: Database, database_url: str
) -> None:
    async with asyncio_loop() as loop:
        operator = Database(loop, database_url, connections=1)
        assert await database.takes_writes()
        await set_read_only(operator, on=True)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await database.execute("INSERT INTO notes VALUES (1)")
            assert not await database.takes_writes()
        assert not database.available
        await set_read_only(operator, on=False)
        assert await database.takes_writes()
        await database.execute("INSERT INTO notes VALUES (2)")
        assert await ids(database) == [2]
        await operator.close()


async def test_a_connection_that_has_become_read_only_is_dropped(database: Database) -> None:
    """At once if PostgreSQL reports it, or else with the first write that it refuses, together
    with the idle ones."""
    async with database.connection() as first, database.connection() as second:
        before = {await one.value("SELECT pg_backend_pid()") for one in (first, second)}
        await first.execute("SET default_transaction_read_only = on")
        assert await first.value("SELECT 1") == 1
    async with database.connection() as first, database.connection() as second:
        after = {await one.value("SELECT pg_backend_pid()") for one in (first, second)}
        assert len(after & before) == 1
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with database.transaction() as transaction:
            await transaction.execute("SET transaction_read_only = on")
            await transaction.execute("INSERT INTO notes VALUES (1)")
    async with database.connection() as first, database.connection() as second:
        last = {await one.value("SELECT pg_backend_pid()") for one in (first, second)}
    assert not last & after
    await database.execute("INSERT INTO notes VALUES (2)")
    assert await ids(database) == [2]


async def test_a_table_that_may_not_be_written_is_not_ready(database: Database) -> None:
    await database.execute("ALTER TABLE server RENAME TO gone")
    assert not await database.takes_writes()
    assert await database.ping()


async def test_a_loop_of_a_cancelled_body_ends() -> None:
    """A server that is stopped while it starts."""
    with trio.fail_after(PATIENCE_S), trio.CancelScope() as scope:
        scope.cancel()
        async with asyncio_loop():
            await trio.sleep_forever()
    assert scope.cancelled_caught
