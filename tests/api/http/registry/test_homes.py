"""`/api/users/:id/home`."""

from __future__ import annotations

import pytest

from tests.api.clients import Client, Json
from tests.api.fakes import ADDRESS, FakeNode

HOME = "/api/users/@me/home"
WORLD = "w_00000000-0000-4000-8000-000000000000"


async def a_world(client: Client, **more: object) -> str:
    world: Json = (await client.put("/api/worlds", {"title": "Harbour", **more})).data
    return str(world["id"])


async def test_a_home_comes_and_goes(node: FakeNode, ada: Client) -> None:
    answer = await ada.get(HOME)
    assert (answer.status, answer.code) == (404, 43)
    world = await a_world(ada)
    node.told.clear()
    home = f"{world}@{ADDRESS}"
    shown = {**(await ada.get(f"/api/worlds/{world}")).data, "world": home}
    assert (await ada.post(HOME, {"world": world})).data == shown
    assert (await ada.get(HOME)).data == shown
    assert (await ada.get("/api/users/@me")).data["home"] == home
    assert (await ada.delete(HOME)).data == {}
    for answer in (await ada.get(HOME), await ada.delete(HOME)):
        assert (answer.status, answer.code) == (404, 43)
    assert node.told == [("user", ada.me["id"])] * 2


async def test_a_home_in_its_parts(ada: Client) -> None:
    world = await a_world(ada)
    for body in (
        {"id": world},
        {"id": world, "server": None, "version": None},
        {"id": world, "server": "", "version": ""},
        {"id": world, "server": ADDRESS},
        {"id": f"{world}@{ADDRESS}"},
        {"world": None, "id": world},
    ):
        assert (await ada.post(HOME, body)).data["world"] == f"{world}@{ADDRESS}", body
    await ada.put(f"/api/worlds/{world}/assets", {"version": "1.2"})
    answer = await ada.post(HOME, {"id": world, "version": "1.2"})
    assert answer.data["world"] == f"{world}:1.2@{ADDRESS}"
    assert answer.data["assets"][0]["version"] == "1.2"
    assert (await ada.post(HOME, {"id": world, "version": "1.3"})).code == 27


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "world"),
        ({"world": None, "id": None}, "world"),
        ({"id": "harbour"}, "id"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"id": WORLD, "version": "a b"}, "version"),
        ({"id": f"{WORLD}:1", "version": "2"}, "id"),
        ({"id": WORLD, "server": "a b"}, "server"),
        ({"id": WORLD, "server": 5}, "server"),
    ],
)
async def test_parts_that_name_no_world(ada: Client, body: Json, field: str) -> None:
    answer = await ada.post(HOME, body)
    assert (answer.status, answer.code, answer.fields) == (400, 14, {field})


async def test_a_home_that_can_not_be_seen_any_more(ada: Client, bob: Client) -> None:
    world = await a_world(ada)
    await bob.post(HOME, {"id": world})
    assert (await bob.get(HOME)).data["title"] == "Harbour"
    rest = {"id": world, "server": ADDRESS, "world": f"{world}@{ADDRESS}"}
    await ada.post(f"/api/worlds/{world}", {"tags": ["avr:private"]})
    assert (await bob.get(HOME)).data == rest
    await ada.delete(f"/api/worlds/{world}")
    assert (await bob.get(HOME)).data == rest


async def test_a_version_must_be_there(ada: Client) -> None:
    world = await a_world(ada)
    answer = await ada.post(HOME, {"world": f"{world}:1.2"})
    assert (answer.status, answer.code) == (404, 27)
    build = {"version": "1.2", "engine": "unity", "platform": "windows"}
    await ada.put(f"/api/worlds/{world}/assets", build)
    answer = await ada.post(HOME, {"world": f"{world}:1.2@{ADDRESS}"})
    assert answer.data["world"] == f"{world}:1.2@{ADDRESS}"


async def test_a_world_that_one_can_not_see_is_no_home(ada: Client, bob: Client) -> None:
    world = await a_world(ada, tags=["avr:private"])
    assert (await bob.post(HOME, {"world": world})).code == 25
    missing = "w_00000000-0000-4000-8000-000000000000"
    assert (await bob.post(HOME, {"world": missing})).code == 25


@pytest.mark.parametrize(
    "world",
    ["", "harbour", "w_1", "u_00000000-0000-4000-8000-000000000000",
     "w_00000000-0000-4000-8000-000000000000@", "w_00000000-0000-4000-8000-000000000000@a b",
     "w_00000000-0000-4000-8000-000000000000:", 5, None],
)  # fmt: skip
async def test_nonsense_is_no_home(ada: Client, world: object) -> None:
    answer = await ada.post(HOME, {"world": world})
    assert (answer.status, answer.code, answer.fields) == (400, 14, {"world"})


async def test_a_home_is_private(ada: Client, bob: Client, anyone: Client, admin: Client) -> None:
    world = await a_world(ada)
    await ada.post(HOME, {"world": world})
    path = "/api/users/ada/home"
    assert (await bob.get(path)).code == 18
    assert (await bob.post(path, {"world": world})).code == 12
    assert (await bob.delete(path)).code == 12
    for method in ("GET", "POST", "DELETE"):
        assert (await anyone.ask(method, path, {"world": world})).code == 3
    assert (await admin.get(path)).status == 200
    assert (await admin.delete(path)).data == {}
