"""A server and its users are the same, however their address is spelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected
from tests.e2e.servers import Account, ServerHarness, running

OWN = "play.example.org"
OWN_SPELLINGS = [
    "play.example.org",
    "PLAY.Example.org",
    "play.example.org.",
    "Play.example.org:443",
]
OTHER = "u_00000000-0000-4000-8000-000000000001@xn--bcher-kva.example"
OTHER_SPELLINGS = [
    "u_00000000-0000-4000-8000-000000000001@" + server
    for server in (
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.example.",
        "bücher.example",
        "BÜCHER.example:443",
    )
]
NOT_ADDRESSES = ["0x7f.1", "a..b", "[::ffff:127.0.0.1]", "u@h", "h:0"]


@asynccontextmanager
async def served(database_url: str) -> AsyncIterator[tuple[ServerHarness, Account]]:
    async with running(database_url, address="Play.Example.ORG.:443", rate_limits="off") as harness:
        assert harness.address == OWN
        yield harness, await harness.account("ada")


def web(harness: ServerHarness, account: Account) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=harness.server.url,
        headers={"Authorization": f"Bearer {account.token}"},
        timeout=PATIENCE_S,
    )


async def data(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def test_this_server_by_each_spelling(database_url: str) -> None:
    async with served(database_url) as (harness, ada), web(harness, ada) as http:
        assert (await data(await http.get("/.well-known/avr")))["address"] == OWN
        place = await harness.instance(ada)
        for server in OWN_SPELLINGS:
            for path in (f"/api/users/ada@{server}", f"/api/users/@me?server={server}"):
                assert (await data(await http.get(path)))["id"] == ada.id
            listed = await data(await http.get(f"/api/instances@{server}?server={server}"))
            assert [one["id"] for one in listed["items"]] == [place.id]
            shown = await data(await http.get(f"/api/instances?owner={ada.id}@{server}"))
            assert [one["id"] for one in shown["items"]] == [place.id]
            async with connected(harness, ada) as player:
                joined = await player.join(f"{place.id}@{server}")
                assert joined["instance"] == place.id
                said = await player.ask("instance-data", 1, subgroup=f"{place.id}@{server}")
                assert "error" not in said
        for server in NOT_ADDRESSES:
            answer = await http.get("/api/users/ada", params={"server": server})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, 5)


async def test_a_user_of_another_server_is_followed_once(database_url: str) -> None:
    async with served(database_url) as (harness, ada), web(harness, ada) as http:
        made = await data(await http.put(f"/api/users/@me/follows/{OTHER_SPELLINGS[2]}"))
        assert made["user"] == OTHER
        for spelling in OTHER_SPELLINGS:
            answer = await http.put(f"/api/users/@me/follows/{spelling}")
            assert answer.json()["error"]["code"] == 37
        for spelling in OTHER_SPELLINGS:
            await data(await http.delete(f"/api/users/@me/follows/{spelling}"))
            await data(await http.put(f"/api/users/@me/follows/{spelling}"))
        listed = await data(await http.get("/api/users/@me/follows"))
        assert [one["user"] for one in listed["items"]] == [OTHER]
        bob = await harness.account("bob")
        for server in OWN_SPELLINGS:
            await data(await http.put(f"/api/users/@me/follows/{bob.id}@{server}"))
            await data(await http.delete(f"/api/users/@me/follows/{bob.id}@{server}"))


@pytest.mark.parametrize("spelling", OTHER_SPELLINGS)
async def test_a_ban_holds_for_each_spelling(database_url: str, spelling: str) -> None:
    async with served(database_url) as (harness, ada), web(harness, ada) as http:
        place = await harness.instance(ada)
        path = f"/api/instances/{place.id}"
        answer = await http.put(f"{path}/moderators/{spelling}")
        assert answer.json()["error"]["code"] == 129  # it is a user of another server
        ban = {"type": "ban", "user": spelling}
        for _ in range(2):
            await data(await http.post(f"{path}/moderate", json=ban))
        bans = await data(await http.get(f"{path}/bans"))
        assert [one["user"] for one in bans["items"]] == [OTHER]
        await data(await http.post(f"{path}/moderate", json={"type": "unban", "user": OTHER}))
        assert (await data(await http.get(f"{path}/bans")))["items"] == []


@pytest.mark.parametrize("server", NOT_ADDRESSES)
async def test_what_is_not_an_address_is_refused(database_url: str, server: str) -> None:
    user = f"u_00000000-0000-4000-8000-000000000001@{server}"
    async with served(database_url) as (harness, ada), web(harness, ada) as http:
        path = f"/api/instances/{(await harness.instance(ada)).id}"
        for answer in (
            await http.put(f"/api/users/@me/follows/{user}"),
            await http.put(f"{path}/moderators/{user}"),
            await http.post(f"{path}/moderate", json={"type": "ban", "user": user}),
            await http.post("/api/users/@me/home", json={"world": f"w_{user[2:]}"}),
        ):
            assert 400 <= answer.status_code < 500, answer.text
