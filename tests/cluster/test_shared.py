"""Two nodes over a real bus: what is done at one is known at the other."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.cluster.conftest import Ground
from tests.e2e.clients import connected
from tests.e2e.processes import Bot, ServerProcess, eventually, new_instance

Json = dict[str, Any]
PASSWORD = "a long password of a test"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def data_of(node: ServerProcess, path: str, token: str | None = None) -> Any:
    async with node.ask() as client:
        answer = await client.get(path, headers=bearer(token) if token else {})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


async def registered(node: ServerProcess, name: str) -> Json:
    async with node.ask() as client:
        account = {"username": name, "password": PASSWORD, "displayname": name}
        answer = await client.post("/api/auth/register", json=account)
        assert answer.status_code == 200, answer.text
        data: Json = answer.json()["data"]
        return data


async def befriended(node: ServerProcess, one: Bot, two: Bot) -> None:
    async with node.ask() as client:
        for bot, other in ((one, two), (two, one)):
            user = await data_of(node, "/api/users/@me", other.token)
            path = f"/api/users/@me/follows/{user['id']}"
            answer = await client.put(path, headers=bearer(bot.token))
            assert answer.status_code == 200, answer.text


async def test_status_lists_and_events_are_the_same_at_every_node(ground: Ground) -> None:
    ada, ben = await ground.bots(2)
    async with ground.node("a") as a, ground.node("b") as b:
        me = await data_of(a, "/api/users/@me", ada.token)
        await befriended(a, ada, ben)
        room = await new_instance(a, ada)

        async def status() -> str:
            status: str = (await data_of(b, "/api/users/@me", ada.token))["status"]
            return status

        async def is_online() -> bool:
            return await status() != "offline"

        async def is_offline() -> bool:
            return await status() == "offline"

        async def players() -> bool:
            instance: Json = await data_of(b, f"/api/instances/{room}", ben.token)
            return bool(instance["connected"])

        async with connected(b, ben) as watching:
            for event in ("update-user", "update-instance", "instance-joined"):
                answer = await watching.ask("subscribe", {"event": event})
                assert "error" not in answer, answer
            assert await is_offline()
            async with connected(a, ada) as player:
                await eventually(is_online)
                await watching.until(lambda one: told(one, "update-user", me["id"]))
                await player.join(room)
                await eventually(players)
                joined = await watching.event("instance-joined")
                assert joined["subgroup"] == room
            await eventually(is_offline)
            async with a.ask() as client:
                renamed = await client.post(
                    "/api/users/@me", json={"displayname": "Ada L."}, headers=bearer(ada.token)
                )
                assert renamed.status_code == 200, renamed.text
            news = await watching.until(
                lambda one: (
                    told(one, "update-user", me["id"])
                    and one["data"].get("displayname") == "Ada L."
                )
            )
            assert news["data"]["displayname"] == "Ada L."


def told(message: Json, command: str, id_: str) -> bool:
    return message.get("command") == command and (message.get("data") or {}).get("id") == id_


async def test_a_token_that_ends_at_one_node_closes_its_sockets_at_all(ground: Ground) -> None:
    async with ground.node("a") as a, ground.node("b") as b:
        account = await registered(a, "ada")
        bot = Bot(account["token"])
        async with connected(b, bot) as one, connected(a, bot) as two:
            async with a.ask() as client:
                answer = await client.delete("/api/auth/logout", headers=bearer(bot.token))
                assert answer.status_code == 200, answer.text
            for player in (one, two):
                code, _ = await player.closed()
                assert code == 4000, code
        async with b.ask() as client:
            answer = await client.get("/api/users/@me", headers=bearer(bot.token))
            assert answer.status_code == 401, answer.text


async def test_guesses_of_a_password_over_two_nodes_get_one_burst(ground: Ground) -> None:
    async with ground.node("a") as a, ground.node("b") as b:
        await registered(a, "ada")
        passed = 0
        async with a.ask() as first, b.ask() as second:
            for number in range(30):
                client = (first, second)[number % 2]
                passed += await guess(client) != 429
        assert passed == 20


async def guess(client: httpx.AsyncClient) -> int:
    wrong = {"username": "ada", "password": "not the password"}
    return (await client.post("/api/auth/login", json=wrong)).status_code


async def test_nodes_that_lose_nats_agree_again_when_it_is_back(ground: Ground) -> None:
    (ada,) = await ground.bots(1)
    async with ground.node("a") as a, ground.node("b") as b:

        async def status() -> bool:
            return bool((await data_of(b, "/api/users/@me", ada.token))["status"] != "offline")

        await ground.nats.kill()
        async with connected(a, ada):
            await ground.nats.start()
            await eventually(status)


@pytest.mark.parametrize("where", ["a", "b"])
async def test_an_asset_that_is_uploaded_at_one_node_is_there_at_all(
    ground: Ground, where: str
) -> None:
    (ada,) = await ground.bots(1)
    async with ground.node("a") as a, ground.node("b") as b:
        node = a if where == "a" else b
        async with node.ask() as client:
            made = await client.put(
                "/api/worlds", json={"title": "Harbour"}, headers=bearer(ada.token)
            )
            world = made.json()["data"]["id"]
            build = {"version": "1.2", "engine": "unity", "platform": "windows"}
            assets = f"/api/worlds/{world}/assets"
            made = await client.put(assets, json=build, headers=bearer(ada.token))
            file = f"{assets}/{made.json()['data']['id']}/file"
            stored = await client.post(file, content=b"PK" * 1000, headers=bearer(ada.token))
            assert stored.status_code == 200, stored.text
        for other in (a, b):
            async with other.ask() as client:
                got = await client.get(file, headers=bearer(ada.token))
                assert got.status_code == 200, got.text
                assert got.content == b"PK" * 1000


async def test_events_of_an_instance_come_once_wherever_it_lives(ground: Ground) -> None:
    ada, ben, cy = await ground.bots(3)
    async with ground.node("a") as a, ground.node("b") as b:
        room = await new_instance(a, ada)
        async with connected(a, ada) as host:
            await host.join(room)
            async with connected(b, ben) as player, connected(b, cy) as watching:
                for one in (player, watching):
                    for event in ("instance-joined", "instance-left"):
                        answer = await one.ask("subscribe", {"event": event})
                        assert "error" not in answer, answer
                await player.join(room)
                joined = await watching.event("instance-joined")
                assert joined["subgroup"] == room
                await player.ask("instance-leave", {"instance": room})
                for one in (watching, host):
                    left = await one.event("instance-left")
                    assert left["data"]["player"] == player.id, left
                # A round trip through the host: what comes twice has come by now.
                await player.join(room)
                await watching.event("instance-joined")
                await player.ask("ping")
                for one in (watching, player):
                    names = [skipped["command"] for skipped in one.skipped]
                    assert names.count("instance-left") <= (one is player), one.skipped
