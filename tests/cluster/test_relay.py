"""Players of one instance at several nodes, over real NATS."""

from __future__ import annotations

from tests.cluster.conftest import Ground
from tests.cluster.test_two_nodes import command
from tests.e2e.clients import connected
from tests.e2e.processes import new_instance


async def test_players_at_two_nodes_are_together_and_stay_when_the_host_dies(
    ground: Ground,
) -> None:
    owner, guest, third = await ground.bots(3)
    async with ground.node("a") as a:
        b = await ground.start("b")
        room = await new_instance(a, owner)
        async with (
            connected(a, owner) as host,
            connected(b, guest) as player,
            connected(b, third) as other,
        ):
            await host.join(room)
            joined = await player.join(room)
            await other.join(room)
            await host.say(room, {"from": "a"})
            assert (await player.event("instance-data"))["data"]["data"] == {"from": "a"}
            await player.say(room, {"from": "b"})
            assert (await host.event("instance-data"))["data"]["data"] == {"from": "b"}
            assert (await other.event("instance-data"))["data"]["data"] == {"from": "a"}
            assert (await other.event("instance-data"))["data"]["data"] == {"from": "b"}
            answer = await player.ask("instance-data", {"data": 1}, subgroup=room)
            assert "error" not in answer
            a.process.kill()
            await a.ended()
            restored = await player.event("instance-restored")
            assert restored["data"]["player"] == joined["player"]
            await other.event("instance-restored")
            await player.say(room, {"again": True})
            while (await other.event("instance-data"))["data"]["data"] != {"again": True}:
                pass


async def test_players_of_a_drained_node_stay_inside_at_the_new_host(ground: Ground) -> None:
    owner, guest = await ground.bots(2)
    async with ground.node("a") as a:
        await ground.start("b")
        room = await new_instance(a, owner)
        async with connected(a, owner) as host, connected(a, guest) as player:
            await host.join(room)
            joined = await player.join(room)
            await host.say(room, {"kept": True}, key="k")
            await player.event("instance-data")
            answer = await host.ask("instance-data", 1, subgroup=room)  # all before is written
            assert "error" not in answer
            assert "takes no more" in await command(ground, "node", "drain", "a")
            await host.say(room, {"moved": True})
            while (await player.event("instance-data"))["data"]["data"] != {"moved": True}:
                pass
            again = await player.join(room)
            assert again["player"] == joined["player"]
            assert [one["data"] for one in again["retained"]] == [{"kept": True}]
