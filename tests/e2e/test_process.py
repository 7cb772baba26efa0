"""A server in a process of its own: signals, sudden death, a database that goes away, its logs."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import trio

from tests.conftest import PATIENCE_S
from tests.e2e import processes
from tests.e2e.clients import CLOSE, Player, RawClient, connected, frame, text
from tests.e2e.processes import Bot, ServerProcess, bots, eventually, new_instance
from tests.ports import free_port

serving = partial(processes.serving, fresh=True)
SHUTDOWN_S = 8
CLOSED = re.compile(rb"\x88.(..)come back in (\d+) s\Z", re.DOTALL)


class BusyClient:
    """One of many clients: it reads in bulk, and may speak."""

    def __init__(self, client: RawClient, place: str) -> None:
        self._client = client
        self._say = text({"command": "instance-data", "subgroup": place, "data": "x" * 100})
        self._stopped = False
        self._sending = trio.Lock()
        self.received = 0

    async def speak(self, begin: trio.Event) -> None:
        """Says something 20 times a second, until the server has said goodbye."""
        await begin.wait()
        with suppress(trio.BrokenResourceError):
            while not self._stopped:
                async with self._sending:
                    await self._client.send(self._say)
                await trio.sleep(0.05)

    async def listen(self) -> tuple[int, int] | None:
        """Reads until the server's goodbye: the close code, and when it says to come back. None: it
        ended without one."""
        tail, found = b"", None
        with suppress(trio.BrokenResourceError):
            while (found := CLOSED.search(tail)) is None:
                chunk = await self._client.stream.receive_some(65_536)
                if not chunk:
                    break
                self.received += len(chunk)
                tail = (tail + chunk)[-64:]
        self._stopped = True
        if found is None:
            return None
        with suppress(trio.BrokenResourceError):
            async with self._sending:
                await self._client.send(frame(CLOSE, found[1]))
        return int.from_bytes(found[1]), int(found[2])


async def test_sigterm_under_load(database_url: str, tmp_path: Path) -> None:
    """200 clients in one instance, of which 20 speak; one more does not read."""
    where = ("--database", database_url)
    people = await bots(201, tmp_path, *where)
    data = ("--data", str(tmp_path / "data"))
    options = ("--rate-limits", "off", "--shutdown-s", str(SHUTDOWN_S))
    async with serving(*where, *data, *options) as served:
        place = await new_instance(served, people[0])
        goodbyes: list[tuple[int, int]] = []
        cut_at: list[float] = []
        visitors: list[BusyClient] = []
        all_inside = trio.Event()

        async def visit(bot: Bot, number: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with RawClient.connected(served) as client:
                await client.enter(bot, place)
                visitors.append(visitor := BusyClient(client, place))
                task_status.started()
                async with trio.open_nursery() as nursery:
                    if number % 10 == 0:
                        nursery.start_soon(visitor.speak, all_inside)
                    if (goodbye := await visitor.listen()) is not None:
                        goodbyes.append(goodbye)
                    else:
                        cut_at.append(time.monotonic())

        async with (
            trio.open_nursery() as clients,
            RawClient.connected(served, receive_buffer=8192) as deaf,
        ):
            await deaf.enter(people[200], place)
            for number, bot in enumerate(people[:200]):
                await clients.start(visit, bot, number)
            all_inside.set()
            with trio.fail_after(PATIENCE_S):
                while min(one.received for one in visitors) < 100_000:
                    await trio.sleep(0.02)
            started = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            assert await served.ended() == 0
            assert time.monotonic() - started < 2 * SHUTDOWN_S
        # On a busy machine they may be so slow that they are cut, but not before half of the time.
        assert len(goodbyes) + len(cut_at) == 200
        assert min(cut_at, default=math.inf) - started >= SHUTDOWN_S / 2
        assert {code for code, _ in goodbyes} <= {1001}
        if not cut_at:
            assert len({after_s for _, after_s in goodbyes}) > 3, "they would all come back at once"
        assert not [line for line in served.log if "exception" in json.loads(line)]
        assert "Traceback" not in served.errors


async def test_a_second_sigterm_stops_it_at_once(database_url: str, tmp_path: Path) -> None:
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    (ada,) = await bots(1, tmp_path, *where[:2])
    async with (
        serving(*where, "--shutdown-s", "600") as served,
        RawClient.connected(served) as rude,
        RawClient.connected(served) as slow,
    ):
        await rude.enter(ada)
        # The server waits for the rest, for 15 s or more.
        await slow.send(b"POST /auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        served.process.send_signal(signal.SIGTERM)
        while (await rude.frame()).opcode != CLOSE:  # it is told, and does not answer
            pass
        served.process.send_signal(signal.SIGTERM)
        assert await served.ended(within_s=10) == 0
        assert "Traceback" not in served.errors


async def test_ctrl_c_while_the_database_is_made_is_no_failure(data_folder: Path) -> None:
    """A terminal sends SIGINT to every process of its foreground group."""
    command = [sys.executable, "-m", "reileta", "serve", "--port", "0", "--data", str(data_folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
    )
    with process:
        try:
            with trio.fail_after(PATIENCE_S):
                while not (data_folder / "postgres.new" / "PG_VERSION").exists():
                    assert process.poll() is None
                    await trio.sleep(0.01)
                os.killpg(process.pid, signal.SIGINT)
                _, errors = await trio.to_thread.run_sync(
                    process.communicate, abandon_on_cancel=True
                )
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"reileta:" not in errors
    async with serving("--data", str(data_folder)):
        pass


async def test_what_was_acknowledged_outlives_a_kill(data_folder: Path, tmp_path: Path) -> None:
    """`kill -9` under writes, and a start on the same folder, with its PostgreSQL left behind."""
    data = ("--data", str(data_folder), "--rate-limits", "off")
    acknowledged: list[str] = []
    async with serving(*data) as served:
        (ada,) = await bots(1, tmp_path, *data[:2])
        headers = {"Authorization": f"Bearer {ada.token}"}
        place = await new_instance(served, ada)

        async def write() -> None:
            async with served.ask() as client:
                number = 0
                while True:
                    wanted = {"title": f"World {number}"}
                    try:
                        made = await client.put("/api/worlds", json=wanted, headers=headers)
                        acknowledged.append(made.json()["data"]["id"])
                    except httpx.HTTPError:
                        return
                    number += 1

        async with trio.open_nursery() as nursery, connected(served, ada) as player:
            await player.join(place)
            for _ in range(3):
                nursery.start_soon(write)
            with trio.fail_after(PATIENCE_S):
                while len(acknowledged) < 30:
                    await trio.sleep(0.01)
            served.process.kill()
            await served.ended()
            nursery.cancel_scope.cancel()
    async with serving(*data) as again:
        async with again.ask() as client:
            for id_ in acknowledged:
                found = await client.get(f"/api/worlds/{id_}", headers=headers)
                assert found.status_code == 200, id_
        async with connected(again, ada) as back:  # its seat is held only if the join was written
            await back.join(place)


def postmaster(served: ServerProcess) -> psutil.Process:
    """The server's own PostgreSQL."""
    (found,) = [
        child
        for child in psutil.Process(served.process.pid).children()
        if "postgres" in child.name()
    ]
    return found


async def test_players_go_on_when_postgresql_dies(data_folder: Path, tmp_path: Path) -> None:
    data = ("--data", str(data_folder), "--rate-limits", "off")
    async with serving(*data) as served:
        ada, bob, eve = await bots(3, tmp_path, *data[:2])
        place = await new_instance(served, ada)
        headers = {"Authorization": f"Bearer {eve.token}"}
        async with (
            connected(served, ada) as one,
            connected(served, bob) as two,
            served.ask() as client,
        ):
            await one.join(place)
            await two.join(place)
            killed = postmaster(served)
            killed.kill()

            async def refused() -> httpx.Response | None:
                answer = await client.get("/api/worlds", headers=headers)
                if answer.status_code == 503:
                    return answer
                with suppress(ValueError, psutil.NoSuchProcess):
                    if (another := postmaster(served)) != killed:
                        another.kill()  # it came back before anybody asked
                return None

            async def recovered() -> bool:
                return (await client.get("/api/worlds", headers=headers)).is_success

            response: httpx.Response = await eventually(refused)
            assert int(response.headers["Retry-After"]) >= 1
            assert response.json()["error"]["message"]
            # Meanwhile: data, pings, and an upgrade that needs the database.
            await exchange(one, two, place)
            async with RawClient.connected(served) as late:
                answer = await late.upgrade(eve)
                assert answer.status in (101, 503)
                if answer.status == 503:
                    assert int(answer.headers["retry-after"]) >= 1
            await eventually(recovered)
            await exchange(one, two, place)
            async with connected(served, eve) as late_player:
                await late_player.join(place)
        assert "Traceback" not in served.errors


async def exchange(one: Player, two: Player, place: str) -> None:
    for number in range(50):
        await one.say(place, number)
        assert (await two.hear())["data"] == number
    assert (await two.ask("ping"))["command"] == "ping"


async def test_no_secret_is_in_any_log(data_folder: Path) -> None:
    """Everything that carries a secret, at level debug; and then nothing of it in any output."""
    password, email = "my-very-secret-passphrase", "ada.lovelace@example.org"
    options = ("--data", str(data_folder), "--log-level", "debug", "--trace-sample", "1")
    secrets = [password, email]
    async with serving(*options) as served:
        async with served.ask() as client:
            made = await client.post(
                "/api/auth/register",
                json={"username": "ada", "password": password, "email": email},
            )
            secrets += [made.json()["data"]["token"], made.json()["data"]["refresh"]]
            for body in (
                {"username": "ada", "password": password},
                {"username": "ada", "password": "wrong-" + password},
                {"username": "ada", "password": password, "email": email, "more": password},
                {"username": password, "password": email},
            ):
                answer = await client.post("/api/auth/login", json=body)
                if answer.is_success:
                    secrets += [answer.json()["data"]["token"], answer.json()["data"]["refresh"]]
            made = await client.post(
                "/api/auth/register",
                json={"username": "ada", "password": password, "email": email},
            )
            assert made.status_code == 400
            token = secrets[2]
            client.cookies.clear()
            for ask in (
                client.get("/api/users/@me", params={"authuser": token}),
                client.get("/api/nothing", params={"authuser": token}),
                client.get(f"/api/users/{token}", headers={"Authorization": token}),
                client.get("/api/users/@me", headers={"Authorization": f"Basic {token}"}),
                client.get("/api/users/@me", headers={"Cookie": f"_suid={token}"}),
                client.put(
                    "/api/worlds", content=b"{" + token.encode(), headers={"Authorization": token}
                ),
            ):
                await ask
        ada = Bot(token)
        place = await new_instance(served, ada)
        async with connected(served) as player:
            payload = "what-players-say-is-theirs"
            secrets.append(payload)
            assert "error" not in await player.ask("authenticate", {"token": token})
            await player.ask("authenticate", {"token": "ua_" + token[3:][::-1]})
        async with connected(served, path=f"/api/ws?authuser={token}") as player:
            await player.join(place)
            await player.say(place, payload, key=payload)
            await player.ask("instance-data", payload, subgroup=place, to=[payload])
            await player.ask(payload)
            await player.ask("subscribe", {"event": token, "target": token})
            await player.socket.send_message('{"command":"' + token)
        async with RawClient.connected(served) as client_:
            await client_.upgrade(None, f"X-Broken Header: {token}")
        async with RawClient.connected(served) as client_:
            await client_.upgrade(ada, "Sec-WebSocket-Key: " + token)
        async with served.ask() as client:
            bearer = {"Authorization": f"Bearer {token}"}
            await client.get("/metrics", headers=bearer)
            assert (await client.delete("/api/auth/logout", headers=bearer)).is_success
        served.process.terminate()
        assert await served.ended() == 0
        shown = re.search(r"password: (\S+)", served.errors)
        assert shown is not None, "the administrator's password is shown on the terminal, once"
        secrets.append(shown[1])
        everything = "\n".join(served.log) + served.errors.replace(shown[1], "", 1)
        everything += (data_folder / "postgres.log").read_text(errors="replace")
        assert len(served.log) > 50
        for secret in secrets:
            for piece in (secret, secret[5:25]):
                assert piece not in everything, f"{secret!r} is in the log"
        assert "Traceback" not in everything


async def test_the_port_is_free_again_and_a_folder_is_one_servers(
    database_url: str, tmp_path: Path
) -> None:
    where = ("--database", database_url, "--data", str(tmp_path / "data"))
    port = str(free_port())
    async with serving(*where, "--port", port) as served:
        assert served.port == int(port)
    async with serving(*where, "--port", port) as served:
        assert served.port == int(port)
        taken = await trio.run_process(
            [sys.executable, "-m", "reileta", "serve", "--port", port, *where],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        assert taken.returncode == 1
        assert len(taken.stderr.splitlines()) == 1
        assert b"in use" in taken.stderr
