from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from reileta.clock import SystemClock
from reileta.errors import DatabaseUnavailable
from reileta.settings import Settings
from reileta.startup import StartupError
from reileta.store import Store, open_store
from reileta.store.database import Database, asyncio_loop
from reileta.store.embedded import server as module
from reileta.store.embedded.cluster import Cluster
from reileta.store.embedded.server import FolderLock, open_embedded
from tests.conftest import PATIENCE_S


@pytest.fixture
def cluster(data_folder: Path) -> Cluster:
    return Cluster(data_folder, durable=False)


def server(data: Path) -> AbstractAsyncContextManager[Store]:
    return open_store(Settings(data=data), SystemClock())


def command(data: Path) -> AbstractAsyncContextManager[Store]:
    return open_store(Settings(data=data), SystemClock(), shared=True)


async def make_user(store: Store, name: str) -> None:
    await store.users.create(username=name, displayname=name, password_hash=None)


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    assert first.take()
    assert not second.take()
    first.give_back()
    assert second.take()
    assert first.held()
    second.give_back()
    assert not first.held()
    second.give_back()


def test_asking_for_a_holder_is_no_holding(tmp_path: Path) -> None:
    one, other = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    asking = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)  # as one who is just asking
    assert not one.held()
    assert not other.take()
    os.close(asking)
    assert other.take()
    other.give_back()


async def test_it_runs_while_the_body_does(data_folder: Path, cluster: Cluster) -> None:
    async with server(data_folder) as store:
        await make_user(store, "ada")
        assert cluster.answers()
    assert not cluster.answers()
    async with server(data_folder) as store:
        assert await store.users.by_name("ada") is not None


async def test_it_is_stopped_when_the_body_fails_or_is_cancelled(
    data_folder: Path, cluster: Cluster
) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with server(data_folder):
            raise KeyError("mine")
    assert not cluster.answers()
    with trio.CancelScope() as scope:
        async with server(data_folder):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert not cluster.answers()


async def test_two_servers_on_one_folder_are_refused(data_folder: Path) -> None:
    async with server(data_folder) as store:
        with pytest.raises(StartupError, match="another server uses the data folder") as caught:
            async with server(data_folder):
                pytest.fail("two servers on one folder")
        assert "\n" not in str(caught.value)
        await make_user(store, "ada")


async def test_a_command_uses_the_running_servers(data_folder: Path, cluster: Cluster) -> None:
    async with server(data_folder) as serving:
        async with command(data_folder) as first, command(data_folder) as second:
            await make_user(first, "ada")
            assert await second.users.by_name("ada") is not None
        assert await serving.users.by_name("ada") is not None
    assert not cluster.answers()


async def test_a_command_alone_starts_it_and_stops_it(data_folder: Path, cluster: Cluster) -> None:
    async with server(data_folder):
        pass  # which makes the database
    async with command(data_folder) as store:
        await make_user(store, "ada")
    assert not cluster.answers()
    async with server(data_folder) as store:
        assert await store.users.by_name("ada") is not None


async def test_others_wait_for_a_command_to_end(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    refused = 0
    take = FolderLock.take

    def counted(lock: FolderLock) -> bool:
        nonlocal refused
        taken = take(lock)
        refused += not taken
        return taken

    monkeypatch.setattr(FolderLock, "take", counted)

    async def work(open_: AbstractAsyncContextManager[Store], name: str) -> None:
        async with open_ as store:
            await make_user(store, name)
            names.append(name)
            while name == "a_server" and len(names) < 2:  # the command may be using its PostgreSQL
                await trio.sleep(0.01)

    async with server(data_folder):
        pass  # which makes the database
    async with trio.open_nursery() as nursery, command(data_folder):
        nursery.start_soon(work, command(data_folder), "another_command")
        nursery.start_soon(work, server(data_folder), "a_server")
        while refused < 10:
            await trio.sleep(0.01)
        assert names == []
    assert sorted(names) == ["a_server", "another_command"]


async def test_a_command_that_never_ends_is_not_waited_for(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.1)
    held = FolderLock(data_folder / "postgres.lock")
    assert held.take()
    with pytest.raises(StartupError, match="another command uses the data folder"):
        async with server(data_folder):
            pytest.fail("it is in use")
    with pytest.raises(StartupError, match="is in use and does not answer"):
        async with command(data_folder):
            pytest.fail("it is in use")
    held.give_back()
    lock = FolderLock(data_folder / "server.lock")
    assert lock.take(), "a start that failed gives its locks back"
    lock.give_back()


async def test_a_postgresql_that_is_killed_comes_back_with_all_it_acknowledged(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0.05)
    cluster = Cluster(data_folder)
    acknowledged: list[str] = []

    async with open_embedded(data_folder, cluster=cluster) as url, asyncio_loop() as loop:
        database = Database(loop, url, connections=4)
        await database.execute("CREATE TABLE notes (text text PRIMARY KEY)")
        for death in range(2):
            for number in itertools.count():
                note = f"{death}-{number}"
                if number == 10:
                    # Its backends notice a moment later, and serve until then.
                    os.kill(cluster.pid, signal.SIGKILL)
                try:
                    await database.execute("INSERT INTO notes VALUES ($1)", note)
                except DatabaseUnavailable:
                    break
                acknowledged.append(note)
            assert number >= 10
            with trio.fail_after(PATIENCE_S):
                while not await database.ping():
                    await trio.sleep(0.02)
            assert database.available
        rows = {row["text"] for row in await database.fetch("SELECT text FROM notes")}
        assert rows.issuperset(acknowledged)
        assert len(acknowledged) >= 20
        await database.close()


async def test_after_a_killed_server_the_next_one_takes_over(
    data_folder: Path, cluster: Cluster
) -> None:
    script = (
        "import sys, trio; from pathlib import Path\n"
        "from reileta.clock import SystemClock; from reileta.settings import Settings\n"
        "from reileta.store import open_store\n"
        "async def main():\n"
        "    settings = Settings(data=Path(sys.argv[1]))\n"
        "    async with open_store(settings, SystemClock()) as store:\n"
        "        for number in range(1_000_000):\n"
        "            name = f'user_{number}'\n"
        "            await store.users.create(\n"
        "                username=name, displayname=name, password_hash=None)\n"
        "            print('made', number, flush=True)\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(data_folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    ) as process:
        assert process.stdout is not None
        made = [line for line in (process.stdout.readline() for _ in range(60)) if "made" in line]
        process.kill()
    assert made
    assert cluster.answers(), "it is left behind"
    async with server(data_folder) as store:
        for number in range(len(made)):
            assert await store.users.by_name(f"user_{number}") is not None
    assert not cluster.answers()


async def test_a_data_folder_that_can_not_be_made_is_one_line(data_folder: Path) -> None:
    (data_folder / "file").write_text("")
    with pytest.raises(StartupError, match="can't use the data folder"):
        async with server(data_folder / "file"):
            pytest.fail("it is a file")


async def test_a_command_makes_no_database(data_folder: Path, cluster: Cluster) -> None:
    with pytest.raises(StartupError, match="there is no database in"):
        async with command(data_folder):
            pytest.fail("there is none")
    assert not list(data_folder.iterdir())
    # A server that was killed at its first start leaves a lock, and no database.
    (data_folder / "postgres.lock").touch()
    with pytest.raises(StartupError, match="there is no database in"):
        async with command(data_folder):
            pytest.fail("there is none")
    assert not cluster.folder.exists()
