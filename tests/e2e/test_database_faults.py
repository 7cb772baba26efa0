"""Faults of the database under a running server."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import trio

from reileta.store.read_cache import TABLES
from tests.e2e.clients import connected
from tests.e2e.operator import at_the_database
from tests.e2e.processes import bots, eventually, new_instance, serving
from tests.forked import run
from tests.reileta.store.fake_pooler import fake_pooler

pytestmark = pytest.mark.slow


async def test_a_database_error_in_a_background_task_ends_nothing(
    database_url: str, tmp_path: Path
) -> None:
    """Tables that background tasks use are taken away, and given back."""
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    tables = ("leases", "changes")
    (ada,) = await bots(1, tmp_path, *where[:2])
    async with (
        serving(*where, "--away-s", "0.2") as served,
        at_the_database(database_url) as database,
        served.ask() as client,
    ):
        place = await new_instance(served, ada)

        async def failing() -> str:
            answer = await client.get("/readyz")
            return answer.text if answer.status_code == 503 else ""

        async with connected(served, ada) as player:
            await player.join(place)
            for table in tables:
                await database.execute(f"ALTER TABLE {table} RENAME TO lost_{table}")

            async def named() -> bool:
                text = await failing()
                return all(table in text for table in tables)

            await eventually(named)
            metrics = (await client.get("/metrics")).text
            assert 'reileta_background_failing{task="leases"} 1.0' in metrics
            assert 'reileta_background_failing{task="sweep"} 0.0' in metrics
            assert (await client.get("/healthz")).status_code == 200
            assert (await player.ask("ping"))["command"] == "ping"
            crashed = await served.until_logged("task.crashed")
            assert crashed["task"] in tables
            for table in tables:
                await database.execute(f"ALTER TABLE lost_{table} RENAME TO {table}")

            async def ready() -> bool:
                return (await client.get("/readyz")).is_success

            await eventually(ready)
            assert (await player.ask("ping"))["command"] == "ping"
        assert served.process.poll() is None


async def test_a_database_error_in_a_write_of_an_instance_ends_no_instance(
    database_url: str, tmp_path: Path
) -> None:
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    owner, banned = await bots(2, tmp_path, *where[:2])
    async with serving(*where) as served, at_the_database(database_url) as database:
        place = await new_instance(served, owner)
        async with connected(served, owner) as player, connected(served, banned) as other:
            await player.join(place)
            joined = await other.join(place)
            await database.execute("ALTER TABLE bans RENAME TO lost_bans")
            ban = {"type": "ban", "player": joined["player"]}
            for _ in range(4):
                refused = await player.ask("instance-moderate", ban, subgroup=place)
                assert refused["error"]["code"] in (50, 122)
            await served.until_logged("database.fault", 4)  # it is tried again every 2 s
            assert not served.events("actor.crashed")
            data = await player.ask("instance-data", {"x": 1}, subgroup=place)
            assert "error" not in data
            await database.execute("ALTER TABLE lost_bans RENAME TO bans")

            async def stored() -> bool:
                return bool(await database.value("SELECT count(*) FROM bans"))

            await eventually(stored)


async def test_a_database_that_is_read_only_for_a_while(database_url: str, tmp_path: Path) -> None:
    """As in a failover: nothing can be written, players stay, and afterwards all is as before."""
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    (ada,) = await bots(1, tmp_path, *where[:2])
    headers = {"Authorization": f"Bearer {ada.token}"}
    async with (
        serving(*where) as served,
        at_the_database(database_url) as database,
        served.ask() as client,
    ):
        place = await new_instance(served, ada)

        async def write() -> int:
            answer = await client.put("/api/worlds", json={"title": "x"}, headers=headers)
            return answer.status_code

        async with connected(served, ada) as player:
            await player.join(place)
            name = await database.value("SELECT current_database()")
            await database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only=on')
            await database.fetch(
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            for _ in range(3):
                assert await write() == 503
                assert (await client.get("/readyz")).status_code == 503
            assert (await player.ask("ping"))["command"] == "ping"
            await database.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            assert (await client.get("/readyz")).status_code == 200
            for _ in range(10):
                assert await write() == 200
            assert (await player.ask("ping"))["command"] == "ping"


async def test_a_server_that_is_paused_within_a_transaction_goes_on(
    database_url: str, tmp_path: Path
) -> None:
    """It is stopped while its statement waits for a lock, so that the transaction is idle once the
    statement has ended."""
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    owner, banned = await bots(2, tmp_path, *where[:2])
    async with (
        serving(*where) as served,
        at_the_database(database_url) as database,
        database.dedicated() as gate,
    ):
        await database.execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$; "
            "CREATE TRIGGER wait AFTER INSERT ON bans FOR EACH ROW EXECUTE FUNCTION wait(); "
            "CREATE TRIGGER wait AFTER INSERT ON worlds FOR EACH ROW EXECUTE FUNCTION wait()"
        )
        place = await new_instance(served, owner)

        async def waiting() -> list[int]:
            """The processes of the two transactions, once both wait."""
            rows = await database.fetch(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
                "AND wait_event_type = 'Lock'"
            )
            return [row["pid"] for row in rows] if len(rows) == 2 else []

        async def gone(processes: list[int]) -> bool:
            sql = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = ANY($1)"
            return bool(await database.value(sql, processes))

        async with connected(served, owner) as player, connected(served, banned) as other:
            await player.join(place)
            joined = await other.join(place)
            answers: dict[str, int] = {}

            async def ban() -> None:
                request = {"type": "ban", "player": joined["player"]}
                answer = await player.ask("instance-moderate", request, subgroup=place)
                answers["ban"] = answer["error"]["code"]

            async def make_world() -> None:
                headers = {"Authorization": f"Bearer {owner.token}"}
                async with served.ask() as client:
                    answer = await client.put("/api/worlds", json={"title": "x"}, headers=headers)
                    answers["world"] = answer.json()["error"]["code"]
                    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                    again = await client.put("/api/worlds", json={"title": "x"}, headers=headers)
                    assert again.status_code == 200

            await gate.value("SELECT pg_advisory_lock(4711)")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ban)
                nursery.start_soon(make_world)
                processes = await eventually(waiting)
                served.process.send_signal(signal.SIGSTOP)
                try:
                    await gate.value("SELECT pg_advisory_unlock(4711)")
                    await eventually(partial(gone, processes))
                finally:
                    served.process.send_signal(signal.SIGCONT)
            assert answers == {"ban": 122, "world": 122}

            async def stored() -> bool:
                return bool(await database.value("SELECT count(*) FROM bans"))

            await eventually(stored)
            assert (await player.ask("ping"))["command"] == "ping"
            assert not served.events("actor.crashed")
            assert not served.events("task.crashed")


async def refused(*options: str) -> str:
    """The one line with which a server does not start."""
    ended = await run("serve", "--port", "0", *options)
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    return line


async def test_a_second_server_on_the_database_is_refused(
    database_url: str, tmp_path: Path
) -> None:
    where = ("--database", database_url, "--key", str(tmp_path / "key"))
    async with serving(*where, "--data", str(tmp_path / "one")):
        line = await refused(*where, "--data", str(tmp_path / "two"))
        assert "another server uses the database" in line
        await bots(1, tmp_path, *where[:2])  # commands may
    async with serving(*where, "--data", str(tmp_path / "two")) as served:
        served.process.kill()
        await served.ended()
    async with serving(*where, "--data", str(tmp_path / "two")):
        pass


async def test_a_pooler_in_transaction_mode_is_refused(database_url: str, tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="pooler-") as folder:
        async with fake_pooler(database_url, Path(folder), "transaction") as url:
            line = await refused("--database", url, "--data", str(tmp_path))
    assert "pool_mode=session" in line


ASKED: Final = (
    ("GET", "/api/users/@me", None),
    ("GET", "/api/users?query=a", None),
    ("PUT", "/api/worlds", {"title": "x"}),
    ("GET", "/api/worlds", None),
    ("GET", "/api/instances", None),
    ("GET", "/api/services", None),
    ("GET", "/api/server", None),
    ("GET", "/api/users/@me/follows", None),
    ("GET", "/api/users/@me/home", None),
    ("GET", "/session", None),
    ("GET", "/resource/document", None),
    ("POST", "/resource/document", {"title": "x", "data": {}}),
    ("POST", "/resource/document/1/acquire", None),
    ("POST", "/api/auth/login", {"username": "admin", "password": "wrong horse"}),
    ("POST", "/api/auth/register", {"username": "newcomer", "password": "correct horse"}),
)
"""Requests that together use most tables."""


async def test_tables_that_are_dropped_end_nothing(database_url: str, tmp_path: Path) -> None:
    """An operator drops one table after another, and gives none back."""
    where = ("--database", database_url, "--data", str(tmp_path / "data"), "--rate-limits", "off")
    ada, bob = await bots(2, tmp_path, *where[:2])
    headers = {"Authorization": f"Bearer {ada.token}"}
    async with (
        serving(*where, "--away-s", "0.2") as served,
        at_the_database(database_url) as database,
        served.ask() as client,
    ):
        place = await new_instance(served, ada)
        async with connected(served, ada) as player, connected(served, bob) as other:
            await player.join(place)
            joined = await other.join(place)
            for number, table in enumerate(sorted(TABLES)):
                await database.execute(f'DROP TABLE "{table}" CASCADE')
                for method, path, body in ASKED:
                    answer = await client.request(method, path, json=body, headers=headers)
                    assert answer.status_code != 500, (table, path, answer.text)
                    if answer.status_code == 503:
                        assert answer.json()["error"]["code"] == 122, (table, path, answer.text)
                warning = {"player": joined["player"], "type": "warn", "reason": table}
                warned = await player.ask("instance-moderate", warning, subgroup=place)
                assert warned.get("error", {"code": 122})["code"] in (50, 122), (table, warned)
                assert "error" not in await player.ask(
                    "instance-data", {"n": number}, subgroup=place
                ), table
                assert (await other.hear())["data"] == {"n": number}
                assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
        assert served.process.poll() is None
        assert not served.events("actor.crashed")
        assert not served.events("request.failed")
        served.process.kill()  # it can't leave the database in order
        await served.ended()
