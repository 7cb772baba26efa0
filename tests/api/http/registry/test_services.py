"""`/api/services`."""

from __future__ import annotations

from typing import Any

import pytest

from api.app import ReiletaApp
from reileta.security.credentials import digest
from reileta.store.services import TOKEN_MS
from tests.api.clients import Client, Json
from tests.api.fakes import ADDRESS, FakeNode

PATH = "/api/services"
VOICE = "com.example.voice"


async def created(client: Client, id_: str = VOICE, **more: Any) -> Json:
    service: Json = (await client.put(PATH, {"id": id_, "title": "Voice", **more})).data
    return service


async def test_creating(node: FakeNode, ada: Client, anyone: Client) -> None:
    service = await created(ada, description="Talk.", url="https://voice.example.com/")
    assert service == {
        "id": VOICE,
        "title": "Voice",
        "description": "Talk.",
        "url": "https://voice.example.com/",
        "owner": f"{ada.me['id']}@{ADDRESS}",
        "server": ADDRESS,
        "tags": [],
        "created_at": node.clock.now_ms(),
        "updated_at": node.clock.now_ms(),
    }
    assert node.told == [("service", VOICE)]
    for ref in (VOICE, f"{VOICE}@{ADDRESS}"):
        assert (await anyone.get(f"{PATH}/{ref}")).data == service


async def test_an_id_is_there_once(ada: Client, bob: Client) -> None:
    await created(ada)
    answer = await bob.put(PATH, {"id": VOICE, "title": "Mine"})
    assert (answer.status, answer.code, answer.fields) == (409, 107, {"id"})


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"id"}),
        ({"id": None, "title": None}, {"id"}),
        ({"id": "voice", "title": "t"}, {"id"}),
        ({"id": "Com.Example", "title": "t"}, {"id"}),
        ({"id": "com..voice", "title": "t"}, {"id"}),
        ({"id": "../../etc", "title": "t"}, {"id"}),
        ({"id": "a." * 64 + "b", "title": "t"}, {"id"}),
        ({"id": VOICE, "title": ""}, {"title"}),
        ({"id": VOICE, "title": "t", "url": "http://voice.example.com"}, {"url"}),
        ({"id": VOICE, "title": "t", "url": "javascript:alert(1)"}, {"url"}),
        ({"id": VOICE, "title": "t", "tags": "x"}, {"tags"}),
    ],
)
async def test_every_field_at_fault_is_named(
    node: FakeNode, ada: Client, body: Json, fields: set[str]
) -> None:
    answer = await ada.put(PATH, body)
    assert (answer.status, answer.code, answer.fields) == (400, 105, fields)
    assert node.told == []


async def test_updating(node: FakeNode, ada: Client) -> None:
    service = await created(ada, description="Old", url="https://a.example/")
    node.clock.advance(5)
    changed = (
        await ada.post(f"{PATH}/{VOICE}", {"title": "New", "description": None, "url": None})
    ).data
    kept = {key: service[key] for key in set(service) - {"description", "url"}}
    assert changed == {**kept, "title": "New", "updated_at": service["updated_at"] + 5}
    assert node.told == [("service", VOICE)] * 2
    assert (await ada.post(f"{PATH}/{VOICE}", {"id": "x", "owner": "u_1"})).data == changed
    assert len(node.told) == 2


async def test_others_change_nothing_and_admins_may(
    ada: Client, bob: Client, anyone: Client, admin: Client
) -> None:
    await created(ada)
    path = f"{PATH}/{VOICE}"
    for answer in (await bob.post(path, {"title": "Mine"}), await bob.delete(path)):
        assert (answer.status, answer.code) == (403, 4)
    for answer in (await anyone.put(PATH, {}), await anyone.delete(path)):
        assert (answer.status, answer.code) == (401, 3)
    assert (await bob.put(PATH, {"id": "a.b", "title": "t", "tags": ["avr:official"]})).code == 4
    official = (await admin.post(path, {"tags": ["avr:official"]})).data
    assert official["tags"] == ["avr:official"]
    assert (await ada.post(path, {"tags": ["avr:nonsense"]})).code == 38


async def test_deleting(ada: Client) -> None:
    await created(ada)
    path = f"{PATH}/{VOICE}"
    assert (await ada.delete(path)).data == {}
    for answer in (await ada.get(path), await ada.delete(path), await ada.post(path, {})):
        assert (answer.status, answer.code) == (404, 106)
    assert (await created(ada))["id"] == VOICE


async def test_searching(ada: Client, bob: Client, admin: Client, anyone: Client) -> None:
    await created(ada)
    await created(bob, "com.example.maps", title="Maps", description="Where voices are.")
    await created(admin, "org.example.chat", title="Chat", tags=["avr:official"])

    async def found(query: str, client: Client = anyone) -> list[str]:
        return [one["id"] for one in (await client.get(f"{PATH}?{query}")).data["items"]]

    assert await found("") == ["org.example.chat", "com.example.maps", VOICE]
    assert await found("query=VOICE") == ["com.example.maps", VOICE]
    assert await found("tag=avr:official") == ["org.example.chat"]
    assert await found("owner=bob") == ["com.example.maps"]
    assert await found("owner=@me", ada) == [VOICE]
    assert await found("owner=nobody") == await found("owner=") == []
    assert await found("limit=1&offset=1") == ["com.example.maps"]
    assert (await anyone.get(f"{PATH}?limit=500")).code == 105


@pytest.mark.parametrize("ref", ["nonsense", "%00", "u_1", "..%2f..%2fetc", "a.b", "' OR 1=1"])
async def test_unknown_services(anyone: Client, ref: str) -> None:
    answer = await anyone.get(f"{PATH}/{ref}")
    assert (answer.status, answer.code) in {(404, 106), (404, 2)}


TOKEN = f"{PATH}/{VOICE}/token"


async def a_token(client: Client) -> Json:
    given: Json = (await client.ask("POST", TOKEN)).data
    return given


async def test_a_service_acts_as_a_user_of_its_own(
    app: ReiletaApp, node: FakeNode, ada: Client, bob: Client, anyone: Client
) -> None:
    service = await created(ada)
    for stranger, code in ((bob, 4), (anyone, 3)):
        assert (await stranger.ask("POST", TOKEN)).code == code
        assert (await stranger.ask("DELETE", TOKEN)).code == code
    given = await a_token(ada)
    token, user = given.pop("token"), given.pop("user")
    assert token.startswith("ua_")
    assert given.pop("expires_at") == node.clock.now_ms() + TOKEN_MS
    assert given == service
    assert token not in str((await ada.get(f"{PATH}/{VOICE}")).body)
    voice = Client(app, token)
    me = (await voice.get("/api/users/@me")).data
    assert (f"{me['id']}@{ADDRESS}", me["displayname"]) == (user, "Voice")
    assert me["id"] != ada.me["id"]
    # It owns things like any user, and has no rights of its owner.
    made = (await voice.put("/api/nodes", {"title": "Farm"})).data
    assert made["owner"] == user
    assert (await ada.delete(f"/api/nodes/{made['id']}")).code == 4
    assert (await voice.ask("POST", TOKEN)).code == 4
    assert (await voice.delete(f"{PATH}/{VOICE}")).code == 4
    assert (await voice.put(PATH, {"id": "com.example.other"})).code == 4
    # Another token replaces the first one at once; the user stays.
    again = await a_token(ada)
    assert again["user"] == user
    assert len(node.ended) == 1
    assert (await voice.get("/api/users/@me")).code == 101
    voice = Client(app, again["token"])
    assert (await voice.get(f"/api/nodes/{made['id']}")).data["owner"] == user
    for _ in range(2):
        assert (await ada.delete(TOKEN)).status == 200
    assert len(node.ended) == 2
    assert (await voice.get("/api/users/@me")).code == 101
    # With the service go its user and the nodes.
    voice = Client(app, (await a_token(ada))["token"])
    assert (await voice.get("/api/users/@me")).status == 200
    assert (await ada.delete(f"{PATH}/{VOICE}")).status == 200
    assert (await voice.get("/api/users/@me")).code == 101
    (gone,) = node.deleted
    assert (gone.user.id, gone.nodes) == (me["id"], (made["id"],))
    assert len(gone.sessions) == 1
    assert (await anyone.get(f"/api/users/{me['id']}")).code == 17
    assert (await ada.ask("POST", TOKEN)).code == 106


async def test_a_suspended_owner_takes_its_services_along(
    app: ReiletaApp, node: FakeNode, ada: Client, bob: Client, admin: Client
) -> None:
    await created(ada)
    await created(bob, "com.example.bobs")
    voice = Client(app, (await a_token(ada))["token"])
    bobs = Client(app, (await bob.ask("POST", f"{PATH}/com.example.bobs/token")).data["token"])
    assert (await voice.get("/api/users/@me")).status == 200
    hosts, made = node.store.host_nodes, {}
    for name, client in (("ada", ada), ("voice", voice), ("bobs", bobs)):
        made[name] = (await client.put("/api/nodes", {"title": name})).data
    tokens = {name: digest(one["token"]) for name, one in made.items()}
    linked = await hosts.link(made["voice"]["id"], tokens["voice"], server="x", version="y")
    assert linked is not None
    suspension = f"/api/users/{ada.me['id']}/suspension"
    assert (await admin.post(suspension, {})).status == 200
    assert (await voice.get("/api/users/@me")).code == 101
    assert (await bobs.get("/api/users/@me")).status == 200
    assert len(node.ended) == 2  # the owner's session, and the service's
    assert (await admin.ask("POST", TOKEN)).code == 133
    # The links of its nodes, and those of its services' nodes, end too.
    assert set(node.refreshed) == {made["ada"]["id"], made["voice"]["id"]}
    assert [await hosts.of_token(one) is None for one in tokens.values()] == [True, True, False]
    voices = made["voice"]["id"]
    assert not await hosts.seen(voices, tokens["voice"], link=linked.link, server="here")
    assert await hosts.link(voices, tokens["voice"], server="x", version="y") is None
    assert (await admin.delete(suspension)).status == 200
    assert await hosts.seen(voices, tokens["voice"], link=linked.link, server="here")
    assert None not in [await hosts.of_token(one) for one in tokens.values()]
    assert (await voice.get("/api/users/@me")).code == 101
    assert (await admin.ask("POST", TOKEN)).status == 200


async def test_a_deleted_owner_takes_the_tokens_of_its_services_along(
    app: ReiletaApp, node: FakeNode, ada: Client, admin: Client
) -> None:
    await created(ada)
    voice = Client(app, (await a_token(ada))["token"])
    assert (await voice.get("/api/users/@me")).status == 200
    assert (await admin.delete(f"/api/users/{ada.me['id']}")).status == 200
    assert (await voice.get("/api/users/@me")).code == 101
    assert len(node.deleted[0].sessions) == 2
