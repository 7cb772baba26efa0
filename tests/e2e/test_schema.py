"""What `/openapi.json` promises, held against a server: schemathesis, with all its checks on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.e2e.processes import Bot, ServerProcess, bots, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")
SESSION_API = "^/(session|resource|auth)"

pytestmark = pytest.mark.slow


async def examined(served: ServerProcess, folder: Path, seconds: int, *options: str) -> None:
    """Has schemathesis ask the server for so long, with what is well formed and what is not, and
    with what answers said before; fails with what it found."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(CONFIG)),
        *("run", f"{served.url}/openapi.json"),
        *("--checks", "all", "--seed", "1", "--max-examples", "4", "--max-time", str(seconds)),
        *("--generation-database", "none", "--no-color", "--warnings", "off"),
        *options,
    ]
    with trio.fail_after(seconds * 6):
        done = await trio.run_process(
            command,
            cwd=folder,
            check=False,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            env={key: text for key, text in os.environ.items() if "REILETA" not in key},
        )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    assert "Test cases:" in said


async def test_answers_are_as_documented(database_url: str, tmp_path: Path) -> None:
    where = ("--database", database_url)
    (bot,) = await bots(1, tmp_path, *where)
    data = ("--data", str(tmp_path / "data"))
    offline = ("--federation", "off")  # it makes up addresses of servers
    unbounded = ("--rate-limits", "off", "--temporary-accounts", "1000000")
    async with serving(*where, *data, *offline, *unbounded) as served:
        await _make_admin(served, bot, where)
        token = ("--header", f"Authorization: Bearer {bot.token}")
        # Logging out would end the credential that all else is asked with. `rules` is also a
        # possible name of a server, so `Allow` has the methods of both paths.
        registry = ("--exclude-path-regex", f"logout|^/api/servers/rules$|{SESSION_API}")
        await examined(served, tmp_path, 18, *token, *registry)
        # A missing credential is 400 there (S), which two of the checks will not believe.
        others = ("--include-path-regex", SESSION_API, "--exclude-path-regex", "logout")
        unfit = ("--exclude-checks", "ignored_auth,missing_required_header")
        phases = ("--phases", "examples,coverage,fuzzing")
        await examined(served, tmp_path, 6, *token, *others, *unfit, *phases)
        # And with what it makes up as a credential: a malformed one is 400 whatever goes with it.
        excluded = f"^/api/servers/rules$|{SESSION_API}"
        made_up = ("--phases", "examples,coverage", "--exclude-path-regex", excluded)
        await examined(
            served, tmp_path, 8, *made_up, "--exclude-checks", "positive_data_acceptance"
        )
        assert served.events("request.failed") == []
        async with served.ask() as client:
            assert (await client.get("/readyz")).status_code == 200


async def _make_admin(served: ServerProcess, bot: Bot, where: tuple[str, ...]) -> None:
    async with served.ask() as client:
        headers = {"Authorization": bot.token}
        me = (await client.get("/api/users/@me", headers=headers)).json()["data"]
    command = [sys.executable, "-m", "reileta", "admin", "grant", me["username"], *where]
    await trio.run_process(command, capture_stdout=True)
