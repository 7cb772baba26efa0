"""`/session`, and the order in which the session API's rules are checked."""

from __future__ import annotations

import pytest

from api.app import ReiletaApp, create_app
from api.rate_limits import TOKEN
from reileta.security.passwords import Passwords
from reileta.settings import Settings
from tests.api.clients import Client, logged_in, new_token_of
from tests.api.fakes import FakeNode


async def autopilot(app: ReiletaApp, node: FakeNode) -> Client:
    user = await node.store.users.create(
        username="pilot", displayname="Pilot", password_hash=None, autopilot=True
    )
    return await logged_in(app, node, user)


async def test_a_session_is_seen_by_itself(app: ReiletaApp) -> None:
    ada = await new_token_of(app, "ada")
    answer = await ada.get("/session")
    assert answer.body["session"] == ada.me["session"]
    assert "data" not in answer.body


async def test_one_user_logged_in_through_either_face_is_one_and_the_same(
    app: ReiletaApp,
) -> None:
    ada = await new_token_of(app, "ada")
    assert (await ada.get("/api/users/@me")).data["username"] == "ada"
    listed = (await ada.get("/api/users/@me/sessions")).data
    assert listed["total"] == 2


@pytest.fixture
def limited(node: FakeNode, passwords: Passwords) -> ReiletaApp:
    node.settings = Settings()
    return create_app(node.as_node(), passwords=passwords)


async def test_rules_are_listed_in_descending_order_of_precedence(
    limited: ReiletaApp, node: FakeNode
) -> None:
    ada = await new_token_of(limited, "ada")
    pilot = await autopilot(limited, node)
    for _ in range(TOKEN.burst + 1):
        if (await ada.get("/session")).status == 429:
            break
    bad = "/resource/document/x/acquire"
    # Everything is wrong with this request; credentials are judged first,
    assert (await Client(limited).ask("POST", bad)).status == 400
    wrong = {"Authorization": "Bearer ua_" + "x" * 43}
    assert (await Client(limited).ask("POST", bad, headers=wrong)).status == 401
    # then who it is for,
    assert (await pilot.ask("POST", bad)).status == 403
    # then how often,
    refused = await ada.ask("POST", bad)
    assert (refused.status, refused.code) == (429, 102)
    assert int(refused.headers["Retry-After"]) >= 1
    # and what is asked for comes last.
    node.clock.advance(60_000)
    assert (await ada.ask("POST", bad)).status == 400


async def test_an_autopilot_sees_its_session(app: ReiletaApp, node: FakeNode) -> None:
    pilot = await autopilot(app, node)
    session = (await pilot.get("/session")).body["session"]
    assert session["user"]["autopilot"] is True
    assert session["state"] == {}
