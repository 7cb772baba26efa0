"""Direct connections of the SDKs to an instance node, which is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import anyio
import pytest
from reileta_client import Client, ReiletaError, Room, connect

from tests.conftest import PATIENCE_S
from tests.ports import free_port
from tests.server_process import serving

pytestmark = pytest.mark.slow

LIMIT_S = 4 * PATIENCE_S
PASSWORD = "only an example"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port("127.0.0.1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[str]:
    data = tmp_path_factory.mktemp("server") / "data"
    options = (
        *("--rate-limits", "off", "--federation-allow", "127.0.0.0/8"),
        *("--federation-insecure", f"127.0.0.1:{port}"),
    )
    with serving(data, *options) as (url, _):
        yield url


@contextmanager
def node_process(server: str, token: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "reileta", "ins", "--gateway", server.replace("http", "ws")),
            *("--direct", f"127.0.0.1:{port}"),
        ],
        env={**os.environ, "REILETA_NODE_TOKEN": token},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def until(holds: Any) -> None:
    while not holds():
        await anyio.sleep(0.01)


async def entered(stack: AsyncExitStack, server: str, name: str) -> Client:
    client = await stack.enter_async_context(connect(server))
    await client.register(f"{name.lower()}_{os.getpid()}", PASSWORD, name)
    return client


def heard_by(room: Room) -> list[Any]:
    heard: list[Any] = []
    room.on("message", lambda told: heard.append(told[2]))
    return heard


def test_players_speak_over_the_node_and_go_on_without_it(server: str, port: int) -> None:
    # In a thread of its own: what other tests left behind in this one does not matter there.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: anyio.run(_speak, server, port, backend="trio")).result()


async def _speak(server: str, port: int) -> None:
    with anyio.fail_after(LIMIT_S):
        async with AsyncExitStack() as stack:
            ada = await entered(stack, server, "Ada")
            bob = await entered(stack, server, "Bob")
            eve = await entered(stack, server, "Eve")
            direct = {"address": f"127.0.0.1:{port}", "secure": False}
            node = await ada.http.put("/api/nodes", {"title": "Attic", "direct": direct})
            with node_process(server, node["token"], port) as process:
                while (await ada.http.get(f"/api/nodes/{node['id']}"))["status"] != "online":
                    await anyio.sleep(0.02)
                world = await ada.http.put("/api/worlds", {"title": "A meadow"})
                made = await ada.http.put(
                    "/api/instances",
                    {"world": world["id"], "node": node["id"], "tags": ["avr:public"]},
                )
                rooms = [await one.join(made["id"]) for one in (ada, bob, eve)]
                first, second, third = rooms
                heard = [heard_by(one) for one in rooms]
                await until(lambda: all(one.direct for one in rooms))
                for number in range(20):
                    await first.send(number)
                await until(lambda: all(len(one) == 20 for one in heard[1:]))
                assert heard == [[], list(range(20)), list(range(20))]
                first.set("pose", {"x": 1})
                await until(lambda: second.value(first.player, "pose") == {"x": 1})
                late = await entered(stack, server, "Late")
                room = await late.join(made["id"])
                assert room.value(first.player, "pose") == {"x": 1}
                # The node sends everything, so fewer values come over the server.
                await second.interest(rate=5)
                assert not second.direct
                with pytest.raises(ReiletaError, match="fewer values"):
                    await bob.connection.request("instance-ticket", subgroup=made["id"])
                await second.interest()
                await until(lambda: second.direct)
                # The server decides who is inside: a kick ends the direct connection at once.
                ended: list[Any] = []
                third.on("ended", ended.append)
                await first.moderate("kick", player=third.player)
                await until(lambda: ended)
                await first.moderate("mute", player=second.player)
                with pytest.raises(ReiletaError, match="not allowed"):
                    await second.send("muted")
                await first.moderate("unmute", player=second.player)
                process.kill()
                await until(lambda: not first.direct)
                back: list[Any] = []
                first.on("back", back.append)
            with node_process(server, node["token"], port):
                await until(lambda: back)
                while True:
                    try:
                        await second.send("again")
                        break
                    except ReiletaError:
                        await anyio.sleep(0.1)
                await until(lambda: "again" in heard[0])
