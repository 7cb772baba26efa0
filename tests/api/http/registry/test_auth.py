"""`/api/auth/…`: register, log in, log out."""

from __future__ import annotations

from typing import Any

import pytest

from api.app import ReiletaApp, create_app
from reileta.security.credentials import digest
from reileta.security.passwords import SERVER, Passwords, Requester
from tests.api.clients import PASSWORD, Client, registered
from tests.api.fakes import ADDRESS, FakeNode

NEW = {"username": "ada", "password": PASSWORD}
WEEK_MS = 7 * 24 * 3600 * 1000


async def test_registering_opens_a_session_with_a_token(app: ReiletaApp, node: FakeNode) -> None:
    answer = await Client(app).post(
        "/api/auth/register", {**NEW, "displayname": " Ada L. ", "email": "ada@example.org"}
    )
    login = answer.data
    assert set(login) == {
        "id", "token", "refresh", "access_expires", "refresh_expires", "created_at", "user",
    }  # fmt: skip
    now = node.clock.now_ms()
    assert login["token"].startswith("ua_")
    assert login["refresh"].startswith("ur_")
    assert (login["access_expires"], login["refresh_expires"]) == (now + WEEK_MS, now + WEEK_MS)
    assert login["created_at"] == now
    user = login["user"]
    assert user == {
        "id": user["id"],
        "username": "ada",
        "displayname": "Ada L.",
        "tags": [],
        "server": ADDRESS,
        "created_at": now,
        "updated_at": now,
        "email": "ada@example.org",
        "status": "offline",
        "following": [],
    }
    session = await node.store.sessions.get(login["id"])
    assert session is not None
    assert session.user_id == user["id"]


async def test_the_token_comes_as_a_cookie_too(app: ReiletaApp, node: FakeNode) -> None:
    answer = await Client(app).post("/api/auth/register", NEW)
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{app.auth.cookie}={answer.data['token']};")
    for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604800"):
        assert part in cookie
    assert "Secure" not in cookie
    answer = await Client(app).post("/api/auth/login", NEW, scheme="https")
    assert "Secure" in answer.headers["Set-Cookie"]


async def test_display_is_another_name_of_displayname(app: ReiletaApp) -> None:
    answer = await Client(app).post("/api/auth/register", {**NEW, "display": "Countess"})
    assert answer.data["user"]["displayname"] == "Countess"


async def test_the_displayname_is_the_username_if_not_given(app: ReiletaApp) -> None:
    answer = await Client(app).post("/api/auth/register", {**NEW, "displayname": None})
    assert answer.data["user"]["displayname"] == "ada"


async def test_a_taken_username_is_refused_whatever_its_case(app: ReiletaApp, ada: Client) -> None:
    for name in ("ada", "ADA", "server", "Admin"):
        answer = await Client(app).post("/api/auth/register", {**NEW, "username": name})
        assert (answer.status, answer.code, answer.fields) == (400, 22, {"username"})


async def test_what_a_registrant_may_not_set_has_no_effect(app: ReiletaApp, node: FakeNode) -> None:
    answer = await Client(app).post(
        "/api/auth/register",
        {**NEW, "tags": ["avr:admin"], "autopilot": True, "id": "u_0", "number": 1, "admin": True},
    )
    user = await node.store.users.by_name("ada")
    assert user is not None
    assert (user.tags, user.autopilot, user.admin) == (frozenset(), False, False)
    assert answer.data["user"]["id"] == user.id


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"username": None}, {"username"}),
        ({"username": "a"}, {"username"}),
        ({"username": "1ada"}, {"username"}),
        ({"username": "ada\n"}, {"username"}),
        ({"username": "@ada"}, {"username"}),
        ({"username": 5}, {"username"}),
        ({"username": "аda"}, {"username"}),
        ({"password": "short"}, {"password"}),
        ({"password": "x" * 257}, {"password"}),
        ({"password": ["x"] * 10}, {"password"}),
        ({"password": "12345678\0"}, {"password"}),
        ({"password": "12345678\ud800"}, {"password"}),
        ({"displayname": "   "}, {"displayname"}),
        ({"displayname": "x" * 33}, {"displayname"}),
        ({"displayname": "a\0b"}, {"displayname"}),
        ({"displayname": "a\ud800b"}, {"displayname"}),
        ({"displayname": "a\u202eb"}, {"displayname"}),
        ({"email": "nobody"}, {"email"}),
        ({"email": "a@b.c\0"}, {"email"}),
        ({"email": {}}, {"email"}),
        ({"username": "", "password": "", "email": ""}, {"username", "password", "email"}),
    ],
)
async def test_every_field_at_fault_is_named(
    app: ReiletaApp, change: dict[str, Any], fields: set[str]
) -> None:
    answer = await Client(app).post("/api/auth/register", {**NEW, **change})
    assert (answer.status, answer.code, answer.fields) == (400, 22, fields)
    assert PASSWORD.encode() not in answer.raw


async def test_registration_can_be_closed(node: FakeNode, passwords: Passwords) -> None:
    node.settings = node.settings.model_copy(update={"registration": "closed"})
    app = create_app(node.as_node(), passwords=passwords)
    answer = await Client(app).post("/api/auth/register", NEW)
    assert (answer.status, answer.code) == (503, 1)


async def test_logging_in_opens_a_session_of_its_own(app: ReiletaApp, ada: Client) -> None:
    first = (await Client(app).post("/api/auth/login", NEW)).data
    second = (await Client(app).post("/api/auth/login", {**NEW, "username": "ADA"})).data
    assert first["user"]["id"] == second["user"]["id"] == ada.me["id"]
    assert first["id"] != second["id"]
    assert first["token"] != second["token"]


async def test_a_session_can_be_recovered(app: ReiletaApp, ada: Client) -> None:
    first = (await Client(app).post("/api/auth/login", NEW)).data
    again = (await Client(app).post("/api/auth/login", {**NEW, "session_id": first["id"]})).data
    assert again["id"] == first["id"]
    assert again["token"] != first["token"]


async def test_a_session_of_another_or_ended_is_not_recovered(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    bobs = (
        await Client(app).post("/api/auth/register", {"username": "bob", "password": PASSWORD})
    ).data["id"]
    ended = (await Client(app).post("/api/auth/login", NEW)).data["id"]
    await node.store.sessions.end(ended)
    for session_id in (bobs, ended, "s_nonsense", ""):
        login = await Client(app).post("/api/auth/login", {**NEW, "session_id": session_id})
        assert login.data["id"] not in (bobs, ended)


async def test_a_wrong_login_says_no_more_than_that(app: ReiletaApp, ada: Client) -> None:
    wrong = [
        {**NEW, "password": "not the password"},
        {**NEW, "username": "nobody"},
        {**NEW, "username": "server"},
        {**NEW, "username": "not a name"},
    ]
    answers = [await Client(app).post("/api/auth/login", login) for login in wrong]
    assert {(answer.status, answer.code) for answer in answers} == {(401, 23)}
    assert len({str(answer.body["error"]) for answer in answers}) == 1
    assert all("Set-Cookie" not in answer.headers for answer in answers)


async def test_an_unknown_name_costs_a_verification_too(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    class Counting(Passwords):
        async def verify(self, hash_: str | None, password: str, by: Requester = SERVER) -> bool:
            asked.append(hash_)
            return False

    app = create_app(node.as_node(), passwords=Counting())
    for name in ("nobody", "not a name"):
        await Client(app).post("/api/auth/login", {"username": name, "password": "x"})
    assert asked == [None, None]


async def test_missing_login_fields(app: ReiletaApp) -> None:
    answer = await Client(app).post("/api/auth/login", {"session_id": 5})
    assert (answer.code, answer.fields) == (22, {"username", "password", "session_id"})


async def test_logout_kills_the_token_and_leaves_the_session(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    login = (await Client(app).post("/api/auth/login", NEW)).data
    other = (await Client(app).post("/api/auth/login", {**NEW, "session_id": login["id"]})).data
    leaving = Client(app, login["token"])
    assert (await leaving.get("/api/users/@me")).status == 200  # and it is remembered
    answer = await leaving.get("/api/auth/logout")
    assert answer.data == {}
    assert f"{app.auth.cookie}=;" in answer.headers["Set-Cookie"]
    assert node.killed == [digest(login["token"])]
    assert node.ended == []
    again = await leaving.get("/api/users/@me")
    assert (again.status, again.code) == (401, 101)
    assert (await Client(app, other["token"]).get("/api/users/@me")).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_another_sites_page_logs_nobody_out(
    app: ReiletaApp, node: FakeNode, ada: Client, method: str
) -> None:
    cookie = {"Cookie": f"_suid={ada.token}", "Host": "play.example.org"}
    anyone = Client(app)
    for more in (
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://play.example.org", "Sec-Fetch-Site": "cross-site"},
    ):
        answer = await anyone.ask(method, "/api/auth/logout", headers={**cookie, **more})
        assert answer.status == 401
    assert (await ada.get("/api/users/@me")).status == 200
    assert (node.killed, node.ended) == ([], [])
    own = {**cookie, "Sec-Fetch-Site": "same-origin"}
    assert (await anyone.ask(method, "/api/auth/logout", headers=own)).status == 200
    assert (await ada.get("/api/users/@me")).code == 101


async def test_a_credential_in_the_query_logs_out_from_anywhere(
    app: ReiletaApp, ada: Client
) -> None:
    headers = {"Origin": "https://a-client.example", "Sec-Fetch-Site": "cross-site"}
    path = f"/api/auth/logout?authuser={ada.token}"
    assert (await Client(app).get(path, headers=headers)).status == 200
    assert (await ada.get("/api/users/@me")).code == 101


async def test_deleting_the_session_ends_all_its_tokens(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    login = (await Client(app).post("/api/auth/login", NEW)).data
    other = (await Client(app).post("/api/auth/login", {**NEW, "session_id": login["id"]})).data
    first, second = Client(app, login["token"]), Client(app, other["token"])
    for client in (first, second):
        assert (await client.get("/api/users/@me")).status == 200
    assert (await first.delete("/api/auth/logout")).data == {}
    assert node.ended == [login["id"]]
    for client in (first, second):
        answer = await client.get("/api/users/@me")
        assert (answer.status, answer.code) == (401, 101)
    assert (await ada.get("/api/users/@me")).status == 200


async def test_logging_out_needs_a_credential(anyone: Client) -> None:
    for method in ("GET", "DELETE"):
        answer = await anyone.ask(method, "/api/auth/logout")
        assert (answer.status, answer.code) == (401, 3)


async def test_the_oldest_token_over_the_limit_dies_at_once(
    node: FakeNode, passwords: Passwords
) -> None:
    node.settings = node.settings.model_copy(update={"tokens_per_user": 2})
    app = create_app(node.as_node(), passwords=passwords)
    first = await registered(app, "ada")
    assert (await first.get("/api/users/@me")).status == 200
    for _ in range(2):
        await Client(app).post("/api/auth/login", NEW)
    assert first.token is not None
    assert node.killed == [digest(first.token)]
    assert (await first.get("/api/users/@me")).code == 101


async def test_a_token_expires(app: ReiletaApp, node: FakeNode, ada: Client) -> None:
    node.clock.advance(WEEK_MS - 1)
    assert (await ada.get("/api/users/@me")).status == 200
    node.clock.advance(1)
    assert (await ada.get("/api/users/@me")).code == 101
