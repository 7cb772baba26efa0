"""The session API's definitions and models, one test for each rule.

More of them stand with what they are about: tokens in `test_tokens.py`, resources in
`test_resources.py`, states in `tests/api/ws/test_session_rules.py`.
"""

from __future__ import annotations

from datetime import datetime

import pytest
import trio

from api.app import ReiletaApp
from tests.api.clients import PASSWORD, Answer, Client, logged_in, new_token_of, with_token
from tests.api.fakes import FakeNode


async def test_clients_and_autopilots_are_collectively_referred_to_as_users(
    app: ReiletaApp, admin: Client
) -> None:
    await new_token_of(app, "ada")
    pilot = {"username": "pilot", "password": PASSWORD, "autopilot": True}
    assert (await admin.post("/api/users", pilot)).status == 200
    for username, is_autopilot in (("ada", False), ("pilot", True)):
        user = (await with_token(app, username)).me["session"]["user"]
        assert (user["username"], user["autopilot"]) == (username, is_autopilot)


async def test_a_session_is_temporary_and_independent_of_authentication(
    living_app: ReiletaApp, node: FakeNode
) -> None:
    ada = await new_token_of(living_app, "ada")
    made = await ada.post("/resource/document", {"title": "Door"})
    resource = made.body["resource"]["id"]
    assert (await ada.ask("POST", f"/resource/document/{resource}/acquire")).status == 200
    id_ = ada.me["session"]["id"]
    other = await with_token(living_app, "ada", id_)
    assert (await ada.ask("POST", "/auth/logout")).status == 200
    # Its first token is dead; it is what it was.
    session = (await other.get("/session")).body["session"]
    assert (session["id"], session["resource"]["id"]) == (id_, resource)
    # It ends with its last one.
    node.clock.advance(60_000)
    assert not await node.store.sessions.expire(id_)
    assert (await other.ask("POST", "/auth/logout")).status == 200
    assert await node.store.sessions.expire(id_)
    assert (await with_token(living_app, "ada", id_)).me["session"]["id"] != id_


async def test_each_token_is_associated_with_a_session_many_to_one(app: ReiletaApp) -> None:
    one = await new_token_of(app, "ada")
    id_ = one.me["session"]["id"]
    two, three = await with_token(app, "ada", id_), await with_token(app, "ada", id_)
    other = await with_token(app, "ada")
    assert len({client.token for client in (one, two, three, other)}) == 4
    for client in (one, two, three):
        assert (await client.get("/session")).body["session"]["id"] == id_
    assert (await other.get("/session")).body["session"]["id"] != id_


async def test_each_session_is_associated_with_a_user_many_to_one(app: ReiletaApp) -> None:
    ada, bob = await new_token_of(app, "ada"), await new_token_of(app, "bob")
    more = await with_token(app, "ada")
    seen = [(await one.get("/session")).body["session"] for one in (ada, more, bob)]
    assert len({session["id"] for session in seen}) == 3
    assert [session["user"]["username"] for session in seen] == ["ada", "ada", "bob"]
    assert seen[0]["user"] == seen[1]["user"] != seen[2]["user"]


async def test_a_user_has_these_fields(app: ReiletaApp, node: FakeNode) -> None:
    account = {"username": "ada", "password": PASSWORD, "displayname": "Ada", "email": "a@b.org"}
    assert (await Client(app).post("/api/auth/register", account)).status == 200
    ada = await with_token(app, "ada")
    user = ada.me["session"]["user"]
    assert type(user.pop("id")) is int
    assert user == {
        "username": "ada",
        "display_name": "Ada",
        "email": "a@b.org",
        "autopilot": False,
        "admin": False,
    }
    admin = await logged_in(app, node, await node.store.users.main_admin())
    session = (await admin.get("/session")).body["session"]
    assert session["user"]["admin"] is True
    assert session["user"]["email"] is None


@pytest.mark.parametrize(
    ("kind", "given", "own"),
    [
        ("document", [1, {"x": None}], [1, {"x": None}]),
        (
            "world",
            {"capacity": 4, "description": "Wet"},
            {"capacity": 4, "description": "Wet", "tags": ["avr:public"]},
        ),
    ],
)
async def test_all_resources_include_id_and_owner_and_types_implement_their_own_fields(
    living_app: ReiletaApp, kind: str, given: object, own: object
) -> None:
    ada = await new_token_of(living_app, "ada")
    made = await ada.post(f"/resource/{kind}", {"title": "Harbour", "data": given})
    path = f"/resource/{kind}/{made.body['resource']['id']}"
    acquired = await ada.ask("POST", f"{path}/acquire")
    previews = [
        (await ada.get(f"{path}/preview")).body["resource"],
        *(await ada.get(f"/resource/{kind}")).body["resources"],
    ]
    views = [
        made.body["resource"],
        (await ada.get(f"{path}/view")).body["resource"],
        (await ada.patch(path, {"title": "Harbour"})).body["resource"],
    ]
    metadata = [
        acquired.body["resource"],
        (await ada.get("/session")).body["session"]["resource"],
        (await ada.ask("POST", f"{path}/release")).body["resource"],
    ]
    owner = {**ada.me["session"]["user"], "email": None}
    for shown in (*previews, *views, *metadata):
        assert type(shown["id"]) is int
        assert shown["id"] == views[0]["id"]
        assert shown["owner"] == owner
        assert shown["type"] == kind
    for shown in metadata:
        assert set(shown) == {"id", "type", "owner", "title", "version"}
    for shown in (*previews, *views):
        for time in (shown["created_at"], shown["updated_at"]):
            assert datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f%z").tzinfo is not None
    assert all("data" not in shown for shown in previews)
    assert all(shown["data"] == own for shown in views)


async def test_these_restrictions_prevent_race_conditions(living_app: ReiletaApp) -> None:
    ada = await new_token_of(living_app, "ada")
    rivals = [ada, *[await with_token(living_app, "ada") for _ in range(4)]]
    made = await ada.post("/resource/document", {"title": "Door", "data": {}})
    path = f"/resource/document/{made.body['resource']['id']}"
    answers: dict[int, tuple[Answer, Answer]] = {}

    async def race(number: int, client: Client) -> None:
        acquired = await client.ask("POST", f"{path}/acquire")
        answers[number] = acquired, await client.patch(path, {"data": {str(number): 1}})

    async with trio.open_nursery() as nursery:
        for number, client in enumerate(rivals):
            nursery.start_soon(race, number, client)
    (winner,) = (number for number, (first, _) in answers.items() if first.status == 200)
    for number, (first, second) in answers.items():
        if number == winner:
            assert second.body["resource"]["data"] == {str(winner): 1}
        else:
            assert (first.code, second.code) == (113, 113)
    assert (await rivals[winner].get(f"{path}/view")).body["resource"]["version"] == 2
