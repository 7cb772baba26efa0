"""The session API's rules of authentication, one test for each rule."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from api.app import ReiletaApp
from reileta.observability import log_events
from reileta.rules.session.tokens import REPEAT_MS
from reileta.security.credentials import digest
from tests.api.clients import PASSWORD, Client, new_token_of, registered, with_token
from tests.api.fakes import FakeNode
from tests.conftest import ManualClock

LOGIN = {"username": "ada", "password": PASSWORD}


@pytest.fixture
async def token(app: ReiletaApp) -> Client:
    return await new_token_of(app, "ada")


async def test_users_exchange_their_username_and_password_for_a_token(app: ReiletaApp) -> None:
    await registered(app, "ada")
    answer = await Client(app).post("/auth/login", LOGIN)
    token = answer.body["token"]
    assert answer.status == 200
    assert set(token) == {
        "access", "refresh", "access_expires", "refresh_expires", "killed_at", "session",
    }  # fmt: skip
    assert token["access"].startswith("ua_")
    assert token["refresh"].startswith("ur_")
    assert token["killed_at"] is None
    assert set(token["session"]) == {"id", "user", "state", "resource"}
    assert set(token["session"]["user"]) == {
        "id", "username", "display_name", "email", "autopilot", "admin",
    }  # fmt: skip
    assert isinstance(token["session"]["user"]["id"], int)
    assert token["session"]["state"] == {}
    assert token["session"]["resource"] is None


async def test_fields_marked_iso_8601_follow_the_format(token: Client, clock: ManualClock) -> None:
    expires = datetime.strptime(token.me["access_expires"], "%Y-%m-%dT%H:%M:%S.%f%z")
    assert round(expires.timestamp() * 1000) == clock.now_ms() + 15 * 60_000
    expires = datetime.strptime(token.me["refresh_expires"], "%Y-%m-%dT%H:%M:%S.%f%z")
    assert round(expires.timestamp() * 1000) == clock.now_ms() + 60 * 60_000


async def test_the_api_will_return_a_json_object_with_every_response(token: Client) -> None:
    assert (await token.get("/session")).body["message"] == "OK"
    assert (await token.get("/nowhere")).body["message"] == "Request not found"
    assert (await token.ask("PUT", "/session")).body["message"] == "Method not allowed"


async def test_for_unsuccessful_requests_message_describes_what_went_wrong(
    anyone: Client,
) -> None:
    answer = await anyone.post("/auth/login", LOGIN)
    assert (answer.status, answer.body["message"]) == (401, "Auth invalid login")


async def test_except_for_login_and_refresh_every_endpoint_requires_the_header(
    app: ReiletaApp, anyone: Client
) -> None:
    asked = 0
    for rule in app.url_map.iter_rules():
        if rule.rule.startswith(("/session", "/resource", "/auth/logout")):
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                path = rule.rule.replace("<type>", "document").replace("<number>", "1")
                assert (await anyone.ask(method, path)).status == 400
                asked += 1
    assert asked > 8


@pytest.mark.parametrize("given", ["Basic abcdefgh", "Bearer", "Bearer \u00fc", "Bearer a b"])
async def test_if_the_header_is_of_the_wrong_type_or_can_not_be_parsed_400(
    anyone: Client, given: str
) -> None:
    headers = {"Authorization": given.encode().decode("latin-1")}
    answer = await anyone.get("/session", headers=headers)
    assert (answer.status, answer.code) == (400, 100)


async def test_a_cookie_is_no_header(token: Client, anyone: Client) -> None:
    answer = await anyone.get("/session", headers={"Cookie": f"_suid={token.token}"})
    assert answer.status == 400


async def test_if_the_header_is_incorrect_401(anyone: Client) -> None:
    headers = {"Authorization": "Bearer ua_" + "x" * 43}
    answer = await anyone.get("/session", headers=headers)
    assert (answer.status, answer.code) == (401, 101)


async def test_an_access_key_that_ran_out_is_incorrect(token: Client, clock: ManualClock) -> None:
    clock.advance(15 * 60_000)
    assert (await token.get("/session")).status == 401


async def test_users_can_recover_previous_sessions_by_supplying_the_sessions_id(
    app: ReiletaApp, token: Client
) -> None:
    again = await with_token(app, "ada", token.me["session"]["id"])
    assert again.me["session"]["id"] == token.me["session"]["id"]
    assert again.token != token.token


async def test_users_can_have_many_ongoing_sessions(app: ReiletaApp, token: Client) -> None:
    clients = [token, *[await with_token(app, "ada") for _ in range(9)]]
    ids = {one.me["session"]["id"] for one in clients}
    assert len(ids) == 10
    seen = [(await one.get("/session")).body["session"]["id"] for one in clients]
    assert seen == [one.me["session"]["id"] for one in clients]
    listed = (await token.get("/api/users/@me/sessions")).data["items"]
    assert ids <= {one["id"] for one in listed}


async def test_a_session_of_another_user_is_not_recovered(app: ReiletaApp, token: Client) -> None:
    await registered(app, "bob")
    bob = await with_token(app, "bob", token.me["session"]["id"])
    assert bob.me["session"]["id"] != token.me["session"]["id"]


async def test_a_session_that_has_ended_is_not_recovered(
    app: ReiletaApp, node: FakeNode, token: Client
) -> None:
    await node.store.sessions.end(token.me["session"]["id"])
    again = await with_token(app, "ada", token.me["session"]["id"])
    assert again.me["session"]["id"] != token.me["session"]["id"]


async def refresh(app: ReiletaApp, key: str) -> Any:
    return await Client(app).post("/auth/refresh", {"refresh": key})


async def test_refreshing_makes_both_keys_anew(
    app: ReiletaApp, node: FakeNode, token: Client
) -> None:
    made = (await refresh(app, token.me["refresh"])).body["token"]
    assert made["access"] != token.me["access"]
    assert made["refresh"] != token.me["refresh"]
    assert made["session"]["id"] == token.me["session"]["id"]
    assert node.admitted[0][0] == token.me["session"]["id"]
    assert (await token.get("/session")).status == 200  # the new one is not used yet
    assert (await Client(app, made["access"]).get("/session")).status == 200
    assert (await token.get("/session")).status == 401  # and now the old one is dead


async def test_a_refresh_key_used_after_its_successor_kills_the_token(
    app: ReiletaApp, node: FakeNode, token: Client, clock: ManualClock
) -> None:
    made = (await refresh(app, token.me["refresh"])).body["token"]
    owner = Client(app, made["access"])
    sibling = await with_token(app, "ada", token.me["session"]["id"])
    assert (await owner.get("/session")).status == 200
    clock.advance(REPEAT_MS)
    stolen = await refresh(app, token.me["refresh"])
    assert (stolen.status, stolen.code) == (401, 101)
    assert (await owner.get("/session")).status == 401
    assert (await refresh(app, made["refresh"])).status == 401
    assert node.killed == [digest(token.token or "")]  # by the id that stays when keys are new
    assert (await sibling.get("/session")).status == 200


@pytest.mark.parametrize("first_used", ["access", "refresh"])
async def test_the_theft_of_a_refresh_key_is_logged_without_any_secret(
    app: ReiletaApp, node: FakeNode, token: Client, clock: ManualClock, first_used: str
) -> None:
    made = (await refresh(app, token.me["refresh"])).body["token"]
    secrets = [token.me["access"], token.me["refresh"], made["access"], made["refresh"]]
    if first_used == "access":
        await Client(app, made["access"]).get("/session")
    else:
        last = (await refresh(app, made["refresh"])).body["token"]
        secrets += [last["access"], last["refresh"]]
    clock.advance(REPEAT_MS)
    with capture_logs() as logs:
        assert (await refresh(app, token.me["refresh"])).status == 401
    (event,) = (one for one in logs if one["event"] == log_events.TOKEN_REUSED)
    user = await node.store.users.by_name("ada")
    assert user is not None
    assert event == {
        "event": log_events.TOKEN_REUSED,
        "log_level": "warning",
        "session": token.me["session"]["id"],
        "user": user.id,
    }
    said = repr(logs)
    for secret in secrets:
        for form in (secret, secret[5:25], digest(secret).hex(), repr(digest(secret))):
            assert form not in said


async def test_a_refresh_key_before_its_successor_is_used_is_no_theft(
    app: ReiletaApp, token: Client
) -> None:
    with capture_logs() as logs:
        await refresh(app, token.me["refresh"])  # whose answer was lost
        made = (await refresh(app, token.me["refresh"])).body["token"]
    assert [one for one in logs if one["event"] == log_events.TOKEN_REUSED] == []
    assert (await Client(app, made["access"]).get("/session")).status == 200


@pytest.mark.parametrize("used", ["nothing", "access", "refresh"])
async def test_tabs_that_refresh_with_one_key_get_the_same_new_keys(
    app: ReiletaApp, node: FakeNode, token: Client, clock: ManualClock, used: str
) -> None:
    first = (await refresh(app, token.me["refresh"])).body["token"]
    newest = first
    if used == "access":
        assert (await Client(app, first["access"]).get("/session")).status == 200
    elif used == "refresh":
        clock.advance(1)
        newest = (await refresh(app, first["refresh"])).body["token"]
        assert (await Client(app, newest["access"]).get("/session")).status == 200
    clock.advance(REPEAT_MS - 2)
    for _ in range(2):
        again = (await refresh(app, token.me["refresh"])).body["token"]
        assert (again["access"], again["refresh"]) == (newest["access"], newest["refresh"])
        assert (await Client(app, again["access"]).get("/session")).status == 200
    assert node.killed == []
    assert node.admitted[-1] == max(node.admitted)
    clock.advance(2)
    assert (await refresh(app, newest["refresh"])).status == 200


@pytest.mark.parametrize("ending", ["logout", "session", "password"])
async def test_nothing_is_given_again_after_a_logout_or_a_new_password(
    app: ReiletaApp, token: Client, admin: Client, ending: str
) -> None:
    made = (await refresh(app, token.me["refresh"])).body["token"]
    if ending == "logout":
        assert (await Client(app, made["access"]).ask("POST", "/auth/logout")).status == 200
    elif ending == "session":
        assert (await Client(app, made["access"]).delete("/api/auth/logout")).status == 200
    else:
        change = {"password": "another one altogether"}
        assert (await admin.post("/api/users/ada", change)).status == 200
    again = await refresh(app, token.me["refresh"])
    assert (again.status, again.code) == (401, 101)


async def test_neither_a_key_nor_what_makes_one_is_stored(
    app: ReiletaApp, node: FakeNode, token: Client
) -> None:
    made = (await refresh(app, token.me["refresh"])).body["token"]
    await Client(app, made["access"]).get("/session")
    dump = ""
    for table in ("tokens", "spent_refreshes"):
        dump += str([list(row) for row in await node.store.database.fetch(f"TABLE {table}")])
    for key in (made["access"], made["refresh"], token.me["access"], token.me["refresh"]):
        raw = base64.urlsafe_b64decode(key[3:] + "=")
        for form in (key, key[3:], repr(raw), repr(raw)[2:-1]):
            assert form not in dump


async def test_an_unknown_refresh_key_is_401(app: ReiletaApp) -> None:
    assert (await refresh(app, "ur_" + "x" * 43)).status == 401


async def test_logging_out_kills_the_token_and_shows_when(
    app: ReiletaApp, node: FakeNode, token: Client, clock: ManualClock
) -> None:
    sibling = await with_token(app, "ada", token.me["session"]["id"])
    answer = await token.ask("POST", "/auth/logout")
    assert answer.status == 200
    killed_at = datetime.strptime(answer.body["token"]["killed_at"], "%Y-%m-%dT%H:%M:%S.%f%z")
    assert round(killed_at.timestamp() * 1000) == clock.now_ms()
    assert len(node.killed) == 1
    assert (await token.get("/session")).status == 401
    assert (await sibling.get("/session")).status == 200


async def test_a_token_that_was_refreshed_dies_with_all_its_keys(
    app: ReiletaApp, token: Client
) -> None:
    made = (await refresh(app, token.me["refresh"])).body["token"]
    assert (await token.get("/session")).status == 200
    assert (await Client(app, made["access"]).ask("POST", "/auth/logout")).status == 200
    assert (await token.get("/session")).status == 401
    assert (await refresh(app, made["refresh"])).status == 401


async def test_over_the_limit_the_oldest_token_goes(
    app: ReiletaApp, node: FakeNode, token: Client
) -> None:
    for _ in range(node.settings.tokens_per_user):
        await with_token(app, "ada")
    assert (await token.get("/session")).status == 401
    assert node.killed
