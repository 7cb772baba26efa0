"""Accounts that admins make."""

from __future__ import annotations

from api.app import ReiletaApp
from tests.api.clients import PASSWORD, Client, with_token

PILOT = {"username": "pilot", "password": PASSWORD, "autopilot": True}


async def test_an_admin_makes_an_autopilot_which_logs_in(app: ReiletaApp, admin: Client) -> None:
    assert (await admin.post("/api/users", PILOT)).data["username"] == "pilot"
    pilot = await with_token(app, "pilot")
    assert pilot.me["session"]["user"]["autopilot"] is True


async def test_without_autopilot_it_is_a_client(admin: Client, app: ReiletaApp) -> None:
    await admin.post("/api/users", {"username": "carl", "password": PASSWORD})
    carl = await with_token(app, "carl")
    assert carl.me["session"]["user"]["autopilot"] is False


async def test_nobody_else_makes_accounts(ada: Client, anyone: Client) -> None:
    refused = await ada.post("/api/users", {"username": 1})  # who asks is judged before what
    assert (refused.status, refused.code) == (403, 4)
    assert (await anyone.post("/api/users", PILOT)).code == 3


async def test_a_name_that_is_taken_is_refused(admin: Client, ada: Client) -> None:
    assert (await admin.post("/api/users", {"username": "ADA"})).code == 22
