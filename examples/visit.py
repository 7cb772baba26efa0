"""A visit: a user of one server finds an instance of another server, and stands in it.

    .venv/bin/python examples/visit.py ann_example far.example [--instance NAME]

Ann logs in at her own server (`--server`). It lists the instances of the other one, and gets her a
token for it: she is a guest there. Then she talks to the other server itself. `docs/federation.md`
shows the same step by step.
"""

from __future__ import annotations

import argparse
from typing import Any

import httpx
from player import PASSWORD, Player, Refused, arguments, call, log_in, run, stay

TIMEOUT_S = 15
"""Her own server waits up to 5 s for the other one, and can ask it twice."""


async def find(http: httpx.AsyncClient, server: str, name: str | None) -> dict[str, Any]:
    """An instance of another server: that one, or the one with the most players."""
    if name is not None:
        return await call(http, "GET", f"/api/instances/{name}?server={server}")
    found = await call(http, "GET", f"/api/instances?server={server}&free=true")
    if not found["items"]:
        raise Refused(f"{server} has no instance with a free seat")
    instance: dict[str, Any] = max(found["items"], key=lambda one: one["connected"])
    return instance


async def main(options: argparse.Namespace) -> None:
    async with httpx.AsyncClient(base_url=options.server, timeout=TIMEOUT_S) as http:
        token = await log_in(http, options.username, options.password)
        http.headers["Authorization"] = f"Bearer {token}"
        instance = await find(http, options.far, options.instance)
        print(f"{instance['name']} on {instance['server']} has {instance['connected']} players")
        visit = await call(http, "POST", "/api/integrity", server=instance["server"])
        print(f"a guest there as {visit['user']}", flush=True)

    # From here on she talks to the other server.
    options.server = f"http{'s' if instance['secure'] else ''}://{instance['address']}"
    options.hint = "its instances are there, but its WebSocket can't be reached from here"
    async with Player.connected(options.server, visit["token"]) as player:
        await stay(player, instance["id"])


if __name__ == "__main__":
    parser = arguments("A user of one Reileta server visits another one.")
    parser.add_argument("username", help="at the own server; created if it does not exist")
    parser.add_argument("far", help="the address of the other server, such as far.example:3032")
    parser.add_argument("--instance", help="its name or id there; without it, any with a free seat")
    parser.add_argument("--password", default=PASSWORD, help=f"if not '{PASSWORD}'")
    run(main, parser.parse_args())
