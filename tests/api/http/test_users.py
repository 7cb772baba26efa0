"""`/api/users`."""

from __future__ import annotations

import pytest

from api.app import ReiletaApp
from tests.api.clients import Client, registered
from tests.api.fakes import ADDRESS, FakeNode

PUBLIC = {"id", "username", "displayname", "tags", "server", "created_at", "updated_at"}


async def test_me_is_the_asker_with_its_private_fields(node: FakeNode, ada: Client) -> None:
    node.online[ada.me["id"]] = "away"
    me = (await ada.get("/api/users/@me")).data
    assert set(me) == PUBLIC | {"status", "following"}
    assert (me["username"], me["status"], me["following"]) == ("ada", "away", [])


async def test_others_see_the_public_user(ada: Client, bob: Client, anyone: Client) -> None:
    refs = ("ada", "ADA", ada.me["id"], f"ada@{ADDRESS}", f"{ada.me['id']}@{ADDRESS}")
    for client in (bob, anyone):
        for ref in refs:
            user = (await client.get(f"/api/users/{ref}")).data
            assert set(user) == PUBLIC
            assert user["id"] == ada.me["id"]
    for ref in refs:
        assert set((await ada.get(f"/api/users/{ref}")).data) == PUBLIC | {"status", "following"}


async def test_reserved_names(ada: Client, anyone: Client) -> None:
    assert (await anyone.get("/api/users/@server")).data["username"] == "server"
    assert (await anyone.get("/api/users/@admin")).data["tags"] == ["avr:admin"]
    assert (await ada.get(f"/api/users/@me@{ADDRESS}")).data["id"] == ada.me["id"]
    answer = await anyone.get("/api/users/@me")
    assert (answer.status, answer.code) == (401, 3)


@pytest.mark.parametrize(
    "ref",
    [
        "nobody", "u_0", "u_00000000-0000-4000-8000-000000000000", "@other", "%00", "a%00b",
        "%ED%A0%80", "a" * 4000, "w_00000000-0000-4000-8000-000000000000", "'; DROP TABLE users--",
    ],
)  # fmt: skip
async def test_unknown_users(anyone: Client, ref: str) -> None:
    answer = await anyone.get(f"/api/users/{ref}")
    assert (answer.status, answer.code) == (404, 17)


async def test_users_of_other_servers_are_not_found_yet(anyone: Client, ada: Client) -> None:
    for path in (
        "ada@other.example.org", "ada?server=other.example.org", "@me@other.example.org", "ada@",
        f"ada@{ADDRESS}?server=other.example.org",
    ):  # fmt: skip
        answer = await anyone.get(f"/api/users/{path}")
        assert (answer.status, answer.code) == (404, 5)
    assert (await anyone.get(f"/api/users/ada?server={ADDRESS}")).status == 200


async def test_searching(app: ReiletaApp, anyone: Client, ada: Client) -> None:
    for name in ("Alan", "alonzo", "grace"):
        await registered(app, name)
    found = (await anyone.get("/api/users?query=AL")).data
    assert {user["username"] for user in found["items"]} == {"Alan", "alonzo"}
    assert (found["total"], found["limit"], found["offset"]) == (2, 50, 0)
    assert all(set(user) == PUBLIC for user in found["items"])
    mine = (await ada.get("/api/users?query=ada")).data["items"]
    assert set(mine[0]) == PUBLIC | {"status", "following"}


async def test_paging(app: ReiletaApp, anyone: Client) -> None:
    for name in ("user_a", "user_b", "user_c"):
        await registered(app, name)
    pages = [
        (await anyone.get(f"/api/users?query=user_&limit=2&offset={offset}")).data
        for offset in (0, 2, 4)
    ]
    assert [len(page["items"]) for page in pages] == [2, 1, 0]
    assert {page["total"] for page in pages} == {3}
    assert len({user["id"] for page in pages for user in page["items"]}) == 3


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", {"limit"}),
        ("limit=101", {"limit"}),
        ("limit=-1", {"limit"}),
        ("limit=ten", {"limit"}),
        ("limit=1.0", {"limit"}),
        ("limit=1_0", {"limit"}),
        ("limit=", {"limit"}),
        ("limit=" + "9" * 5000, {"limit"}),
        ("limit=%D9%A1", {"limit"}),
        ("offset=-1", {"offset"}),
        ("offset=99999999999", {"offset"}),
        ("query=%00", {"query"}),
        ("query=" + "x" * 257, {"query"}),
        ("limit=x&offset=x&query=%00", {"limit", "offset", "query"}),
    ],
)
async def test_a_bad_query_names_its_fields(anyone: Client, query: str, fields: set[str]) -> None:
    answer = await anyone.get(f"/api/users?{query}")
    assert (answer.status, answer.code, answer.fields) == (400, 14, fields)
