"""Two players meet: creates a world and an instance, Ann and Bob join it, and they talk.

.venv/bin/python examples/two_players.py [--server http://127.0.0.1:3032]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import httpx
from player import Player, arguments, call, log_in, run


async def tell(name: str, player: Player, event: str) -> None:
    """Waits for the next event of that name and prints it."""
    while (message := await player.receive())["command"] != event:
        pass
    print(f"{name} gets {event}: {json.dumps(message['data'])}")


async def main(options: argparse.Namespace) -> None:
    server = options.server
    async with httpx.AsyncClient(base_url=server) as http:
        ann_token = await log_in(http, "ann_example")
        bob_token = await log_in(http, "bob_example")
        http.headers["Authorization"] = f"Bearer {ann_token}"
        world = await call(http, "PUT", "/api/worlds", title="A meadow", capacity=16)
        print(f"Ann makes the world {world['id']}")
        instance = await call(http, "PUT", "/api/instances", world=world["id"], title="Picnic")
        print(f"and the instance {instance['name']}, {instance['id']}")

    async with (
        Player.connected(server, ann_token) as ann,
        Player.connected(server, bob_token) as bob,
    ):
        print("Ann is inside with", _names(await ann.join(instance["id"])))
        await ann.keep("position", {"x": 1.5, "y": 0, "z": -2})
        joined = await bob.join(instance["id"])
        print("Bob is inside with", _names(joined))
        print("and finds", json.dumps(joined["retained"]))
        await tell("Ann", ann, "instance-joined")
        await ann.send({"say": "Hello, Bob"})
        await tell("Bob", bob, "instance-data")
        await bob.send({"say": "Hello, Ann"})
        await tell("Ann", ann, "instance-data")


def _names(joined: dict[str, Any]) -> str:
    return ", ".join(player["displayname"] for player in joined["players"])


if __name__ == "__main__":
    run(main, arguments("Two players meet in an instance.").parse_args())
