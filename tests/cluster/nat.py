"""An instance node behind a NAT: it reaches the server, and nothing reaches it.

    node 192.168.7.2 ── 192.168.7.1 ║ NAT ║ 10.231.0.254 ── bridge ── server 10.231.0.11

`test_nat.py` runs this as a process, in network namespaces of its own. The NAT has two halves. The
inner one takes connections under the address of the server, as the node knows it; the outer one
opens its own to the real server. No packet passes between them, so there is no way from outside to
the node.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx
import trio

from reileta.observability import log_events
from tests import forked
from tests.cluster.gate import Gate, tcp
from tests.cluster.spaces import Spaces, enter, network_of, run, within
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, connected
from tests.e2e.processes import Bot, ServerProcess, bots, eventually, serving

PORT: Final = 3032
HOME: Final = "192.168.7.2"
INNER: Final = "192.168.7.1"


def make_home(spaces: Spaces, gateway: str) -> None:
    """The node's machine, and the inner half of the NAT, which is its only neighbour."""
    for name in ("home", "inner"):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    ends = ("type", "veth", "peer", "name", "wire", "netns", "inner")
    run("ip", "-n", "home", "link", "add", "wire", *ends)
    for name, address in (("home", HOME), ("inner", INNER)):
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "wire")
        run("ip", "-n", name, "link", "set", "wire", "up")
    run("ip", "-n", "home", "route", "add", "default", "via", INNER)
    run("ip", "-n", "inner", "address", "add", f"{gateway}/32", "dev", "lo")


async def listen(machine: str, host: str) -> trio.SocketListener:
    """On that machine."""
    with within(machine):
        sock = trio.socket.socket()
    await sock.bind((host, PORT))
    sock.listen(16)
    return trio.SocketListener(sock)


async def unreachable(machine: str | None) -> bool:
    """Whether a connection from that machine to the node's fails."""
    with within(machine):
        sock = trio.socket.socket()
    with sock:
        try:
            await sock.connect((HOME, PORT))
        except OSError:
            return True
        return False


@asynccontextmanager
async def node_at_home(gateway: str, token: str) -> AsyncIterator[None]:
    """`reileta ins` on the machine behind the NAT."""
    process = await forked.start(
        *("ins", "--gateway", f"ws://{gateway}:{PORT}"),
        env={**os.environ, "REILETA_NODE_TOKEN": token},
        world={"network": str(network_of("home"))},
    )
    try:
        yield
    finally:
        process.terminate()
        with trio.fail_after(PATIENCE_S):
            await process.wait()


async def request(at: ServerProcess, by: Bot, method: str, path: str, **body: object) -> Json:
    headers = {"Authorization": f"Bearer {by.token}"}
    async with httpx.AsyncClient(base_url=at.url, timeout=PATIENCE_S) as client:
        answer = await client.request(method, path, json=body or None, headers=headers)
    assert answer.status_code == 200, answer.text
    data: Json = answer.json()["data"]
    return data


async def meet(server: ServerProcess, host: Bot, guest: Bot) -> None:
    """The host has an instance at home; a friend comes, and both speak."""
    made = await request(server, host, "PUT", "/api/nodes", title="Attic")
    node = f"/api/nodes/{made['id']}"

    async def online() -> bool:
        status: str = (await request(server, host, "GET", node))["status"]
        return status == "online"

    async with node_at_home(server.host, made["token"]):
        await eventually(online)
        world = await request(server, host, "PUT", "/api/worlds", title="Harbour")
        wanted = {"world": world["id"], "node": made["id"], "tags": ["avr:public"]}
        room = (await request(server, host, "PUT", "/api/instances", **wanted))["id"]
        async with connected(server, host) as one, connected(server, guest) as other:
            assert len((await one.join(room))["players"]) == 1
            welcome = await other.join(room)
            assert [len(welcome["players"]), welcome.get("direct")] == [2, None]
            for number in range(20):
                assert "error" not in await one.ask("instance-data", number, subgroup=room)
            assert [(await other.hear())["data"] for _ in range(20)] == list(range(20))
            await other.say(room, {"x": 1}, key="pose")
            assert (await one.hear())["data"] == {"x": 1}
            await other.say(room, "to you", to=[one.id])
            assert (await one.hear())["data"] == "to you"
            assert "error" not in await other.ask("instance-leave", {"instance": room})
            assert (await one.event("instance-left"))["data"]["player"] == other.id
            assert len((await other.join(room))["players"]) == 2
            await server.until_logged(log_events.NODE_LINKED)


async def main(database: str, folder: Path) -> None:
    spaces = Spaces.make()
    address = spaces.add("server", 11)
    make_home(spaces, address)
    host, guest = await bots(2, folder, "--database", database)
    options = (
        *("--database", database, "--data", str(folder / "data"), "--rate-limits", "off"),
        *("--host", address, "--port", str(PORT)),
    )
    async with (
        serving(*options, world={"network": str(network_of("server"))}) as server,
        trio.open_nursery() as nursery,
    ):
        inner = await listen("inner", address)
        nursery.start_soon(Gate(tcp(address, PORT)).serve, [inner])
        # The node's machine answers its neighbour, and nobody else has a way to it.
        async with await listen("home", HOME):
            assert not await unreachable("inner")
            assert await unreachable("server")
            assert await unreachable(None)
        await meet(server, host, guest)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("database")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    enter("tests.cluster.nat", sys.argv[1:])
    trio.run(main, arguments.database, arguments.folder)
