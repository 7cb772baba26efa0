"""Services that act as users, over a real server: sockets, events, and how they end."""

from __future__ import annotations

import httpx

from tests import logs
from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected
from tests.e2e.servers import Account, ServerHarness, running

PATH = "/api/services/com.example.voice"


def header(account: Account) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.token}"}


async def a_token(client: httpx.AsyncClient, owner: Account) -> Account:
    """The account of the service, with a new token."""
    answer = await client.post(f"{PATH}/token", headers=header(owner))
    assert answer.status_code == 200
    data = answer.json()["data"]
    return Account(data["user"].partition("@")[0], "", "", data["token"])


async def ends(harness: ServerHarness, service: Account, client: httpx.AsyncClient) -> None:
    """The service's credential is refused by both APIs' endpoints, and for a socket."""
    for path in ("/api/users/@me", "/session"):
        assert (await client.get(path, headers=header(service))).status_code == 401


async def test_a_service_joins_hears_of_events_and_ends_with_its_token(database_url: str) -> None:
    with logs.restored():
        async with (
            running(database_url, rate_limits="off") as harness,
            httpx.AsyncClient(
                base_url=f"http://{harness.host}:{harness.port}", timeout=PATIENCE_S
            ) as client,
        ):
            root, ann = await harness.account("root", admin=True), await harness.account("ann")
            body = {"id": "com.example.voice", "title": "Voice"}
            await client.put("/api/services", json=body, headers=header(ann))
            room = (await harness.instance(ann)).id
            service = await a_token(client, ann)
            async with connected(harness, service) as voice, connected(harness, ann) as owner:
                await voice.ask("subscribe", {"event": "all"})
                await owner.join(room)
                await voice.join(room)
                await owner.say(room, "hello")
                assert (await voice.hear())["data"] == "hello"
                await client.put("/api/worlds", json={"title": "Meadow"}, headers=header(ann))
                await voice.event("update-world")
                hidden = {"title": "Cellar", "tags": ["avr:private"]}
                await client.put("/api/worlds", json=hidden, headers=header(root))
                own = {"title": "Farm"}
                await client.put("/api/nodes", json=own, headers=header(service))
                seen = await voice.until(lambda one: one.get("command", "").startswith("update-"))
                assert seen["command"] == "update-node"  # not the hidden world
                second = await a_token(client, ann)
                assert (await voice.closed())[0] == 4000
                left = await owner.until(lambda one: one.get("command") == "instance-left")
                assert left["subgroup"] == room
            await ends(harness, service, client)
            assert second.id == service.id
            async with connected(harness, second) as voice:
                await voice.join(room)
                path = f"/api/users/{ann.id}/suspension"
                await client.post(path, json={}, headers=header(root))
                assert (await voice.closed())[0] == 4000
            await ends(harness, second, client)
            await client.delete(path, headers=header(root))
            third = await a_token(client, root)
            async with connected(harness, third) as voice:
                await client.delete(PATH, headers=header(root))
                assert (await voice.closed())[0] == 4000
            await ends(harness, third, client)
