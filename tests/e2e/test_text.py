"""Names, passwords and searches in all alphabets, by a whole server over real connections."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from argon2 import PasswordHasher

from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json
from tests.e2e.servers import ServerHarness, running
from tests.e2e.test_registry import RegistryClient

HIDDEN = ("\u200b", "Ann\u200b", "\u3164", "\u2800", "\u00adAnn", "Ann\u200d", "a" + "\u0301" * 31)
SEEN = ("👩\u200d🚀", "می\u200cخواهم", "Zo\u00eb")


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url, rate_limits="off") as harness:
        yield harness


@pytest.fixture
async def client(harness: ServerHarness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as client:
        yield client


async def test_every_name_and_title_can_be_seen(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    root = RegistryClient(client, await harness.account("root", admin=True))
    world = (await root.done("PUT", "/api/worlds", {"title": "Meadow"}))["id"]
    number = itertools.count(1)
    places: list[tuple[str, str, str, Callable[[], Json]]] = [
        ("POST", "/api/users/@me", "displayname", dict),
        ("POST", "/api/users", "displayname", lambda: {"username": f"user_{next(number)}"}),
        ("POST", "/api/server", "title", dict),
        ("PUT", "/api/worlds", "title", dict),
        ("POST", f"/api/worlds/{world}", "title", dict),
        ("PUT", "/api/instances", "title", lambda: {"world": world}),
        ("PUT", "/api/services", "title", lambda: {"id": f"com.example.s{next(number)}"}),
        ("POST", "/resource/document", "title", dict),
    ]
    for method, path, field, more in places:
        for name in HIDDEN:
            answer = await root.ask(method, path, {field: name, **more()})
            assert (answer.status_code, path, name) == (400, path, name)
            assert [detail["field"] for detail in answer.json()["error"]["details"]] == [field]
        for name in SEEN:
            answer = await root.ask(method, path, {field: name, **more()})
            assert answer.status_code == 200, answer.text
            made = answer.json()
            assert (made.get("data") or made["resource"])[field] == name


async def test_names_are_stored_in_nfc(harness: ServerHarness, client: httpx.AsyncClient) -> None:
    ada = RegistryClient(client, await harness.account("ada"))
    me = await ada.done("POST", "/api/users/@me", {"displayname": "Zoe\u0308"})
    assert me["displayname"] == "Zo\u00eb"


async def test_passwords_compare_as_rfc_8265_says(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    async def ask(path: str, username: str, password: str) -> int:
        body = {"username": username, "password": password}
        return (await client.post(path, json=body)).status_code

    for number, (chosen, typed) in enumerate(
        [("Zo\u00eb Zo\u00eb!", "Zoe\u0308\u00a0Zoe\u0308!"), ("e\u0301" * 256, "\u00e9" * 256)]
    ):
        assert await ask("/api/auth/register", f"user_{number}", chosen) == 200
        for login in ("/api/auth/login", "/auth/login"):
            assert await ask(login, f"user_{number}", typed) == 200
            assert await ask(login, f"user_{number}", chosen) == 200
            assert await ask(login, f"user_{number}", typed + "x") in (400, 401)
    # The least length counts what is compared: 4 letters here.
    assert await ask("/api/auth/register", "short", "e\u0301" * 4) == 400
    for refused in ("\t2345678", "\u200b2345678", "\U0003fff02345678"):
        assert await ask("/api/auth/register", "other", refused) == 400
    # A hash that an older version made.
    old = "Zoe\u0308\u00a0\u200b Zoe\u0308"
    hash_ = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(old.encode())
    await harness.store.users.create(username="old", displayname="old", password_hash=hash_)
    assert await ask("/api/auth/login", "old", old) == 200


async def test_searches_ignore_case_and_form_in_every_alphabet(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    ada = RegistryClient(client, await harness.account("ada"))
    for title, query in (
        ("Привет", "ПРИВЕТ"),
        ("Stra\u00dfe", "STRASSE"),
        ("Caf\u00e9", "CAFE\u0301"),
    ):
        await ada.done("PUT", "/api/worlds", {"title": title})
        found = await ada.done("GET", "/api/worlds", params={"query": query})
        assert [world["title"] for world in found["items"]] == [title]
