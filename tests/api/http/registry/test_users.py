"""`/api/users`."""

from __future__ import annotations

import pytest

from api.app import ReiletaApp, create_app
from api.rate_limits import GUESSES
from reileta.records import ADMIN_TAG
from reileta.security.credentials import digest
from reileta.security.passwords import Passwords
from tests.api.clients import PASSWORD, Client, Json, logged_in, registered
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


ME = PUBLIC | {"status", "following"}


async def follows(node: FakeNode, one: Client, other: Client) -> None:
    await node.store.follows.put(one.me["id"], other.me["id"])


async def test_friends_see_status_and_since_when_and_followers_do_not(
    node: FakeNode, ada: Client, bob: Client, anyone: Client
) -> None:
    node.online[ada.me["id"]] = "busy"
    await follows(node, ada, bob)
    for client in (bob, anyone):
        assert set((await client.get("/api/users/ada")).data) == PUBLIC
    node.clock.advance(5)
    await follows(node, bob, ada)
    seen = (await bob.get("/api/users/ada")).data
    assert set(seen) == PUBLIC | {"isFriend", "status", "following_at"}
    assert (seen["isFriend"], seen["status"]) == (True, "busy")
    assert seen["following_at"] == node.clock.now_ms()
    listed = (await bob.get("/api/users?query=ada")).data["items"]
    assert listed == [seen]
    assert set((await anyone.get("/api/users/ada")).data) == PUBLIC


async def test_me_lists_whom_it_follows(node: FakeNode, ada: Client, bob: Client) -> None:
    await follows(node, ada, bob)
    following = [f"{bob.me['id']}@{ADDRESS}"]
    assert (await ada.get("/api/users/@me")).data["following"] == following
    items = (await ada.get("/api/users?query=a")).data["items"]
    mine = [user for user in items if user["id"] == ada.me["id"]]
    assert mine[0]["following"] == following


async def test_admins_see_what_is_private(admin: Client, ada: Client) -> None:
    email = {"email": "ada@example.org", "current_password": PASSWORD}
    assert (await ada.post("/api/users/@me", email)).status == 200
    seen = (await admin.get("/api/users/ada")).data
    assert set(seen) == ME | {"email"}
    assert seen["email"] == "ada@example.org"
    assert all(set(user) >= ME for user in (await admin.get("/api/users")).data["items"])


async def test_updating(node: FakeNode, ada: Client, anyone: Client) -> None:
    node.clock.advance(5)
    node.online[ada.me["id"]] = "online"
    answer = await ada.post(
        f"/api/users/{ada.me['id']}",
        {
            "username": "ada_l",
            "display": "Ada L.",
            "description": "Engines.",
            "email": "ada@example.org",
            "current_password": PASSWORD,
            "status": "away",
        },
    )
    me = answer.data
    assert me["username"] == "ada_l"
    assert me["displayname"] == "Ada L."
    assert me["description"] == "Engines."
    assert me["email"] == "ada@example.org"
    assert me["updated_at"] == node.clock.now_ms() == me["created_at"] + 5
    assert node.told == [("user", ada.me["id"])]
    assert (await ada.get("/api/users/@me")).data["username"] == "ada_l"
    assert (await anyone.get("/api/users/ada")).code == 17
    nothing = {"description": None, "email": None, "current_password": PASSWORD}
    emptied = (await ada.post("/api/users/@me", nothing)).data
    assert not {"description", "email"} & set(emptied)


async def test_the_same_name_in_other_letters_is_ones_own(ada: Client) -> None:
    changed = {"username": "ADA", "current_password": PASSWORD}
    assert (await ada.post("/api/users/@me", changed)).data["username"] == "ADA"


async def test_a_taken_name_is_refused(node: FakeNode, ada: Client, bob: Client) -> None:
    for name in ("bob", "BOB", "admin", "Server"):
        taken = {"username": name, "current_password": PASSWORD}
        answer = await ada.post("/api/users/@me", taken)
        assert (answer.status, answer.code, answer.fields) == (400, 14, {"username"})
    assert node.told == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"username": "a"}, {"username"}),
        ({"username": None}, {"username"}),
        ({"username": "u_00000000-0000-4000-8000-000000000000"}, {"username"}),
        ({"displayname": " "}, {"displayname"}),
        ({"displayname": None}, {"displayname"}),
        ({"displayname": "a\u202eb"}, {"displayname"}),
        ({"description": "x" * 4097}, {"description"}),
        ({"email": "nobody"}, {"email"}),
        ({"status": "offline"}, {"status"}),
        ({"status": None}, {"status"}),
        ({"password": "short"}, {"password"}),
        ({"password": None}, {"password"}),
        ({"tags": None}, {"tags"}),
    ],
)
async def test_every_field_at_fault_is_named(
    node: FakeNode, ada: Client, body: Json, fields: set[str]
) -> None:
    answer = await ada.post("/api/users/@me", body)
    assert (answer.status, answer.code, answer.fields) == (400, 14, fields)
    assert node.told == []


async def test_an_update_of_nothing_changes_nothing(node: FakeNode, ada: Client) -> None:
    node.clock.advance(5)
    before = (await ada.get("/api/users/@me")).data
    for body in ({}, {"unknown": 1, "id": "u_1", "created_at": 1, "autopilot": True, "home": "x"}):
        assert (await ada.post("/api/users/@me", body)).data == before
    assert node.told == []


async def test_others_change_nobody_and_admins_may(
    node: FakeNode, ada: Client, bob: Client, anyone: Client, admin: Client
) -> None:
    answer = await bob.post("/api/users/ada", {"displayname": "Mine"})
    assert (answer.status, answer.code) == (403, 12)
    answer = await bob.delete("/api/users/ada")
    assert (answer.status, answer.code) == (403, 19)
    for method in ("POST", "DELETE"):
        answer = await anyone.ask(method, "/api/users/ada", {})
        assert (answer.status, answer.code) == (401, 3)
    assert (await admin.post("/api/users/ada", {"displayname": "Tidy"})).data[
        "displayname"
    ] == "Tidy"


async def test_tags_are_the_admins_to_set(ada: Client, bob: Client, admin: Client) -> None:
    answer = await ada.post("/api/users/@me", {"tags": ["avr:admin"]})
    assert (answer.status, answer.code, answer.fields) == (403, 4, {"tags"})
    assert (await admin.post("/api/users/ada", {"tags": ["x"]})).code == 38
    assert (await admin.post("/api/users/ada", {"tags": ["avr:admin"]})).data["tags"] == [
        "avr:admin"
    ]
    # At once, although the credential was looked up a moment ago.
    assert (await ada.post("/api/users/bob", {"displayname": "Bobby"})).status == 200
    await admin.post("/api/users/ada", {"tags": []})
    assert (await ada.post("/api/users/bob", {"displayname": "Mine"})).code == 12


async def test_the_main_admin_stays_one(admin: Client) -> None:
    answer = await admin.post("/api/users/@me", {"tags": []})
    assert (answer.status, answer.code) == (403, 12)
    assert (await admin.delete("/api/users/@admin")).code == 19
    assert (await admin.delete("/api/users/@server")).code == 19
    answer = await admin.post("/api/users/@server", {"password": "a password for it"})
    assert (answer.status, answer.code) == (403, 12)


async def test_a_new_password_ends_the_other_sessions(
    app: ReiletaApp, node: FakeNode, ada: Client, anyone: Client
) -> None:
    user = await node.store.users.by_name("ada")
    assert user is not None
    other = await logged_in(app, node, user)
    change = {"password": "another one altogether", "current_password": PASSWORD}
    same = {"username": "ada", "password": PASSWORD, "session_id": ada.session}
    also = (await anyone.post("/api/auth/login", same)).data
    assert also["id"] == ada.session
    answer = await ada.post("/api/users/@me", change)
    assert answer.status == 200
    assert len(node.ended) == 1
    assert node.killed == [digest(also["token"])]
    assert (await Client(app, also["token"]).get("/api/users/@me")).code == 101
    assert (await other.get("/api/users/@me")).code == 101
    assert (await ada.get("/api/users/@me")).status == 200
    old = {"username": "ada", "password": PASSWORD}
    assert (await anyone.post("/api/auth/login", old)).code == 23
    new = {"username": "ada", "password": "another one altogether"}
    assert (await anyone.post("/api/auth/login", new)).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"password": "another one altogether"},
        {"email": "eve@example.org"},
        {"email": None},
        {"email": "eve@example.org", "password": "another one altogether", "displayname": "Eve"},
    ],
)
async def test_a_token_alone_changes_neither_password_nor_address(
    node: FakeNode, ada: Client, anyone: Client, change: dict[str, str | None]
) -> None:
    before = {"email": "ada@example.org", "current_password": PASSWORD}
    me = (await ada.post("/api/users/@me", before)).data
    answer = await ada.post("/api/users/@me", change)
    assert (answer.status, answer.code, answer.fields) == (400, 14, {"current_password"})
    for wrong in ("", "not the password", PASSWORD.upper()):
        answer = await ada.post("/api/users/ada", {**change, "current_password": wrong})
        assert (answer.status, answer.code) in ((401, 23), (400, 14))
        assert (answer.status == 400) == (wrong == "")
    assert (await ada.get("/api/users/@me")).data == me
    assert (await anyone.post("/api/auth/login", {"username": "ada", "password": PASSWORD})).data
    answer = await ada.post("/api/users/@me", {**change, "current_password": PASSWORD})
    assert answer.status == 200


async def test_what_else_changes_needs_no_password(ada: Client) -> None:
    email = {"email": "ada@example.org", "current_password": PASSWORD}
    await ada.post("/api/users/@me", email)
    # The address as it is, as a client sends it that sends all there is.
    same = {"email": "ada@example.org", "displayname": "Ada L.", "status": "busy"}
    assert (await ada.post("/api/users/@me", same)).data["displayname"] == "Ada L."


async def test_admins_need_no_password_of_others_but_their_own(
    app: ReiletaApp, node: FakeNode, ada: Client, bob: Client
) -> None:
    await node.store.users.grant(bob.me["id"], ADMIN_TAG)
    ada_s = {"email": "ada@example.org", "password": "another one altogether"}
    assert (await bob.post("/api/users/ada", ada_s)).status == 200
    assert (await bob.post("/api/users/@me", {"password": "another one"})).code == 14
    own = {"password": "another one", "current_password": "not the password"}
    assert (await bob.post("/api/users/@me", own)).code == 23
    own["current_password"] = PASSWORD
    assert (await bob.post(f"/api/users/{bob.me['id']}", own)).status == 200


async def test_an_account_without_a_password_gives_itself_one(
    app: ReiletaApp, node: FakeNode, admin: Client
) -> None:
    await admin.post("/api/users", {"username": "carl"})
    user = await node.store.users.by_name("carl")
    assert user is not None
    carl = await logged_in(app, node, user)
    assert (await carl.post("/api/users/@me", {"password": PASSWORD})).status == 200
    assert (await carl.post("/api/users/@me", {"password": PASSWORD})).code == 14


async def test_wrong_current_passwords_are_guesses(
    node: FakeNode, passwords: Passwords, ada: Client
) -> None:
    node.settings = node.settings.model_copy(update={"rate_limits": "on"})
    client = Client(create_app(node.as_node(), passwords=passwords), ada.token)
    wrong = {"password": "another one altogether", "current_password": "not the password"}
    codes = [(await client.post("/api/users/@me", wrong)).code for _ in range(GUESSES.burst + 1)]
    assert codes == [23] * GUESSES.burst + [102]
    login = {"username": "ada", "password": PASSWORD}
    assert (await client.post("/api/auth/login", login)).code == 102


async def test_a_password_that_an_admin_sets_ends_all_sessions(
    node: FakeNode, ada: Client, admin: Client
) -> None:
    await admin.post("/api/users/ada", {"password": "another one altogether"})
    assert len(node.ended) == 1
    assert (await ada.get("/api/users/@me")).code == 101
    assert (await admin.get("/api/users/@me")).status == 200


async def test_deleting_oneself(node: FakeNode, ada: Client, bob: Client, anyone: Client) -> None:
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data
    await ada.put("/api/services", {"id": "com.example.voice", "title": "Voice"})
    await follows(node, bob, ada)
    assert (await ada.ask("DELETE", "/api/users/@me", {"current_password": PASSWORD})).data == {}
    (deleted,) = node.deleted
    assert (deleted.user.id, deleted.worlds) == (ada.me["id"], (world["id"],))
    assert len(deleted.sessions) == 1
    assert (await ada.get("/api/users/@me")).code == 101
    assert (await anyone.get("/api/users/ada")).code == 17
    server = (await anyone.get("/api/users/@server")).data["id"]
    for path in (f"worlds/{world['id']}", "services/com.example.voice"):
        assert (await anyone.get(f"/api/{path}")).data["owner"] == f"{server}@{ADDRESS}"
    assert (await bob.get("/api/users/@me")).data["following"] == []
    credentials = {"username": "ada", "password": PASSWORD}
    assert (await anyone.post("/api/auth/login", credentials)).code == 23
    assert (await anyone.post("/api/auth/register", credentials)).status == 200


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("POST", {"username": "mallory"}),
        ("POST", {"username": "ADA"}),
        ("POST", {"email": "mallory@example.org"}),
        ("POST", {"password": "another one altogether"}),
        ("DELETE", {}),
    ],
)
async def test_a_token_alone_takes_no_account_away(
    node: FakeNode, ada: Client, admin: Client, method: str, change: dict[str, str]
) -> None:
    for path in ("@me", "ada", ada.me["id"]):
        answer = await ada.ask(method, f"/api/users/{path}", change)
        assert (answer.status, answer.code, answer.fields) == (400, 14, {"current_password"})
    answer = await ada.ask(method, "/api/users/@me", {**change, "current_password": "not it"})
    assert (answer.status, answer.code) == (401, 23)
    assert (await ada.get("/api/users/@me")).data == ada.me
    assert (node.told, node.deleted, node.ended) == ([], [], [])
    proven = {**change, "current_password": PASSWORD}
    assert (await ada.ask(method, "/api/users/@me", proven)).status == 200


async def test_an_account_without_a_password_is_deleted_without_one(
    app: ReiletaApp, node: FakeNode, admin: Client
) -> None:
    await admin.post("/api/users", {"username": "carl"})
    carl = await node.store.users.by_name("carl")
    assert carl is not None
    own = await logged_in(app, node, carl)
    assert (await own.post("/api/users/@me", {"username": "carla"})).status == 200
    assert (await own.delete("/api/users/@me")).data == {}


async def test_an_empty_body_by_the_name_of_json_is_none(ada: Client, admin: Client) -> None:
    kind = {"Content-Type": "application/json"}
    assert (await admin.ask("DELETE", "/api/users/ada", raw=b"", headers=kind)).data == {}


async def test_admins_delete_others(node: FakeNode, ada: Client, admin: Client) -> None:
    assert (await admin.delete("/api/users/ada")).data == {}
    assert (await admin.delete("/api/users/ada")).code == 17
    assert (await ada.get("/api/users/@me")).code == 101
