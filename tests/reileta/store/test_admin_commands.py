"""The command line's work on a real database: its own, and a running server's."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
import trio

from reileta import cli, ids
from reileta.clock import SystemClock
from reileta.errors import DatabaseUnavailable
from reileta.records import ADMIN_TAG
from reileta.security import credentials
from reileta.settings import Settings
from reileta.store import admin_commands, open_store
from tests import logs
from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.slow

COUNT = 1000


async def make_database(settings: Settings) -> None:
    """As a server does at its first start."""
    async with open_store(settings, SystemClock()) as store:
        await store.users.ensure_system_accounts(hashed)


async def hashed(password: str) -> str:
    return f"hash of {password}"


def test_a_thousand_bots_take_little_time_and_their_tokens_work(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "tokens"
    # The database itself is made first, so that its making is not what is measured.
    trio.run(make_database, Settings(data=data))
    started = time.process_time()
    arguments = ["bots", "create", "--count", str(COUNT), "--tokens", str(file)]
    with logs.restored():
        assert cli.main([*arguments, "--data", str(data)]) == 0
    assert time.process_time() - started < 10
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    made = file.read_text().splitlines()
    assert len(set(made)) == COUNT

    async def check() -> None:
        clock = SystemClock()
        async with open_store(Settings(data=data), clock) as store:
            for token in (made[0], made[-1]):
                found = await store.tokens.by_access(credentials.digest(token))
                assert found is not None
                kept, session, user = found
                assert kept.session_id == session.id
                assert session.user_id == user.id == kept.user_id
                assert session.ended_at is None
                assert kept.killed_at is None
                assert kept.access_expires > clock.now_ms() + 300 * 24 * 3600 * 1000
                assert ids.is_username(user.username)
                assert user.username.startswith("bot_")
                assert not user.autopilot
                assert not user.admin
                assert await store.users.credentials(user.username) is None
            page = await store.users.search(query="bot_", limit=1, offset=0)
            assert page.total == COUNT

    trio.run(check)


def test_both_commands_work_while_a_server_has_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")

    async def serve() -> None:
        async with open_store(settings, SystemClock()) as store:
            ann = await store.users.create(username="ann", displayname="Ann", password_hash="x")
            made = await trio.to_thread.run_sync(admin_commands.create_bots, settings, 3)
            assert await trio.to_thread.run_sync(admin_commands.grant_admin, settings, "Ann")
            assert not await trio.to_thread.run_sync(admin_commands.grant_admin, settings, "nobody")
            assert len(made) == 3
            for token in made:
                assert await store.tokens.by_access(credentials.digest(token)) is not None
            found = await store.users.by_id(ann.id)
            assert found is not None
            assert ADMIN_TAG in found.tags
            await store.changes.begin()
            assert await trio.to_thread.run_sync(admin_commands.revoke_admin, settings, "ANN")
            assert (await store.changes.next()).users == {ann.id}
            assert not await trio.to_thread.run_sync(
                admin_commands.revoke_admin, settings, "nobody"
            )
            found = await store.users.by_id(ann.id)
            assert found is not None
            assert ADMIN_TAG not in found.tags

    trio.run(serve)


def test_a_database_that_can_not_be_reached_is_one_line_and_status_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logs.restored():
        url = "postgresql://reileta:hunter2@127.0.0.1:1/x"
        assert cli.main(["admin", "grant", "ann", "--database", url]) == 1
    said = capsys.readouterr().err
    assert said.startswith("reileta: ")
    assert said.count("\n") == 1
    assert "hunter2" not in said


COMMANDS = [
    ["key", "accept"],
    ["admin", "grant", "ann"],
    ["admin", "revoke", "ann"],
    ["admin", "list"],
    ["admin", "log"],
    ["admin", "reset-password", "ann"],
    ["admin", "suspend", "ann"],
    ["admin", "unsuspend", "ann"],
    ["bots", "create", "--count", "1", "--tokens", "{}/tokens"],
    ["bots", "list"],
    ["bots", "remove", "--all"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
async def test_a_command_makes_no_database(
    command: list[str], empty_database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(tmp_path) for word in command]
    with logs.restored():
        for data in (tmp_path / "typo", tmp_path):
            assert await run(*words, "--data", str(data)) == 1
            assert f"there is no database in {data}" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
        assert await run(*words, "--database", empty_database_url) == 1
        assert "not the database of a server" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


async def run(*words: str) -> int:
    return await trio.to_thread.run_sync(cli.main, list(words))


async def test_bots_are_listed_and_removed_by_batch(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data=tmp_path, database=database_url)
    await make_database(settings)
    where = ["--database", database_url, "--data", str(tmp_path)]
    with logs.restored():
        async with open_store(settings, SystemClock()) as store:
            made = {}
            for count in (3, 2):
                tokens = await trio.to_thread.run_sync(admin_commands.create_bots, settings, count)
                found = await store.tokens.by_access(credentials.digest(tokens[0]))
                assert found is not None
                made[count] = found[2]
            # A user who looks like a bot, one whom a bot follows, and a bot that owns a world.
            first, second = made[3], made[2]
            name = second.username.replace("_1", "_7")
            human = await store.users.create(username=name, displayname="Bot 7", password_hash="x")
            await store.follows.put(second.id, human.id)
            world = await store.worlds.create(
                title="Hall", description=None, capacity=2, owner=second.id, tags=frozenset()
            )
            assert await run("bots", "list", *where) == 0
            listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
            batches = {one.username.rpartition("_")[0]: count for count, one in made.items()}
            assert listed == [[name, str(count)] for name, count in batches.items()]
            assert await run("bots", "remove", *where) == 2
            assert await run("bots", "remove", "bot_none", *where) == 1
            assert await run("bots", "remove", second.username.rpartition("_")[0], *where) == 0
            assert await store.users.by_id(second.id) is None
            assert await store.users.by_id(human.id) is not None
            assert await store.users.by_id(first.id) is not None
            kept = await store.worlds.get(world.id)
            assert kept is not None
            assert kept.owner == (await store.users.server_account()).id
            assert await run("bots", "remove", "--all", *where) == 0
            assert "removed 3 bots" in capsys.readouterr().err
            assert await run("bots", "list", *where) == 0
            assert capsys.readouterr().out == ""
            assert await store.users.by_id(human.id) is not None
            noted = (await store.audit.search(limit=9, offset=0)).items
            assert [(one.action, one.result, one.details.get("count")) for one in noted[::-1]] == [
                ("create_bots", "done", 3),
                ("create_bots", "done", 2),
                ("remove_bots", "done", 2),
                ("remove_bots", "done", 3),
            ]


async def test_the_time_of_commands_is_that_of_the_database(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, real_ns = Settings(data=tmp_path, database=database_url), time.time_ns
    await make_database(settings)
    with logs.restored():
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 86_400 * 10**9)
        now, _ = await trio.to_thread.run_sync(admin_commands.list_admins, settings)
    assert abs(now - real_ns() // 10**6) < PATIENCE_S * 1000


async def test_a_key_is_accepted_with_an_entry_in_the_audit_log(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data=tmp_path / "data", database=database_url, key=tmp_path / "key")
    await make_database(settings)
    where = ["--database", database_url, "--data", str(settings.data), "--key", str(settings.key)]
    printed = []
    with logs.restored():
        for _ in range(2):
            assert await run("key", "accept", *where) == 0
            printed.append(capsys.readouterr().out.strip())
    async with open_store(settings, SystemClock()) as store:
        assert printed == [await store.identity.public_key()] * 2
        noted = (await store.audit.search(limit=9, offset=0)).items
        assert [(one.action, one.result) for one in noted] == [("accept_key", "done")]


async def test_bots_are_not_made_or_removed_without_an_entry_in_the_audit_log(
    database_url: str, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, database=database_url)
    await make_database(settings)
    with logs.restored():
        async with open_store(settings, SystemClock()) as store:
            await trio.to_thread.run_sync(admin_commands.create_bots, settings, 1)
            before = await store.users.search(query=None, limit=9, offset=0)
            await store.database.execute("ALTER TABLE audit_log RENAME TO away")
            for work in (
                lambda: admin_commands.create_bots(settings, 1),
                lambda: admin_commands.remove_bots(settings, None),
            ):
                with pytest.raises(DatabaseUnavailable):
                    await trio.to_thread.run_sync(work)
            assert (await store.users.search(query=None, limit=9, offset=0)).total == before.total
