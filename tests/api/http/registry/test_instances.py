"""`/api/instances`."""

from __future__ import annotations

from typing import Any

import pytest

from api.http.registry.instances import generated_name
from reileta.ids import is_instance_name
from tests.api.clients import Client, Json
from tests.api.fakes import ADDRESS, FakeNode, FakeOccupancy


@pytest.fixture
async def world(ada: Client) -> Json:
    answer = await ada.put("/api/worlds", {"title": "Harbour", "capacity": 12})
    world: Json = answer.data
    return world


async def opened(client: Client, world: Json, **more: Any) -> Json:
    instance: Json = (await client.put("/api/instances", {"world": world["id"], **more})).data
    return instance


async def test_opening(node: FakeNode, bob: Client, world: Json) -> None:
    node.told.clear()
    instance = await opened(
        bob, world, name="sunday-meetup", title="Sunday", description="Tea", capacity=1024
    )
    assert instance == {
        "id": instance["id"],
        "name": "sunday-meetup",
        "title": "Sunday",
        "description": "Tea",
        "world": f"{world['id']}@{ADDRESS}",
        "owner": f"{bob.me['id']}@{ADDRESS}",
        "master": None,
        "capacity": 1024,
        "connected": 0,
        "queued": 0,
        "tags": ["avr:public"],
        "server": ADDRESS,
        "address": ADDRESS,
        "secure": False,
        "created_at": node.clock.now_ms(),
        "updated_at": node.clock.now_ms(),
    }
    assert node.told == [("instance", instance["id"])]
    for ref in (instance["id"], "sunday-meetup", f"sunday-meetup@{ADDRESS}"):
        assert (await bob.get(f"/api/instances/{ref}")).data == instance


async def test_who_is_inside_is_told(node: FakeNode, ada: Client, world: Json) -> None:
    instance = await opened(ada, world)
    master = f"{ada.me['id']}@{ADDRESS}"
    node.inside[instance["id"]] = FakeOccupancy(connected=3, queued=2, master=master)
    got = (await ada.get(f"/api/instances/{instance['id']}")).data
    assert (got["connected"], got["queued"], got["master"]) == (3, 2, master)


async def test_defaults(ada: Client, world: Json) -> None:
    instance = await opened(ada, world)
    assert is_instance_name(instance["name"])
    assert instance["capacity"] == 12
    assert not {"title", "description"} & set(instance)


async def test_a_made_name_that_is_taken_is_made_again(
    ada: Client, world: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["first-name", "first-name", "first-name", "second-name"])
    monkeypatch.setattr("api.http.registry.instances.generated_name", lambda: next(names))
    assert (await opened(ada, world))["name"] == "first-name"
    assert (await opened(ada, world))["name"] == "second-name"
    monkeypatch.setattr("api.http.registry.instances.generated_name", lambda: "first-name")
    answer = await ada.put("/api/instances", {"world": world["id"]})
    assert (answer.status, answer.code) == (409, 47)


def test_made_names_are_names() -> None:
    assert is_instance_name(generated_name())
    assert generated_name() != generated_name()


async def test_a_taken_name_is_a_conflict(ada: Client, world: Json) -> None:
    await opened(ada, world, name="the-place")
    answer = await ada.put("/api/instances", {"world": world["id"], "name": "the-place"})
    assert (answer.status, answer.code, answer.fields) == (409, 47, {"name"})


@pytest.mark.parametrize("suffix", [":1.2", f"@{ADDRESS}", f":1.2@{ADDRESS}"])
async def test_a_world_can_be_named_in_full(ada: Client, world: Json, suffix: str) -> None:
    instance = await opened(ada, {"id": world["id"] + suffix})
    assert instance["world"] == world["id"] + suffix.partition("@")[0] + f"@{ADDRESS}"


async def test_the_world_must_be_one_that_the_asker_sees(
    ada: Client, bob: Client, admin: Client
) -> None:
    private = (await ada.put("/api/worlds", {"title": "t", "tags": ["avr:private"]})).data["id"]
    unknown = "w_00000000-0000-4000-8000-000000000000"
    for world in (private, unknown):
        answer = await bob.put("/api/instances", {"world": world})
        assert (answer.status, answer.code) == (404, 25)
    for client in (ada, admin):
        assert (await client.put("/api/instances", {"world": private})).status == 200


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"world": None}, {"world"}),
        ({"world": 5}, {"world"}),
        ({"world": ""}, {"world"}),
        ({"world": "@"}, {"world"}),
        ({"world": "harbour"}, {"world"}),
        ({"world": "w_\0"}, {"world"}),
        ({"world": "w_00000000-0000-4000-8000-000000000000:"}, {"world"}),
        ({"world": "w_00000000-0000-4000-8000-000000000000:a b"}, {"world"}),
        ({"name": "No"}, {"name"}),
        ({"name": "UPPER"}, {"name"}),
        ({"name": "a" * 33}, {"name"}),
        ({"name": "tea-time\n"}, {"name"}),
        ({"name": 123}, {"name"}),
        ({"title": ""}, {"title"}),
        ({"title": "\x1b[2J"}, {"title"}),
        ({"description": "\x07"}, {"description"}),
        ({"capacity": 0}, {"capacity"}),
        ({"capacity": -(10**18)}, {"capacity"}),
        ({"capacity": 1.5}, {"capacity"}),
        ({"tags": {"avr:public": True}}, {"tags"}),
        ({"name": "!", "capacity": "x", "title": []}, {"name", "capacity", "title"}),
    ],
)
async def test_every_field_at_fault_is_named(
    ada: Client, world: Json, change: Json, fields: set[str]
) -> None:
    answer = await ada.put("/api/instances", {"world": world["id"], **change})
    assert (answer.status, answer.code, answer.fields) == (400, 33, fields)


async def test_tags(ada: Client, admin: Client, world: Json) -> None:
    for tags, status, code in (
        (["avr:nonsense"], 400, 38),
        (["avr:permanent"], 403, 4),
        (["avr:official"], 403, 4),
    ):
        answer = await ada.put("/api/instances", {"world": world["id"], "tags": tags})
        assert (answer.status, answer.code) == (status, code)
    instance = await opened(admin, world, tags=["avr:permanent"])
    assert instance["tags"] == ["avr:permanent", "avr:public"]


async def test_writing_needs_a_credential(anyone: Client, ada: Client, world: Json) -> None:
    path = f"/{(await opened(ada, world))['id']}"
    for method, suffix in (("PUT", ""), ("POST", path), ("DELETE", path)):
        answer = await anyone.ask(method, f"/api/instances{suffix}", {"world": world["id"]})
        assert (answer.status, answer.code) == (401, 3)


async def test_updating(node: FakeNode, ada: Client, world: Json) -> None:
    instance = await opened(ada, world, title="Old", description="Old", tags=["avr:invite_only"])
    path = f"/api/instances/{instance['id']}"
    node.clock.advance(5)
    changed = (await ada.post(path, {"title": None, "description": "", "capacity": 3})).data
    assert not {"title", "description"} & set(changed)
    assert (changed["capacity"], changed["tags"]) == (3, ["avr:invite_only"])
    assert changed["updated_at"] == instance["updated_at"] + 5
    assert (await ada.post(path, {"tags": []})).data["tags"] == ["avr:public"]
    answer = await ada.post(path, {"owner": "u_1", "name": "other-name", "world": "w_1"})
    assert (answer.data["owner"], answer.data["name"]) == (instance["owner"], instance["name"])


@pytest.mark.parametrize("body", [{"capacity": None}, {"tags": None}, {"capacity": 1025}])
async def test_an_update_is_checked(ada: Client, world: Json, body: Json) -> None:
    instance = await opened(ada, world)
    answer = await ada.post(f"/api/instances/{instance['id']}", body)
    assert (answer.status, answer.code, answer.fields) == (400, 33, set(body))


async def test_others_change_nothing_and_admins_may(
    ada: Client, bob: Client, admin: Client, world: Json
) -> None:
    path = f"/api/instances/{(await opened(ada, world))['id']}"
    for answer in (await bob.post(path, {"title": "Mine"}), await bob.delete(path)):
        assert (answer.status, answer.code) == (403, 4)
    assert (await admin.post(path, {"title": "Tidy"})).data["title"] == "Tidy"
    assert (await admin.delete(path)).data == {}
    for answer in (await ada.get(path), await ada.delete(path), await ada.post(path, {})):
        assert (answer.status, answer.code) == (404, 36)


async def test_a_private_instance_is_its_owners_and_the_admins(
    ada: Client, bob: Client, anyone: Client, admin: Client, world: Json
) -> None:
    instance = await opened(ada, world, tags=["avr:private"], name="my-place")
    for ref in (instance["id"], "my-place"):
        for client in (bob, anyone):
            answer = await client.get(f"/api/instances/{ref}")
            assert (answer.status, answer.code) == (404, 36)
        for client in (ada, admin):
            assert (await client.get(f"/api/instances/{ref}")).data == instance


async def test_only_public_ones_are_listed_to_others(
    ada: Client, bob: Client, anyone: Client, admin: Client, world: Json
) -> None:
    invite = await opened(ada, world, tags=["avr:invite_only"])
    assert (await bob.get(f"/api/instances/{invite['id']}")).data == invite
    for client, total in ((bob, 0), (anyone, 0), (ada, 1), (admin, 1)):
        assert (await client.get("/api/instances")).data["total"] == total


async def test_searching(
    node: FakeNode, ada: Client, bob: Client, anyone: Client, world: Json
) -> None:
    forest = (await bob.put("/api/worlds", {"title": "Forest"})).data
    tea = await opened(ada, world, title="Tea time", name="tea")
    walk = await opened(bob, {"id": forest["id"] + ":2"}, name="walk", description="After TEA")
    node.filled = frozenset({tea["id"]})

    async def found(query: str, client: Client = anyone) -> set[str]:
        items = (await client.get(f"/api/instances?{query}")).data["items"]
        return {instance["id"] for instance in items}

    both = {tea["id"], walk["id"]}
    assert await found("") == both
    assert await found("query=tea") == both
    assert await found("query=Walk") == {walk["id"]}
    assert await found("free=true") == await found("free=1") == {walk["id"]}
    assert await found("free=false") == both
    assert await found(f"world={world['id']}") == {tea["id"]}
    assert await found(f"world={forest['id']}@{ADDRESS}") == {walk["id"]}
    assert await found(f"world={forest['id']}:2") == {walk["id"]}
    assert await found(f"world={forest['id']}:3") == set()
    assert await found("world=nonsense") == set()
    assert await found("owner=bob") == await found("owner=@me", bob) == {walk["id"]}
    assert await found("owner=nobody") == await found("owner=") == set()
    assert await found("tag=avr:public") == both
    assert await found("tag=avr:permanent") == set()
    assert await found("limit=1&offset=1") < both


async def test_a_bad_query_names_its_fields(anyone: Client) -> None:
    answer = await anyone.get("/api/instances?free=maybe&limit=0&world=%00")
    assert (answer.status, answer.code) == (400, 33)
    assert answer.fields == {"free", "limit", "world"}


@pytest.mark.parametrize(
    "ref", ["nonsense", "i_00000000-0000-4000-8000-000000000000", "%00", "UPPER", "@me", "."]
)
async def test_unknown_instances(anyone: Client, ref: str) -> None:
    answer = await anyone.get(f"/api/instances/{ref}")
    assert (answer.status, answer.code) == (404, 36)
