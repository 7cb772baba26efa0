"""A server as its operator runs it: one join followed by its trace, one instance replayed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import open_websocket

from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player
from tests.e2e.processes import START_S, eventually
from tests.forked import Done, run

pytestmark = pytest.mark.slow

_names = itertools.count(1)


class LoggedProcess:
    """`reileta serve`, in a process of its own, with its log in a file."""

    def __init__(self, process: trio.Process, log: Path, url: str) -> None:
        self.process = process
        self.log = log
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE_S)
        self.tokens: list[str] = []

    def events(self) -> list[Json]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]

    async def event(self, name: str, *, within_s: float = PATIENCE_S, **keys: object) -> Json:
        """The first such event, as soon as it is in the log."""
        return (await self.all_events(name, 1, within_s=within_s, **keys))[0]

    async def all_events(
        self, name: str, count: int = 1, *, within_s: float = PATIENCE_S, **keys: object
    ) -> list[Json]:
        """Such events, as soon as so many are in the log."""
        with trio.fail_after(within_s):
            while True:
                found = [
                    one
                    for one in self.events()
                    if one["event"] == name and keys.items() <= one.items()
                ]
                if len(found) >= count:
                    return found
                await trio.sleep(0.02)

    async def register(self) -> str:
        """A new account's token."""
        name = f"walker{next(_names)}"
        answer = await self.http.post(
            "/api/auth/register", json={"username": name, "password": "correct horse battery"}
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["data"]["token"]
        self.tokens.append(token)
        return token

    async def put(self, path: str, token: str, body: Json) -> Json:
        answer = await self.http.put(path, json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        data: Json = answer.json()["data"]
        return data

    @asynccontextmanager
    async def connected(self, token: str) -> AsyncIterator[Player]:
        host, _, port = self.url.rpartition("//")[2].rpartition(":")
        headers = [(b"Authorization", f"Bearer {token}".encode())]
        async with open_websocket(
            host, int(port), "/api/ws", use_ssl=False, extra_headers=headers
        ) as socket:
            player = Player(socket)
            await player.event("authenticated")
            yield player

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def served(database_url: str, folder: Path, *options: str) -> AsyncIterator[LoggedProcess]:
    log = folder / "log.jsonl"
    command = [sys.executable, "-m", "reileta", "serve", "--port", "0", "--log-format", "json"]
    command += ["--data", str(folder / "data"), *options]
    with log.open("wb") as out:
        process = await trio.lowlevel.open_process(
            command, stdout=out, env={**os.environ, "REILETA_DATABASE": database_url}
        )
    server = LoggedProcess(process, log, "")
    try:
        ready = await server.event("server.ready", within_s=START_S)
        server.url = ready["url"]
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as server.http:
            yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def reileta(*arguments: str | Path) -> Done:
    with trio.fail_after(PATIENCE_S):
        return await run(*map(str, arguments))


@asynccontextmanager
async def room_of_two(server: LoggedProcess) -> AsyncIterator[tuple[Json, Player, Player]]:
    """An instance, with two inside."""
    ann, bob = await server.register(), await server.register()
    world = await server.put("/api/worlds", ann, {"title": "W"})
    instance = await server.put("/api/instances", ann, {"world": world["id"], "capacity": 8})
    async with server.connected(ann) as first, server.connected(bob) as second:
        await first.join(instance["id"])
        await second.join(instance["id"])
        await first.event("instance-joined")
        yield instance, first, second


async def test_one_join_is_followed_from_socket_to_sockets(
    database_url: str, tmp_path: Path
) -> None:
    async with served(database_url, tmp_path, "--log-level", "debug") as server:
        async with room_of_two(server) as (instance, _, _):
            joins = await server.all_events("socket.received", 2, command="instance-join")
            trace = joins[1]["trace"]
            await server.event("frames.sent", trace=trace)
            await server.event("socket.served", trace=trace)
        assert await server.stop() == 0

    drawn = await reileta("trace", trace, "--log", server.log)
    assert (drawn.returncode, drawn.stderr) == (0, b"")
    text = drawn.stdout.decode("ascii")
    lines = text.splitlines()
    order = [
        next(number for number, line in enumerate(lines) if what in line)
        for what in ("instance-join, ", ": Join #", ": AddMember #", " frames to 2 sockets")
    ]
    assert order == sorted(order), text
    assert f"instance/{instance['id']}: AddMember" in text
    from_input = await trio.run_process(
        [sys.executable, "-m", "reileta", "trace", trace],
        stdin=server.log.read_bytes(),
        capture_stdout=True,
    )
    assert from_input.stdout == drawn.stdout

    diagram = (await reileta("trace", trace, "--log", server.log, "--mermaid")).stdout.decode(
        "ascii"
    )
    assert diagram.startswith("sequenceDiagram\n    participant p0 as socket ")
    assert "p0->>p1: Join (" in diagram
    assert "p1->>p2: AddMember (" in diagram


async def test_a_request_is_followed_by_the_id_in_its_answer(
    database_url: str, tmp_path: Path
) -> None:
    async with served(database_url, tmp_path, "--trace-sample", "1") as server:
        async with room_of_two(server) as (instance, first, _):
            answer = await server.http.delete(f"/api/instances/{instance['id']}")
            assert answer.status_code == 401
            left = await server.http.delete(
                f"/api/instances/{instance['id']}",
                headers={"Authorization": f"Bearer {server.tokens[0]}"},
            )
            assert left.status_code == 200
            await first.event("instance-left")
            trace = left.headers["X-Trace-Id"]
            await server.event("request.served", trace=trace)
        assert await server.stop() == 0
    text = (await reileta("trace", trace, "--log", server.log)).stdout.decode("ascii")
    beginning = text.splitlines()[3]
    assert "HTTP: DELETE /api/instances/" in beginning
    assert beginning.endswith("answered with 200")
    assert f"instance/{instance['id']}: CloseInstance #" in text
    assert f"instance/{instance['id']}: WorkDone #" in text
    assert " frames to 2 sockets" in text
    refused = await reileta("trace", answer.headers["X-Trace-Id"], "--log", server.log)
    assert b"answered with 401" in refused.stdout


async def test_an_instance_replays_as_it_was_and_its_file_holds_no_token(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    async with served(database_url, tmp_path, "--record", str(folder)) as server:
        async with room_of_two(server) as (instance, first, second):
            id_ = instance["id"]
            await first.say(id_, {"x": "\u65e5\u672c"}, key="pos", at=10**25)
            assert (await second.hear())["at"] == 10**25
            await second.say(id_, [1, 2], to=[first.id])
            await first.hear()
            await second.ask("instance-leave", {"instance": id_})
        assert await server.stop() == 0
    (path,) = folder.iterdir()
    assert path.name.startswith(f"{id_}.")
    assert path.stat().st_mode & 0o777 == 0o600
    data = path.read_bytes()
    assert all(token.encode() not in data for token in server.tokens)
    assert b"ua_" not in data

    replayed = await reileta("replay", path, "--steps")
    assert (replayed.returncode, replayed.stderr) == (0, b"")
    text = replayed.stdout.decode()
    assert "the instance stopped normally" in text
    assert "the replay matches the recording" in text
    assert 'key="pos", at=10000000000000000000000000' in text
    assert (await reileta("replay", path, "--steps")).stdout == replayed.stdout


async def test_what_a_killed_server_recorded_can_be_replayed(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "recordings"
    async with served(database_url, tmp_path, "--record", str(folder)) as server:
        async with room_of_two(server) as (instance, first, second):
            for number in range(50):
                await first.say(instance["id"], number)
            for _ in range(50):
                await second.hear()
        said = b" SendData, message "

        async def written() -> bool:
            """What gathers is written every 50 ms."""
            files = list(folder.glob("*"))
            if not files:
                return False
            return (await reileta("replay", *files, "--steps")).stdout.count(said) == 50

        await eventually(written)
        await server.stop(signal.SIGKILL)
    (path,) = folder.iterdir()
    text = (await reileta("replay", path, "--steps")).stdout.decode()
    assert text.count(said.decode()) == 50
    assert "the recording has no end: the server is still running, or was killed" in text
    assert "    players: 2" in text
    path.write_bytes(path.read_bytes()[:-3])
    cut = await reileta("replay", path, "--steps")
    assert cut.returncode == 0
    assert b"the last record is truncated, at byte " in cut.stdout
    assert cut.stdout.count(b" SendData, message ") == 50


async def test_a_folder_that_can_t_be_recorded_in_is_one_line(
    database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    done = await run(
        *("serve", "--port", "0", "--record", str(file), "--data", str(tmp_path / "data")),
        env={**os.environ, "REILETA_DATABASE": database_url},
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1] == f"reileta: can't use {file}: File exists"
