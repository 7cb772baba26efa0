"""`POST /api/auth/temporary`: accounts without a password, what they may do, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from actors.node import Node
from actors.temporary_accounts import TemporaryAccounts
from api.app import ReiletaApp, create_app
from api.http.endpoint import Operation
from api.rate_limits import TEMPORARY
from reileta.security.passwords import Passwords
from tests.api.clients import PASSWORD, Client, registered
from tests.api.fakes import FakeNode

DAY_MS = 24 * 3600 * 1000
FULL = {"username": "ada", "password": PASSWORD}


@pytest.fixture
async def node(node: FakeNode) -> FakeNode:
    node.settings = node.settings.model_copy(update={"temporary_accounts": 2})
    return node


async def made(app: ReiletaApp, body: dict[str, Any] | None = None) -> Client:
    """A client with a temporary account."""
    client = Client(app)
    login = (await client.post("/api/auth/temporary", body or {})).data
    client.token, client.me, client.session = login["token"], login["user"], login["id"]
    return client


@pytest.fixture
async def eve(app: ReiletaApp) -> Client:
    return await made(app)


async def test_one_request_makes_an_account_that_everybody_sees_as_temporary(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    answer = await Client(app).ask("POST", "/api/auth/temporary")  # no body at all
    login, user = answer.data, answer.data["user"]
    assert user["temporary"] is True
    assert user["username"].startswith("temp_")
    assert user["displayname"].startswith("Guest ")
    assert login["access_expires"] == login["refresh_expires"] == node.clock.now_ms() + DAY_MS
    assert f"Max-Age={24 * 3600}" in answer.headers["Set-Cookie"]
    seen = (await ada.get(f"/api/users/{user['id']}")).data
    assert seen["temporary"] is True
    assert "temporary" not in ada.me
    named = await made(app, {"displayname": " Eve "})
    assert named.me["displayname"] == "Eve"
    assert (await Client(app).post("/api/auth/temporary", {"displayname": ""})).code == 22
    assert (await named.get("/api/users/@me")).data == {**named.me}


async def test_the_server_says_whether_it_makes_them(
    app: ReiletaApp, node: FakeNode, passwords: Passwords
) -> None:
    assert (await Client(app).get("/api/server")).data["temporary_accounts"] is True
    node.settings = node.settings.model_copy(update={"temporary_accounts": 0})
    off = Client(create_app(node.as_node(), passwords=passwords))
    assert "temporary_accounts" not in (await off.get("/api/server")).data
    answer = await off.post("/api/auth/temporary", {})
    assert (answer.status, answer.code, answer.fields) == (503, 1, {"temporary_accounts"})


async def test_their_number_is_bounded(app: ReiletaApp, node: FakeNode, eve: Client) -> None:
    await made(app)
    answer = await Client(app).post("/api/auth/temporary", {})
    assert (answer.status, answer.code, answer.fields) == (503, 122, {"temporary_accounts"})
    assert answer.headers["Retry-After"] == "60"
    assert (await eve.post("/api/users/@me", FULL)).status == 200
    assert (await made(app)).me["temporary"] is True


async def test_one_address_gets_few(node: FakeNode, passwords: Passwords) -> None:
    node.settings = node.settings.model_copy(update={"temporary_accounts": 0, "rate_limits": "on"})
    client = Client(create_app(node.as_node(), passwords=passwords))
    tried = [await client.post("/api/auth/temporary", {}) for _ in range(TEMPORARY.burst + 1)]
    assert [answer.status for answer in tried] == [503] * TEMPORARY.burst + [429]


async def test_it_looks_around_but_makes_nothing(app: ReiletaApp, ada: Client, eve: Client) -> None:
    """Every operation either refuses it with error 4, or is in this list."""
    allowed = {
        "POST /api/auth/register", "POST /api/auth/temporary", "POST /api/auth/login",
        "POST /auth/login", "POST /auth/refresh", "PUT /api/challenges",
        "POST /api/users/<ref>", "DELETE /api/users/<ref>",
        "DELETE /api/users/<ref>/sessions/<session>",
        "POST /api/instances/<ref>/candidate", "DELETE /api/instances/<ref>/candidate",
        "DELETE /api/integrity/<token>", "DELETE /api/auth/logout", "POST /auth/logout",
    }  # fmt: skip
    changes = [one for one in app.operations if one.method != "GET"]
    assert {_name(one) for one in changes if one.need == "none" or one.temporary_access} == allowed
    for operation in changes:
        if _name(operation) in allowed or operation.only == "server":
            continue
        path = operation.path.replace("<ref>", "@me").replace("<type>", "document")
        for part in ("user", "other", "token", "asset", "number", "session", "peer"):
            path = path.replace(f"<{part}>", "1")
        answer = await eve.ask(operation.method, path, {} if operation.takes_body else None)
        assert (answer.status, answer.code) == (403, 4), _name(operation)
    for path in ("/api/worlds", "/api/instances", "/api/users/@me", "/session"):
        assert (await eve.get(path)).status == 200
    world = await eve.put("/api/worlds", {"title": "A meadow"})
    assert (world.code, world.fields) == (4, {"account"})


def _name(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


async def test_it_asks_no_other_server(eve: Client) -> None:
    answer = await eve.get("/api/worlds?server=other.example.org")
    assert (answer.status, answer.code, answer.fields) == (403, 4, {"account"})


async def test_a_username_and_a_password_make_it_a_full_account(
    app: ReiletaApp, node: FakeNode, eve: Client
) -> None:
    user = (await eve.post("/api/users/@me", {**FULL, "displayname": "Ada L."})).data
    assert (user["id"], user["username"], user["displayname"]) == (eve.me["id"], "ada", "Ada L.")
    assert "temporary" not in user
    assert ("user", user["id"]) in node.told
    assert (await eve.put("/api/worlds", {"title": "A meadow"})).status == 200  # the same token
    assert (await Client(app).post("/api/auth/login", FULL)).data["user"]["id"] == eve.me["id"]
    node.clock.advance(3 * DAY_MS)
    assert await node.store.sessions.expire_all()
    assert await node.store.users.left(node.clock.now_ms()) == []


async def test_either_of_both_alone_is_refused(app: ReiletaApp, ada: Client, eve: Client) -> None:
    for name, missing in (("username", "password"), ("password", "username")):
        answer = await eve.post("/api/users/@me", {name: FULL[name]})
        assert (answer.status, answer.code, answer.fields) == (400, 14, {missing})
    taken = await eve.post("/api/users/@me", FULL)
    assert (taken.status, taken.code, taken.fields) == (400, 14, {"username"})
    assert (await eve.get("/api/users/@me")).data["temporary"] is True
    renamed = await eve.post("/api/users/@me", {"displayname": "Eve", "status": "busy"})
    assert (renamed.data["displayname"], renamed.data["temporary"]) == ("Eve", True)


async def test_closed_registration_has_no_way_around(
    node: FakeNode, passwords: Passwords, admin: Client
) -> None:
    node.settings = node.settings.model_copy(update={"registration": "closed"})
    app = create_app(node.as_node(), passwords=passwords)
    eve = await made(app)
    answer = await eve.post("/api/users/@me", FULL)
    assert (answer.status, answer.code) == (503, 1)
    boss = Client(app, admin.token)
    path = f"/api/users/{eve.me['id']}"
    assert (await boss.post(path, {"tags": ["avr:admin"]})).code == 12
    assert (await boss.post(path, FULL)).data["username"] == "ada"
    assert "temporary" not in (await eve.get("/api/users/@me")).data


async def test_it_can_be_suspended_and_deletes_itself(
    app: ReiletaApp, node: FakeNode, admin: Client, eve: Client
) -> None:
    other = await made(app)
    suspension = await admin.post(f"/api/users/{eve.me['id']}/suspension", {"reason": "no spam"})
    assert suspension.status == 200
    assert (await eve.get("/api/users/@me")).status == 401
    assert (await other.ask("DELETE", "/api/users/@me")).status == 200
    assert [one.user.id for one in node.deleted] == [other.me["id"]]


async def test_a_day_after_its_last_session_it_is_deleted(
    living_app: ReiletaApp, living: Node, node: FakeNode
) -> None:
    eve, kay = await made(living_app), await made(living_app)
    ada = await registered(living_app, "ada")
    assert (await kay.ask("DELETE", "/api/auth/logout")).status == 200
    users = living.store.users

    async def remaining() -> set[str]:
        await TemporaryAccounts(living).sweep()
        found = await users.many([one.me["id"] for one in (eve, kay, ada)])
        return {name for name, one in (("eve", eve), ("kay", kay), ("ada", ada))
                if one.me["id"] in found}  # fmt: skip

    node.clock.advance(DAY_MS - 1)
    assert await remaining() == {"eve", "kay", "ada"}
    node.clock.advance(1)
    assert await remaining() == {"eve", "ada"}
    assert await living.store.sessions.expire_all() == [eve.session]
    assert await remaining() == {"eve", "ada"}
    node.clock.advance(DAY_MS)
    assert await remaining() == {"ada"}
    assert (await ada.get(f"/api/users/{eve.me['id']}")).code == 17
