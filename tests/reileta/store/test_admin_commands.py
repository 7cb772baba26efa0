"""The command line's work on a real database: its own, and a running server's."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest
import trio

from reileta import cli, ids
from reileta.clock import SystemClock
from reileta.records import ADMIN_TAG
from reileta.security import credentials
from reileta.settings import Settings
from reileta.store import admin_commands, open_store
from tests import logs

pytestmark = pytest.mark.slow

COUNT = 1000


def test_a_thousand_bots_take_little_time_and_their_tokens_work(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "tokens"
    # The database itself is made first, so that its making is not what is measured.
    admin_commands.create_bots(Settings(data=data), 1)
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
            assert page.total == COUNT + 1

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
