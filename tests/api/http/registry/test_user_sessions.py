"""A user's sessions, as it sees and ends them itself, and as admins do."""

from __future__ import annotations

from api.app import ReiletaApp
from tests.api.clients import Client, new_token_of, with_token
from tests.api.fakes import FakeNode


async def test_a_user_sees_and_ends_its_own(app: ReiletaApp, node: FakeNode) -> None:
    ada = await new_token_of(app, "ada")
    other = await with_token(app, "ada")
    listed = (await ada.get("/api/users/@me/sessions")).data["items"]
    assert {one["id"]: one["current"] for one in listed}[ada.me["session"]["id"]] is True
    id_ = other.me["session"]["id"]
    assert (await ada.delete(f"/api/users/@me/sessions/{id_}")).status == 200
    assert node.ended == [id_]
    assert (await other.get("/session")).status == 401
    assert (await ada.delete(f"/api/users/@me/sessions/{id_}")).code == 20
    assert (await ada.delete("/api/users/@me/sessions/nothing")).code == 20


async def test_an_admin_sees_and_ends_anyones(app: ReiletaApp, admin: Client) -> None:
    ada = await new_token_of(app, "ada")
    id_ = ada.me["session"]["id"]
    listed = (await admin.get("/api/users/ada/sessions")).data["items"]
    assert id_ in {one["id"] for one in listed}
    assert (await admin.delete(f"/api/users/ada/sessions/{id_}")).status == 200
    assert (await ada.get("/session")).status == 401


async def test_nobody_else_does(app: ReiletaApp, bob: Client) -> None:
    ada = await new_token_of(app, "ada")
    id_ = ada.me["session"]["id"]
    assert (await bob.get("/api/users/ada/sessions")).code == 4
    assert (await bob.delete(f"/api/users/ada/sessions/{id_}")).code == 4
    assert (await bob.delete(f"/api/users/@me/sessions/{id_}")).code == 20
    assert (await ada.get("/session")).status == 200


async def test_a_credential_is_needed(anyone: Client) -> None:
    assert (await anyone.get("/api/users/@me/sessions")).code == 3
