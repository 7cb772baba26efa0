"""`/api/nodes`."""

from __future__ import annotations

from typing import Any

import pytest

from reileta.security.credentials import digest
from tests.api.clients import Client, Json
from tests.api.fakes import ADDRESS, FakeNode

PATH = "/api/nodes"


async def created(client: Client, **more: Any) -> Json:
    made: Json = (await client.put(PATH, {"title": "Attic", **more})).data
    return made


async def test_a_node_has_a_token_that_is_shown_once(
    node: FakeNode, ada: Client, bob: Client, anyone: Client
) -> None:
    made = await created(ada, region="eu-west", direct={"address": "attic.example"})
    token = made.pop("token")
    assert token.startswith("na_")
    assert made == {
        "id": made["id"],
        "title": "Attic",
        "owner": f"{ada.me['id']}@{ADDRESS}",
        "kind": "hosted",
        "status": "offline",
        "region": "eu-west",
        "instances": 0,
        "players": 0,
        "capacity": 100,
        "direct": {"address": "attic.example", "secure": True},
        "created_at": node.clock.now_ms(),
        "updated_at": node.clock.now_ms(),
    }
    here = f"{PATH}/{made['id']}"
    assert (await ada.get(here)).data == made
    for stranger in (bob, anyone):
        seen = (await stranger.get(here)).data
        assert seen == {name: made[name] for name in made if name != "direct"}
    assert token not in str((await ada.get(PATH)).body)
    assert node.told == [("node", made["id"])]
    for method, path, body in (
        ("POST", here, {"title": "Mine"}),
        ("DELETE", here, None),
        ("POST", f"{here}/token", None),
        ("POST", f"{here}/drain", {}),
    ):
        assert (await bob.ask(method, path, body)).code == 4
        assert (await anyone.ask(method, path, body)).code == 3
    changed = (await ada.post(here, {"title": "Cellar", "direct": None})).data
    assert (changed["title"], "direct" in changed) == ("Cellar", False)
    rotated = (await ada.ask("POST", f"{here}/token")).data["token"]
    assert rotated != token
    assert await node.store.host_nodes.of_token(digest(token)) is None
    assert await node.store.host_nodes.of_token(digest(rotated)) is not None
    assert made["id"] in node.refreshed
    assert (await ada.delete(here)).status == 200
    assert (await ada.get(here)).code == 141


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"title"}),
        ({"title": ""}, {"title"}),
        ({"title": "t", "kind": "cluster"}, {"kind"}),
        ({"title": "t", "capacity": 101}, {"capacity"}),
        ({"title": "t", "capacity": 0}, {"capacity"}),
        ({"title": "t", "region": "Über"}, {"region"}),
        ({"title": "t", "direct": {"address": "http://x/"}}, {"direct.address"}),
        ({"title": "t", "direct": {}}, {"direct.address"}),
    ],
)
async def test_every_field_at_fault_is_named(ada: Client, body: Json, fields: set[str]) -> None:
    answer = await ada.put(PATH, body)
    assert (answer.status, answer.code, answer.fields) == (400, 140, fields)


async def test_dedicated_nodes_are_for_admins_and_host_everybodys_instances(
    ada: Client, bob: Client, admin: Client
) -> None:
    assert (await ada.put(PATH, {"title": "t", "kind": "dedicated"})).code == 4
    big, own = await created(admin, kind="dedicated"), await created(ada)
    world = (await ada.put("/api/worlds", {"title": "Meadow"})).data["id"]
    for client, host, code in ((ada, big, 0), (bob, big, 0), (ada, own, 0), (bob, own, 4)):
        answer = await client.put("/api/instances", {"world": world, "node": host["id"]})
        if code:
            assert (answer.status, answer.code) == (403, code)
        else:
            assert answer.data["node"] == host["id"]
    missing = {"world": world, "node": "n_00000000-0000-4000-8000-000000000000"}
    assert (await ada.put("/api/instances", missing)).code == 141
    assert (await ada.get(f"{PATH}/{own['id']}")).data["instances"] == 1
    listed = (await ada.get(f"{PATH}?owner=@me")).data
    assert [(one["id"], one["instances"]) for one in listed["items"]] == [(own["id"], 1)]


async def test_nodes_and_instances_on_them_are_bounded(ada: Client) -> None:
    made = [await created(ada, capacity=1) for _ in range(5)]
    answer = await ada.put(PATH, {"title": "One more"})
    assert (answer.status, answer.code, answer.fields) == (409, 134, {"nodes"})
    world = (await ada.put("/api/worlds", {"title": "Meadow"})).data["id"]
    body = {"world": world, "node": made[0]["id"]}
    assert (await ada.put("/api/instances", body)).status == 200
    assert (await ada.put("/api/instances", body)).code == 134
    drained = (await ada.post(f"{PATH}/{made[1]['id']}/drain", {})).data
    assert drained["status"] == "offline"
    answer = await ada.put("/api/instances", {"world": world, "node": made[1]["id"]})
    assert (answer.code, answer.fields) == (33, {"node"})
    assert (await ada.post(f"{PATH}/{made[1]['id']}/drain", {"on": False})).status == 200
    instance = await ada.put("/api/instances", {"world": world, "node": made[1]["id"]})
    await ada.delete(f"{PATH}/{made[1]['id']}")
    assert (await ada.get(f"/api/instances/{instance.data['id']}")).code == 36


async def test_searching_by_state(node: FakeNode, ada: Client) -> None:
    made = await created(ada)
    hosts, token = node.store.host_nodes, digest(made["token"])

    async def found(query: str) -> int:
        total: int = (await ada.get(f"{PATH}?{query}")).data["total"]
        return total

    assert (await found("status=offline"), await found("status=online")) == (1, 0)
    linked = await hosts.link(made["id"], token, server="here", version="test/1")
    assert linked is not None
    assert (await found("status=online"), await found("free=true")) == (1, 1)
    assert not await hosts.seen(made["id"], token, link=linked.link - 1, server="here")
    assert await hosts.seen(made["id"], token, link=linked.link, server="here")
    node.clock.advance(61_000)
    assert (await found("status=online"), await found("status=offline")) == (0, 1)
    again = await hosts.link(made["id"], token, server="here", version="test/1")
    assert again is not None
    assert again.link == linked.link + 1
    assert await hosts.unlink(made["id"], link=linked.link) is None
    await hosts.drain(made["id"], on=True)
    assert (await found("status=draining"), await found("free=true")) == (1, 0)
    assert await hosts.unlink(made["id"], link=again.link) is not None
    assert await found("status=offline") == 1
