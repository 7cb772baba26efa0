"""Every list, walked page by page with a cursor, while it changes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player, connected
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.test_registry import RegistryClient

LIMIT = 2
MANY = 5


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url, rate_limits="off") as harness:
        yield harness


@pytest.fixture
async def client(harness: ServerHarness) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as client:
        yield client


async def walked(
    asker: RegistryClient,
    path: str,
    items: str = "items",
    change: Callable[[], Awaitable[object]] | None = None,
) -> list[Json]:
    """All items, page by page; `change` is done between pages."""
    found: list[Json] = []
    params: dict[str, Any] = {"limit": LIMIT}
    for _ in range(50):
        answer = (await asker.ask("GET", path, params=params)).json()
        data = answer.get("data", answer)
        found += data[items]
        if "next" not in data:
            assert len(data[items]) <= LIMIT
            return found
        assert len(data[items]) == LIMIT
        params["after"] = data["next"]
        if change is not None:
            await change()
    raise AssertionError("the list has no end")


async def check(
    asker: RegistryClient,
    path: str,
    make: Callable[[], Awaitable[object]],
    *,
    items: str = "items",
    grows: bool,
) -> None:
    """Walks a list with at least five items, to which `make` adds one. `grows`: at its end."""
    for _ in range(MANY):
        await make()
    whole = (await asker.ask("GET", path, params={"limit": 100})).json()
    before = whole.get("data", whole)[items]
    assert len(before) >= MANY
    assert await walked(asker, path, items) == before
    left = iter(range(2))

    async def add() -> None:
        if next(left, None) is not None:
            await make()

    found = await walked(asker, path, items, add)
    assert found[: len(before)] == before
    assert (len(found) > len(before)) is grows
    for cursor in ("x", "1~2~3~4", "", "~"):
        refused = await asker.ask("GET", path, params={"after": cursor})
        assert refused.status_code == 400, (path, cursor)
        assert refused.json()["error"]["details"][0]["field"] == "after"


async def test_lists_of_the_registry_neither_repeat_nor_skip(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    root = await harness.account("root", admin=True)
    asker = RegistryClient(client, root)
    number = itertools.count(1)
    others: list[Account] = []

    async def a_user() -> None:
        others.append(await harness.account())

    async def a_world() -> None:
        await asker.done("PUT", "/api/worlds", {"title": f"World {next(number)}"})

    async def an_instance() -> None:
        await harness.instance(root)

    async def a_service() -> None:
        body = {"id": f"com.example.s{next(number)}", "title": "Voice"}
        await asker.done("PUT", "/api/services", body)

    async def a_document() -> None:
        answer = await asker.ask("POST", "/resource/document", {"title": "Door"})
        assert answer.status_code == 200

    async def a_session() -> None:
        await harness.login(root.id)

    async def a_follow() -> None:
        await a_user()
        await asker.done("PUT", f"/api/users/@me/follows/{others[-1].id}")

    async def a_follower() -> None:
        await a_user()
        await harness.store.follows.put(others[-1].id, root.id)

    await check(asker, "/api/users", a_user, grows=True)
    await check(asker, "/api/worlds", a_world, grows=False)
    await check(asker, "/api/worlds?query=world", a_world, grows=False)
    await check(asker, "/api/instances", an_instance, grows=False)
    await check(asker, "/api/services", a_service, grows=False)
    await check(asker, "/resource/document", a_document, items="resources", grows=True)
    await check(asker, "/api/users/@me/sessions", a_session, grows=False)
    await check(asker, "/api/users/@me/follows", a_follow, grows=True)
    await check(asker, "/api/users/@me/followers", a_follower, grows=True)
    world = (await asker.done("PUT", "/api/worlds", {"title": "Meadow"}))["id"]

    async def an_asset() -> None:
        build = {"version": f"1.{next(number)}", "engine": "unity", "platform": "windows"}
        await asker.done("PUT", f"/api/worlds/{world}/assets", build)

    await check(asker, f"/api/worlds/{world}/assets", an_asset, grows=True)


async def test_lists_of_an_instance_neither_repeat_nor_skip(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    root = await harness.account("root", admin=True)
    asker = RegistryClient(client, root)
    instance = (await harness.instance(root, capacity=30)).id
    path = f"/api/instances/{instance}"

    async def banned() -> None:
        user = await harness.account()
        body = {"user": user.id, "type": "ban", "reason": "enough"}
        await asker.done("POST", f"{path}/moderate", body)

    await check(asker, f"{path}/bans", banned, grows=True)
    await check(asker, f"{path}/moderations", banned, grows=False)
    async with AsyncExitStack() as stack:

        async def a_player() -> Player:
            return await stack.enter_async_context(connected(harness, await harness.account()))

        outside = iter([await a_player() for _ in range(MANY + 2)])

        async def inside() -> None:
            await next(outside).join(instance)

        await check(asker, f"{path}/players", inside, grows=True)


async def test_a_queue_is_walked_while_it_moves(
    harness: ServerHarness, client: httpx.AsyncClient
) -> None:
    root = await harness.account("root", admin=True)
    asker = RegistryClient(client, root)
    instance = (await harness.instance(root, capacity=1)).id
    path = f"/api/instances/{instance}/queue"

    async def a_candidate() -> None:
        user = RegistryClient(client, await harness.account())
        await user.done("POST", f"/api/instances/{instance}/candidate")

    await check(asker, path, a_candidate, grows=True)
    entries = await walked(asker, path)
    first = (await asker.done("GET", path, params={"limit": LIMIT}))["next"]
    # The one at whose place the page ended leaves.
    user = entries[LIMIT - 1]["user"]
    await asker.done("DELETE", f"/api/instances/{instance}/candidate", params={"user": user})
    rest = await asker.done("GET", path, params={"after": first})
    assert [entry["user"] for entry in rest["items"]] == [e["user"] for e in entries[LIMIT:]]
