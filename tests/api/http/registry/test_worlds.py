"""`/api/worlds`."""

from __future__ import annotations

from typing import Any

import pytest

from actors.node import Node
from api.http.endpoint import RequestContext
from api.http.lookups import own_world
from reileta.records import World
from tests.api.clients import Client, Json
from tests.api.fakes import ADDRESS, FakeNode


async def created(client: Client, **more: Any) -> Json:
    world: Json = (await client.put("/api/worlds", {"title": "Harbour", **more})).data
    return world


async def test_creating(node: FakeNode, ada: Client) -> None:
    world = await created(ada, title=" Harbour ", description="At dusk.\r\nQuiet.", capacity=8)
    assert world == {
        "id": world["id"],
        "title": "Harbour",
        "description": "At dusk.\nQuiet.",
        "capacity": 8,
        "owner": f"{ada.me['id']}@{ADDRESS}",
        "server": ADDRESS,
        "tags": ["avr:public"],
        "assets": [],
        "created_at": node.clock.now_ms(),
        "updated_at": node.clock.now_ms(),
    }
    assert node.told == [("world", world["id"])]
    assert (await ada.get(f"/api/worlds/{world['id']}")).data == world


async def test_defaults(ada: Client) -> None:
    nulls = dict.fromkeys(("title", "description", "capacity", "tags"))
    for body in ({}, nulls):
        world = (await ada.put("/api/worlds", body)).data
        assert (world["title"], world["capacity"]) == ("New world", 32)
        assert world["tags"] == ["avr:public"]
        assert "description" not in world


async def test_tags_as_published_clients_send_them(ada: Client) -> None:
    world = await created(ada, tags=["avr:public", "avr:private", "avr:develepement"])
    assert world["tags"] == ["avr:development", "avr:private"]
    changed = await ada.post(f"/api/worlds/{world['id']}", {"tags": ["avr:develepement"]})
    assert changed.data["tags"] == ["avr:development", "avr:public"]
    for tag in ("avr:develepement", "avr:development"):
        assert (await ada.get(f"/api/worlds?tag={tag}")).data["total"] == 1


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"title": " "}, {"title"}),
        ({"title": "x" * 129}, {"title"}),
        ({"title": "a\0b"}, {"title"}),
        ({"title": "a\ud800"}, {"title"}),
        ({"title": "t", "description": "a\0"}, {"description"}),
        ({"title": "t", "description": "x" * 4097}, {"description"}),
        ({"title": "t", "capacity": 0}, {"capacity"}),
        ({"title": "t", "capacity": 1025}, {"capacity"}),
        ({"title": "t", "capacity": "8"}, {"capacity"}),
        ({"title": "t", "capacity": 8.5}, {"capacity"}),
        ({"title": "t", "capacity": True}, {"capacity"}),
        ({"title": "t", "capacity": 10**30}, {"capacity"}),
        ({"title": "t", "tags": "avr:public"}, {"tags"}),
        ({"title": "t", "tags": ["x"] * 33}, {"tags"}),
        ({"title": "t", "tags": [5]}, {"tags.0"}),
        ({"title": 5, "capacity": "", "tags": {}}, {"title", "capacity", "tags"}),
    ],
)
async def test_every_field_at_fault_is_named(
    node: FakeNode, ada: Client, body: Json, fields: set[str]
) -> None:
    answer = await ada.put("/api/worlds", body)
    assert (answer.status, answer.code, answer.fields) == (400, 24, fields)
    assert node.told == []


async def test_tags(ada: Client, admin: Client) -> None:
    answer = await ada.put("/api/worlds", {"title": "t", "tags": ["avr:nonsense"]})
    assert (answer.status, answer.code, answer.fields) == (400, 38, {"tags"})
    answer = await ada.put("/api/worlds", {"title": "t", "tags": ["avr:official"]})
    assert (answer.status, answer.code) == (403, 4)
    world = await created(admin, tags=["avr:official", "avr:release"])
    assert world["tags"] == ["avr:official", "avr:public", "avr:release"]


async def test_what_a_creator_may_not_set_has_no_effect(ada: Client, bob: Client) -> None:
    world = await created(
        ada, owner=bob.me["id"], id="w_00000000-0000-4000-8000-000000000000", created_at=1
    )
    assert world["owner"].startswith(ada.me["id"])
    assert world["id"] != "w_00000000-0000-4000-8000-000000000000"
    answer = await ada.post(f"/api/worlds/{world['id']}", {"owner": bob.me["id"]})
    assert answer.data["owner"] == world["owner"]


async def test_writing_needs_a_credential(anyone: Client, ada: Client) -> None:
    world = await created(ada)
    for method, path in (("PUT", ""), ("POST", f"/{world['id']}"), ("DELETE", f"/{world['id']}")):
        answer = await anyone.ask(method, f"/api/worlds{path}", {"title": "t"})
        assert (answer.status, answer.code) == (401, 3)


async def test_updating_changes_only_what_is_given(node: FakeNode, ada: Client) -> None:
    world = await created(ada, description="Old", tags=["avr:release"])
    node.clock.advance(5)
    path = f"/api/worlds/{world['id']}@{ADDRESS}"
    changed = (await ada.post(path, {"title": "New", "capacity": 9})).data
    assert changed == {
        **world,
        "title": "New",
        "capacity": 9,
        "updated_at": world["updated_at"] + 5,
    }
    assert node.told == [("world", world["id"])] * 2
    emptied = (await ada.post(path, {"description": None, "tags": []})).data
    assert "description" not in emptied
    assert emptied["tags"] == ["avr:public"]


async def test_an_update_of_nothing_changes_nothing(node: FakeNode, ada: Client) -> None:
    world = await created(ada)
    node.clock.advance(5)
    answer = await ada.post(f"/api/worlds/{world['id']}", {"unknown": 1})
    assert answer.data == world
    assert node.told == [("world", world["id"])]


@pytest.mark.parametrize("body", [{"title": None}, {"capacity": None}, {"tags": None}])
async def test_what_can_not_be_empty_is_not_emptied(ada: Client, body: Json) -> None:
    world = await created(ada)
    answer = await ada.post(f"/api/worlds/{world['id']}", body)
    assert (answer.status, answer.code, answer.fields) == (400, 24, set(body))


async def test_others_change_nothing_and_admins_may(
    ada: Client, bob: Client, admin: Client
) -> None:
    world = await created(ada)
    path = f"/api/worlds/{world['id']}"
    for answer in (await bob.post(path, {"title": "Mine"}), await bob.delete(path)):
        assert (answer.status, answer.code) == (403, 4)
    assert (await admin.post(path, {"title": "Tidy"})).data["title"] == "Tidy"
    assert (await admin.delete(path)).data == {}


async def test_deleting(ada: Client) -> None:
    path = f"/api/worlds/{(await created(ada))['id']}"
    assert (await ada.delete(path)).data == {}
    for answer in (await ada.get(path), await ada.delete(path), await ada.post(path, {})):
        assert (answer.status, answer.code) == (404, 25)


async def test_a_private_world_is_not_found_by_others(
    ada: Client, bob: Client, anyone: Client, admin: Client
) -> None:
    world = await created(ada, tags=["avr:private"])
    path = f"/api/worlds/{world['id']}"
    for client in (bob, anyone):
        answers = [await client.get(path)]
        if client is bob:
            answers += [await bob.post(path, {"title": "t"}), await bob.delete(path)]
        assert {(answer.status, answer.code) for answer in answers} == {(404, 25)}
        assert (await client.get("/api/worlds")).data["total"] == 0
    for client in (ada, admin):
        assert (await client.get(path)).data == world
        assert (await client.get("/api/worlds")).data["items"] == [world]


async def test_searching(ada: Client, bob: Client, anyone: Client) -> None:
    harbour = await created(ada, tags=["avr:release"])
    forest = await created(bob, title="Forest", description="No harbour here")
    desert = await created(bob, title="Desert")

    async def found(query: str, client: Client = anyone) -> set[str]:
        return {world["id"] for world in (await client.get(f"/api/worlds?{query}")).data["items"]}

    assert await found("") == {harbour["id"], forest["id"], desert["id"]}
    assert await found("query=HARBOUR") == {harbour["id"], forest["id"]}
    assert await found("tag=avr:release") == {harbour["id"]}
    assert await found("owner=bob") == {forest["id"], desert["id"]}
    assert await found(f"owner={ada.me['id']}@{ADDRESS}") == {harbour["id"]}
    assert await found("owner=@me", ada) == {harbour["id"]}
    assert await found("owner=nobody") == await found("owner=") == set()
    assert await found("owner=u_1@other.example.org") == set()
    assert (await anyone.get("/api/worlds?owner=@me")).code == 3
    assert (await anyone.get("/api/worlds?limit=500")).code == 24


@pytest.mark.parametrize(
    "ref", ["nonsense", "w_0", "w_00000000-0000-4000-8000-000000000000", "%00", "u_1", "@me"]
)
async def test_unknown_worlds(anyone: Client, ref: str) -> None:
    answer = await anyone.get(f"/api/worlds/{ref}")
    assert (answer.status, answer.code) == (404, 25)


async def test_a_world_that_is_deleted_while_it_is_changed_is_not_found(
    ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found_and_gone(node: Node, call: RequestContext, text: str) -> World:
        world = await own_world(node, call, text)
        await node.store.worlds.delete(world.id)
        return world

    monkeypatch.setattr("api.http.registry.worlds.own_world", found_and_gone)
    for change in ({"title": "Quay"}, None):
        path = f"/api/worlds/{(await created(ada))['id']}"
        answer = await (ada.delete(path) if change is None else ada.post(path, change))
        assert (answer.status, answer.code) == (404, 25)
