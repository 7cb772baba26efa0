"""Resources over HTTP, with real sessions' actors: each rule of S is a test named after it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.app import ReiletaApp
from api.http.uploads import receive
from reileta.rules.resource.json_values import VALUES_LIMIT, same
from tests.api.clients import Answer, Client, logged_in, new_token_of, with_token
from tests.api.fakes import FakeNode
from tests.api.pngs import png
from tests.conftest import ManualClock

Json = dict[str, Any]


@pytest.fixture
async def ada(living_app: ReiletaApp) -> Client:
    return await new_token_of(living_app, "ada")


@pytest.fixture
async def bob(living_app: ReiletaApp) -> Client:
    return await new_token_of(living_app, "bob")


async def made(client: Client, title: str = "Door", data: object = None) -> str:
    """A document of the client's; its path."""
    answer = await client.post("/resource/document", {"title": title, "data": data})
    assert answer.status == 200, answer.raw
    return f"/resource/document/{answer.body['resource']['id']}"


async def acquired(client: Client, path: str) -> Json:
    answer = await client.ask("POST", f"{path}/acquire")
    assert answer.status == 200, answer.raw
    resource: Json = answer.body["resource"]
    return resource


async def test_all_resources_must_include_these_fields_as_a_bare_minimum(ada: Client) -> None:
    resource = await acquired(ada, await made(ada))
    assert isinstance(resource["id"], int)
    assert resource["owner"]["username"] == "ada"


async def test_sessions_can_acquire_release_read_from_and_write_to_a_resource(
    ada: Client,
) -> None:
    path = await made(ada, data={"width": 1, "height": 2})
    await acquired(ada, path)
    written = await ada.patch(path, {"data": {"width": None, "depth": 3}})
    assert written.body["resource"]["data"] == {"height": 2, "depth": 3}
    assert written.body["resource"]["version"] == 2
    assert (await ada.get(f"{path}/view")).body["resource"] == written.body["resource"]
    metadata = {
        name: written.body["resource"][name] for name in ("id", "type", "title", "version", "owner")
    }
    assert (await ada.get("/session")).body["session"]["resource"] == metadata
    for _ in range(2):  # nobody holds it the second time
        assert (await ada.ask("POST", f"{path}/release")).body["resource"] == metadata
    assert (await ada.get("/session")).body["session"]["resource"] is None


async def test_each_session_can_acquire_up_to_one_resource_at_a_time(ada: Client) -> None:
    first, second = await made(ada), await made(ada)
    await acquired(ada, first)
    refused = await ada.ask("POST", f"{second}/acquire")
    assert (refused.status, refused.code) == (409, 114)
    assert (await ada.ask("POST", f"{first}/acquire")).code == 114


async def test_each_resource_can_be_acquired_by_up_to_one_session_at_a_time(
    living_app: ReiletaApp, ada: Client
) -> None:
    path = await made(ada)
    await acquired(ada, path)
    other = await with_token(living_app, "ada")  # the same user, in another session
    refused = await other.ask("POST", f"{path}/acquire")
    assert (refused.status, refused.code) == (409, 113)
    assert refused.body["error"]["details"]
    assert (await other.get(f"{path}/view")).code == 113
    assert (await other.patch(path, {"title": "Mine"})).code == 113
    assert (await other.ask("POST", f"{path}/release")).code == 113
    assert (await other.get(f"{path}/preview")).status == 200


async def test_a_session_must_acquire_a_resource_before_modifying_it(ada: Client) -> None:
    path = await made(ada)
    for answer in (
        await ada.patch(path, {"title": "Gate"}),
        await ada.get(f"{path}/view"),
        await ada.delete(path),
    ):
        assert (answer.status, answer.code) == (409, 115)
    assert (await ada.get(f"{path}/preview")).body["resource"]["title"] == "Door"


async def test_release_of_what_nobody_holds_is_a_no_op(ada: Client) -> None:
    path = await made(ada)
    assert (await ada.ask("POST", f"{path}/release")).status == 200


async def test_a_recognised_operation_is_needed(ada: Client) -> None:
    path = await made(ada)
    assert (await ada.ask("POST", f"{path}/steal")).status == 404


async def test_an_integral_id_and_a_known_type_are_needed(ada: Client) -> None:
    integral = await ada.ask("POST", "/resource/document/one/acquire")
    assert (integral.status, integral.fields) == (400, {"id"})
    known = await ada.ask("POST", "/resource/cupboard/1/acquire")
    assert (known.status, known.code) == (400, 112)


ROUTES = (
    ("POST", "/acquire"),
    ("POST", "/release"),
    ("POST", "/queue"),
    ("DELETE", "/queue"),
    ("GET", "/preview"),
    ("GET", "/view"),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "/share"),
    ("POST", "/unshare"),
)
"""All that name a resource."""


def body_of(method: str, path: str) -> Json | None:
    if path.endswith("share"):
        return {"user": "ada"}
    return {"title": "Gate"} if method == "PATCH" else None


@pytest.mark.parametrize(("method", "suffix"), ROUTES)
async def test_an_id_has_one_spelling(ada: Client, method: str, suffix: str) -> None:
    path = await made(ada)
    await acquired(ada, path)
    number = path.rpartition("/")[2]
    spellings = ("0{}", "00{}", "+{}", "%20{}", "{}%20", "-0{}", "{}.0", "{}e0", "0x{}", "-")
    for spelling in (*spellings, "-0", "+0", "1_0", "%D9%A4", "%0A{}", "{}%00"):
        name = f"/resource/document/{spelling.format(number)}{suffix}"
        answer = await ada.ask(method, name, body_of(method, name))
        assert (answer.status, answer.code, answer.fields) == (400, 126, {"id"}), spelling
    assert (await ada.get(f"{path}/view")).body["resource"]["version"] == 1


@pytest.mark.parametrize(("method", "suffix"), ROUTES)
async def test_ids_that_name_nothing_are_not_found(ada: Client, method: str, suffix: str) -> None:
    await made(ada)
    for number in ("0", "-1", "9" * 18, "-" + "9" * 18, "1" + "0" * 18, str(1 << 63), "9" * 300):
        name = f"/resource/document/{number}{suffix}"
        answer = await ada.ask(method, name, body_of(method, name))
        assert (answer.status, answer.code) == (404, 111), number


async def test_a_version_has_one_spelling_too(ada: Client) -> None:
    path = await made(ada)
    await acquired(ada, path)
    for version in ('"01"', "01", "+1", '"-1"', '""', '"1" "1"', "1.0"):
        answer = await ada.patch(path, {"data": 1}, headers={"If-Match": version})
        assert (answer.status, answer.code) == (400, 126), version


async def test_an_existing_resource_is_needed(ada: Client) -> None:
    missing = await ada.ask("POST", "/resource/document/999999/acquire")
    assert (missing.status, missing.code) == (404, 111)


async def test_a_write_can_ask_for_a_version(ada: Client) -> None:
    path = await made(ada)
    await acquired(ada, path)
    assert (await ada.patch(path, {"data": 1}, headers={"If-Match": '"1"'})).status == 200
    assert (await ada.patch(path, {"data": 2}, headers={"If-Match": '"1"'})).code == 116
    assert (await ada.patch(path, {"data": 2}, headers={"If-Match": "x"})).status == 400


async def test_sessions_owned_by_an_autopilot_can_not_acquire_a_resource(
    living_app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    user = await node.store.users.create(
        username="pilot", displayname="Pilot", password_hash=None, autopilot=True
    )
    pilot = await logged_in(living_app, node, user)
    path = await made(pilot)
    assert (await pilot.ask("POST", f"{path}/acquire")).status == 403


async def test_those_it_is_shared_with_may_acquire_it_until_that_is_taken_back(
    ada: Client, bob: Client
) -> None:
    path = await made(ada)
    assert (await bob.ask("POST", f"{path}/acquire")).status == 403
    assert (await bob.get(f"{path}/preview")).status == 403
    assert (await ada.post(f"{path}/share", {"user": "bob"})).status == 200
    await acquired(bob, path)
    assert (await bob.patch(path, {"data": [1]})).status == 200
    assert (await bob.delete(path)).status == 403
    assert (await ada.ask("POST", f"{path}/acquire")).code == 113
    assert (await ada.post(f"{path}/unshare", {"user": "bob"})).status == 200
    assert (await bob.patch(path, {"data": [2]})).status in (403, 409)
    assert (await bob.get("/session")).body["session"]["resource"] is None
    await acquired(ada, path)
    assert (await ada.delete(path)).status == 200
    assert (await ada.get(f"{path}/preview")).status == 404


async def test_who_gives_a_share_up_is_not_shown_it_any_more(ada: Client, bob: Client) -> None:
    """Not in the answer to that, either: it may see it no more by then."""
    private = {"title": "Lair", "data": {"tags": ["avr:private"]}}
    number = (await ada.post("/resource/world", private)).body["resource"]["id"]
    for path, code in ((await made(ada), 4), (f"/resource/world/{number}", 111)):
        assert (await ada.post(f"{path}/share", {"user": "bob"})).status == 200
        assert (await bob.get(f"{path}/preview")).status == 200
        await acquired(bob, path)
        answer = await bob.post(f"{path}/unshare", {"user": "bob"})
        assert (answer.status, answer.body["resource"]) == (200, None)
        assert (await bob.get("/session")).body["session"]["resource"] is None
        again = await bob.post(f"{path}/unshare", {"user": "bob"})
        assert again.body["error"] == (await bob.get(f"{path}/preview")).body["error"]
        assert (again.code, "details" in again.body["error"]) == (code, False)
    public = (await ada.post("/resource/world", {"title": "Sea"})).body["resource"]["id"]
    seen = await bob.post(f"/resource/world/{public}/unshare", {"user": "bob"})
    assert seen.body["resource"]["title"] == "Sea"  # as to everyone


async def test_those_a_private_world_is_shared_with_see_it_on_both_apis(
    ada: Client, bob: Client
) -> None:
    private = {"title": "Lair", "tags": ["avr:private"]}
    world = (await ada.put("/api/worlds", private)).data["id"]
    asset = (await ada.put(f"/api/worlds/{world}/assets", BUILD)).data["id"]
    listed = (await ada.get("/resource/world?query=lair")).body["resources"]
    path = f"/resource/world/{listed[0]['id']}"
    paths = (f"/api/worlds/{world}", f"/api/worlds/{world}/assets/{asset}")

    async def seen() -> list[int]:
        return [
            *[(await bob.get(one)).status for one in paths],
            (await bob.put("/api/instances", {"world": world})).status,
            (await bob.get("/api/worlds?query=lair")).data["total"],
        ]

    assert await seen() == [404, 404, 404, 0]
    assert (await ada.post(f"{path}/share", {"user": "bob"})).status == 200
    assert await seen() == [200, 200, 200, 1]
    changed = await bob.post(paths[0], {"title": "Mine"})
    assert (changed.status, changed.code) == (403, 4)
    assert (await ada.post(f"{path}/unshare", {"user": "bob"})).status == 200
    assert await seen() == [404, 404, 404, 0]


async def test_who_is_an_admin_no_more_is_not_shown_what_it_has(
    living_app: ReiletaApp, node: FakeNode, ada: Client, bob: Client
) -> None:
    path = await made(ada)
    users = node.store.users
    user = await users.by_name("bob")
    assert user is not None
    admin = await logged_in(living_app, node, await users.grant(user.id, "avr:admin"))
    await acquired(admin, path)
    assert (await admin.get("/session")).body["session"]["resource"] is not None
    await users.update(user.id, tags=frozenset())
    living_app.auth.forget_user(user.id)
    assert (await admin.get("/session")).body["session"]["resource"] is None
    for answer in (await admin.get(f"{path}/view"), await admin.patch(path, {"data": 1})):
        assert (answer.status, answer.code) == (403, 4)
    assert (await admin.ask("POST", f"{path}/release")).status == 200
    await acquired(ada, path)


async def test_lists_show_what_one_may_see(ada: Client, bob: Client) -> None:
    await made(ada, "Front door")
    await made(ada, "Gate")
    listed = (await ada.get("/resource/document?query=door")).body
    assert [one["title"] for one in listed["resources"]] == ["Front door"]
    assert listed["total"] == 1
    assert (await bob.get("/resource/document")).body["total"] == 0
    assert (await ada.get("/resource/document?server=other.example.org")).code == 5


async def test_a_document_is_up_to_256_kib(ada: Client) -> None:
    path = await made(ada, data="x" * (256 * 1024 - 2))
    await acquired(ada, path)
    assert (await ada.patch(path, {"data": "x" * (256 * 1024)})).status == 413
    assert (
        await ada.post("/resource/document", {"title": "x", "data": "x" * 300_000})
    ).status == 413


async def test_a_world_is_a_resource_by_its_number(ada: Client) -> None:
    data = {"capacity": 4, "tags": ["avr:public"]}
    made = await ada.post("/resource/world", {"title": "Harbour", "data": data})
    number = made.body["resource"]["id"]
    await acquired(ada, f"/resource/world/{number}")
    answer = await ada.patch(f"/resource/world/{number}", {"data": {"capacity": 9}})
    assert answer.body["resource"]["data"]["capacity"] == 9
    worlds = (await ada.get("/api/worlds?owner=@me")).data["items"]
    assert [one["capacity"] for one in worlds] == [9]


async def test_the_end_of_a_session_frees_its_resource(living_app: ReiletaApp, ada: Client) -> None:
    path = await made(ada)
    await acquired(ada, path)
    other = await with_token(living_app, "ada")
    id_ = ada.me["session"]["id"]
    assert (await other.delete(f"/api/users/@me/sessions/{id_}")).status == 200
    await acquired(other, path)


@dataclass
class HeldWorld:
    """A world of Ada's with an asset, that one session has; `other` is another session of hers."""

    path: str
    resource: str
    asset: str
    other: Client


BUILD = {"version": "1", "engine": "unity", "platform": "windows"}


async def sent(client: Client, path: str, raw: bytes, kind: str) -> Answer:
    return await client.ask("POST", path, raw=raw, headers={"Content-Type": kind})


@pytest.fixture
async def world(living_app: ReiletaApp, ada: Client) -> HeldWorld:
    path = f"/api/worlds/{(await ada.put('/api/worlds', {'title': 'Harbour'})).data['id']}"
    asset = f"{path}/assets/{(await ada.put(f'{path}/assets', BUILD)).data['id']}"
    assert (await sent(ada, f"{path}/thumbnail", png(), "image/png")).status == 200
    number = (await ada.get("/resource/world?query=harbour")).body["resources"][0]["id"]
    return HeldWorld(path, f"/resource/world/{number}", asset, await with_token(living_app, "ada"))


async def test_while_a_session_has_a_world_others_changes_of_it_and_its_assets_are_refused(
    ada: Client, world: HeldWorld
) -> None:
    async def changes(client: Client) -> list[Answer]:
        return [
            await client.post(world.path, {"title": "Mine"}),
            await client.put(f"{world.path}/assets", {**BUILD, "version": "2"}),
            await client.post(world.asset, {"version": "3"}),
            await sent(client, f"{world.asset}/file", b"build", "application/octet-stream"),
            await client.delete(world.asset),
            await sent(client, f"{world.path}/thumbnail", png(), "image/png"),
            await client.delete(f"{world.path}/thumbnail"),
            await client.delete(world.path),
        ]

    await acquired(ada, world.resource)
    for answer in await changes(world.other):
        assert (answer.status, answer.code) == (409, 113)
    assert {answer.status for answer in (await changes(ada))[:-1]} == {200}


async def test_once_a_session_gives_a_world_up_others_may_change_it(
    ada: Client, world: HeldWorld
) -> None:
    await acquired(ada, world.resource)
    assert (await ada.ask("POST", f"{world.resource}/release")).status == 200
    assert (await world.other.post(world.path, {"title": "Mine"})).status == 200
    assert (await world.other.delete(world.path)).status == 200


async def test_a_file_that_came_in_while_another_acquired_the_world_is_refused(
    ada: Client, world: HeldWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was free when the upload began."""

    async def slowly(*args: Any, **more: Any) -> None:
        await receive(*args, **more)
        await acquired(ada, world.resource)

    monkeypatch.setattr("api.http.registry.assets.receive", slowly)
    path = f"{world.asset}/file"
    answer = await sent(world.other, path, b"build", "application/octet-stream")
    assert (answer.status, answer.code) == (409, 113)
    assert (await ada.get(world.asset)).data["empty"] is True


numbers = (
    st.integers(-(2**80), 2**80).map(str)
    | st.integers(-(10**308), 10**308).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
)
strings = st.text(max_size=6).map(json.dumps) | st.sampled_from(
    [r'"\u0000"', r'"\ud800"', r'"\ud83d\ude00"', r'"\/"', '"\u2028:{"', r'"\u003a"']
)
texts = st.recursive(
    numbers | strings | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda some: f"[{','.join(some)}]")
        | st.lists(st.tuples(strings, inner), max_size=4).map(
            lambda some: "{" + ",".join(f"{name}:{value}" for name, value in some) + "}"
        )
    ),
    max_leaves=10,
)
"""JSON as text: numbers of any size, halves of surrogate pairs, names that are given twice."""


async def test_what_is_accepted_comes_back_as_an_equal_value(
    ada: Client, node: FakeNode, clock: ManualClock
) -> None:
    """Through the real database, with a document, its patch, and its view."""
    path = await made(ada)
    await acquired(ada, path)
    outcomes: Counter[int] = Counter()
    seen: list[str] = []

    @given(texts)
    @settings(max_examples=150, database=None, derandomize=True, deadline=None)
    def gather(text: str) -> None:
        seen.append(text)

    gather()
    for text in seen:
        clock.advance(250)
        raw = b'{"title":"x","data":{"it":[%b]}}' % text.encode()
        answer = await ada.ask("PATCH", path, raw=raw)
        outcomes[answer.status] += 1
        if answer.status == 200:
            expected: Any = {"it": [json.loads(text)]}
            view = await ada.get(f"{path}/view")
            for one in (answer, view):
                assert same(one.body["resource"]["data"], expected), text
        else:
            assert (answer.status, answer.code) == (400, 126), text
            assert all(field.startswith("data.it.0") for field in answer.fields), text
    assert outcomes[200] > 40
    assert outcomes[400] > 3


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ('{"a":1e400}', "data.a"),
        ('{"a":[1' + "0" * 309 + "]}", "data.a.0"),
        ('{"a":{"b":1,"b":1}}', "data.a.b"),
        (r'{"a":"\udfff"}', "data.a"),
    ],
)
async def test_what_can_not_be_kept_changes_nothing(ada: Client, data: str, field: str) -> None:
    path = await made(ada, data={"a": 1})
    await acquired(ada, path)
    for method, where in (("PATCH", path), ("POST", "/resource/document")):
        answer = await ada.ask(method, where, raw=b'{"title":"x","data":%b}' % data.encode())
        assert (answer.status, answer.code, answer.fields) == (400, 126, {field})
    assert (await ada.get(f"{path}/view")).body["resource"]["data"] == {"a": 1}


async def test_a_document_of_too_many_values_is_too_large(ada: Client) -> None:
    path = await made(ada, data=[0] * (VALUES_LIMIT - 1))
    await acquired(ada, path)
    assert (await ada.get(f"{path}/view")).body["resource"]["data"] == [0] * (VALUES_LIMIT - 1)
    answer = await ada.patch(path, {"data": [0] * VALUES_LIMIT})
    assert (answer.status, answer.code, answer.fields) == (413, 103, {"data"})
    answer = await ada.patch(path, {"data": [0] * 2 * VALUES_LIMIT})
    assert (answer.status, answer.code, answer.fields) == (413, 103, {"body"})
