"""Instances on an instance node that is linked to one of several processes, all real."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from reileta.errors import InstanceAway
from tests import forked
from tests.cluster.conftest import Ground
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected
from tests.e2e.processes import Bot, ServerProcess, eventually


@asynccontextmanager
async def instance_node(gateway: ServerProcess, token: str) -> AsyncIterator[None]:
    """`reileta ins`, linked to that process."""
    env = {**os.environ, "REILETA_NODE_TOKEN": token}
    process = await forked.start("ins", "--gateway", f"ws://127.0.0.1:{gateway.port}", env=env)
    try:
        yield
    finally:
        process.terminate()
        with trio.fail_after(PATIENCE_S):
            await process.wait()


async def request(
    served: ServerProcess, owner: Bot, method: str, path: str, **body: object
) -> Json:
    headers = {"Authorization": f"Bearer {owner.token}"}
    async with served.ask() as client:
        answer = await client.request(method, path, json=body or None, headers=headers)
        assert answer.status_code == 200, answer.text
        data: Json = answer.json()["data"]
        return data


async def hears(player: Player, data: object) -> None:
    while (await player.event("instance-data"))["data"]["data"] != data:
        pass


async def join(player: Player, room: str) -> Json:
    """Enters, again while the node is away: its link ends if this machine stands still for long."""
    with trio.fail_after(PATIENCE_S):
        while "error" in (answer := await player.ask("instance-join", {"instance": room})):
            assert answer["error"]["code"] == InstanceAway.code, answer
            await trio.sleep(0.1)
    data: Json = answer["data"]
    return data


async def test_an_instance_is_where_the_link_of_its_node_is(ground: Ground) -> None:
    owner, guest = await ground.bots(2)
    # `b` is a gateway that hosts no instances, but those of the nodes that are linked to it.
    async with ground.node("a") as a, ground.node("b", "--role", "eta,reil") as b:
        made = await request(a, owner, "PUT", "/api/nodes", title="Attic")
        node = f"/api/nodes/{made['id']}"

        async def online() -> bool:
            status: str = (await request(a, owner, "GET", node))["status"]
            return status == "online"

        async with instance_node(b, made["token"]):
            await eventually(online)
            world = await request(a, owner, "PUT", "/api/worlds", title="Harbour")
            room = await request(
                a,
                owner,
                "PUT",
                "/api/instances",
                world=world["id"],
                node=made["id"],
                tags=["avr:public"],
            )
            async with connected(a, owner) as host, connected(b, guest) as player:
                joined = await join(host, room["id"])
                await join(player, room["id"])
                await host.say(room["id"], {"from": "a"}, key="k")
                await hears(player, {"from": "a"})
                await player.say(room["id"], {"from": "b"})
                await hears(host, {"from": "b"})
                assert "error" not in await host.ask("instance-data", 1, subgroup=room["id"])
                b.process.kill()
                await b.ended()
                async with instance_node(a, made["token"]):
                    restored = await host.event("instance-restored")
                    while "error" in await host.ask("instance-data", 1, subgroup=room["id"]):
                        await host.event("instance-restored")
                    assert restored["data"]["player"] == joined["player"]
                    async with connected(a, guest) as again:
                        welcome = await join(again, room["id"])
                        assert len(welcome["players"]) == 2
                        await again.say(room["id"], {"again": True})
                        await hears(host, {"again": True})
