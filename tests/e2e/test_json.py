"""JSON with a byte order mark, and empty bodies, by a whole server over real connections."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from benchmarks.killable import event
from tests.conftest import PATIENCE_S
from tests.e2e.clients import connected
from tests.e2e.servers import ServerHarness, running
from tests.e2e.test_registry import RegistryClient
from tests.e2e.test_sessions import get, line

BOM = "\ufeff"


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url, rate_limits="off") as harness:
        yield harness


@pytest.fixture
async def client(harness: ServerHarness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as client:
        yield client


def marked(value: object) -> str:
    return BOM + json.dumps(value)


async def test_a_body_may_begin_with_a_mark(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada = RegistryClient(client, await harness.account("ada"))
    kind = {"Content-Type": "application/json"}

    async def ask(method: str, path: str, text: str) -> Any:
        return await ada.ask(method, path, content=text.encode(), headers=kind)

    made = await ask("PUT", "/api/worlds", marked({"title": "Meadow"}))
    assert made.json()["data"]["title"] == "Meadow"
    made = await ask("POST", "/resource/document", marked({"title": "Door", "data": [BOM]}))
    assert made.json()["resource"]["data"] == [BOM]
    for text in (BOM + BOM + "{}", "{}" + BOM, "{" + BOM + "}"):
        assert (await ask("POST", "/api/users/@me", text)).status_code == 400


@pytest.mark.parametrize("body", ["", BOM])
async def test_an_empty_body_is_an_empty_object(
    harness: ServerHarness, client: httpx.AsyncClient, body: str
) -> None:
    ada = RegistryClient(client, await harness.account("ada"))
    for kind in ({}, {"Content-Type": "application/json"}):
        how: Any = {"content": body.encode(), "headers": kind}
        assert (await ada.ask("POST", "/api/users/@me", **how)).status_code == 200
        assert (await ada.ask("PUT", "/api/worlds", **how)).json()["data"]["title"] == "New world"
        refused = await ada.ask("PUT", "/api/instances", **how)
        (detail,) = refused.json()["error"]["details"]
        assert detail == {"field": "world", "message": "is required"}
        assert (await ada.ask("POST", "/resource/document", **how)).status_code == 400
    assert (await ada.ask("POST", "/api/users/@me", content=b" ")).status_code == 400


async def test_a_message_may_begin_with_a_mark(harness: ServerHarness) -> None:
    ada = await harness.account("ada")
    instance = (await harness.instance(ada)).id
    async with connected(harness, ada) as player, connected(harness) as other:
        bob = await harness.account("bob")
        await other.ask("authenticate", {"token": bob.token})
        await player.join(instance)
        await other.join(instance)
        data = {"command": "instance-data", "subgroup": instance, "data": {"say": BOM}}
        await player.socket.send_message(marked(data))
        assert (await other.hear())["data"] == {"say": BOM}
        await player.socket.send_message(marked({"command": "ping", "state": 7, "data": {}}))
        assert "error" not in await player.until(lambda one: one.get("state") == 7)
        await player.socket.send_message(marked({"command": "ping", "state": 8, "key": 5}))
        refused = await player.until(lambda one: one.get("state") == 8)
        assert refused["error"]["details"][0]["field"] == "key"
        await player.socket.send_message(BOM * 20_000 + "{}")
        assert (await player.until(lambda one: "error" in one))["error"]["code"] == 119


async def test_a_message_of_the_session_api_may_begin_with_a_mark(harness: ServerHarness) -> None:
    ada = await harness.account("ada")
    async with line(harness, ada.token) as socket:
        await get(socket)
        sent = event({"door": "open"})
        await socket.send_message(marked(sent))
        answer = await get(socket)
        while answer["type"] != "ack":
            answer = await get(socket)
        assert answer["id"] == sent["id"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "gzip, identity"])
async def test_a_compressed_body_is_refused_as_such(
    harness: ServerHarness, client: httpx.AsyncClient, encoding: str
) -> None:
    ann = await harness.account()
    headers = {
        "Authorization": f"Bearer {ann.token}",
        "Content-Type": "application/json",
        "Content-Encoding": encoding,
    }
    # Also if it is not compressed at all: then nobody relies on a header that was ignored.
    for body in (gzip.compress(b'{"displayname": "Zoe"}'), b'{"displayname": "Zoe"}'):
        answer = await client.post("/api/users/@me", content=body, headers=headers)
        assert answer.status_code == 415
        error = answer.json()["error"]
        assert (error["code"], error["details"][0]["field"]) == (104, "Content-Encoding")
    login = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = await client.post("/auth/login", content=b"{}", headers=login)
    assert answer.status_code == 415
    headers["Content-Encoding"] = "identity"
    answer = await client.post("/api/users/@me", content=b'{"displayname": "Zoe"}', headers=headers)
    assert answer.status_code == 200
