"""Hosting: runs an instance node on this machine, opens an instance on it, and joins it.

    .venv/bin/python examples/host_a_node.py ann_example [--server https://play.example.org]

The server needs no way to this machine: the node connects to it. `examples/host_a_node.md` tells
what happens, step by step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from player import PASSWORD, Player, Refused, arguments, call, log_in, run, stay

ONLINE_S = 30
"""Time for which a new node may need to connect."""


async def own(http: httpx.AsyncClient, noun: str, title: str) -> dict[str, Any] | None:
    """The user's own node or world of that title."""
    found = await call(http, "GET", f"/api/{noun}?owner=@me&limit=100")
    return next((one for one in found["items"] if one["title"] == title), None)


async def node_with_token(http: httpx.AsyncClient, title: str) -> tuple[str, str]:
    """The id of the user's node, and a token for it. The server never shows a token again, so a
    node of an earlier run gets a new one."""
    node = await own(http, "nodes", title)
    if node is None:
        made = await call(http, "PUT", "/api/nodes", title=title)
    else:
        made = await call(http, "POST", f"/api/nodes/{node['id']}/token")
        await call(http, "POST", f"/api/nodes/{node['id']}/drain", on=False)
    return made["id"], made["token"]


@asynccontextmanager
async def hosting(server: str, token: str) -> AsyncIterator[trio.Process]:
    """Runs `reileta ins`. The token is in its environment, where no list of processes shows it."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "reileta", "ins", "--gateway", server.replace("http", "ws", 1)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, "REILETA_NODE_TOKEN": token},
    )
    try:
        yield process
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def until_online(http: httpx.AsyncClient, node: str, process: trio.Process) -> None:
    """Waits until the server has the node's link."""
    with trio.move_on_after(ONLINE_S):
        while process.poll() is None:
            if (await call(http, "GET", f"/api/nodes/{node}"))["status"] == "online":
                return
            await trio.sleep(0.1)
    raise Refused("the node does not connect: see what it says above")


async def main(options: argparse.Namespace) -> None:
    async with httpx.AsyncClient(base_url=options.server) as http:
        user_token = await log_in(http, options.username, options.password)
        http.headers["Authorization"] = f"Bearer {user_token}"
        node, node_token = await node_with_token(http, options.title)
        async with hosting(options.server, node_token) as process:
            await until_online(http, node, process)
            print(f"the node {options.title}, {node}, runs on this machine")
            world = await own(http, "worlds", options.title)
            if world is None:
                world = await call(http, "PUT", "/api/worlds", title=options.title, capacity=16)
            instance = await call(
                http, "PUT", "/api/instances", world=world["id"], title=options.title, node=node
            )
            print(f"and hosts the instance {instance['name']}: give this name to your friends")
            try:
                async with Player.connected(options.server, user_token) as player:
                    await stay(player, instance["id"])
            finally:
                with trio.move_on_after(5, shield=True):
                    await call(http, "DELETE", f"/api/instances/{instance['id']}")


if __name__ == "__main__":
    parser = arguments("Hosts an instance on this machine.")
    parser.add_argument("username", help="created if it does not exist")
    parser.add_argument("--password", default=PASSWORD, help=f"if not '{PASSWORD}'")
    parser.add_argument("--title", default="Attic", help="of the node, the world and the instance")
    run(main, parser.parse_args())
