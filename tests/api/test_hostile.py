"""Hostile input that no one noun is about: SQL in searches, HTML in names, others' objects, lines
in headers. What is about one noun (pictures, files, tags, …) is tested with it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.api.clients import Client
from tests.api.fakes import FakeNode

SQL = [
    "' OR '1'='1",
    "'; DROP TABLE users; --",
    "\\'; DELETE FROM worlds; --",
    "%' UNION SELECT password_hash FROM users --",
    "$1",
    "{}",
    "{0}",
    "%",
    "_",
    "\\",
    "{avr:public}",
    "ARRAY['x']::text[]",
    "%s%n%(x)s",
]
SEARCHES = [
    ("/api/users", ("query",)),
    ("/api/worlds", ("query", "owner", "tag")),
    ("/api/services", ("query", "owner", "tag")),
    ("/api/instances", ("query", "owner", "tag", "world")),
]


@pytest.mark.parametrize("text", SQL)
async def test_sql_is_a_text_like_any(node: FakeNode, ada: Client, text: str) -> None:
    await ada.put("/api/worlds", {"title": "Harbour"})
    await ada.put("/api/services", {"id": "com.example.voice", "title": "Voice"})
    for path, parameters in SEARCHES:
        for parameter in parameters:
            answer = await ada.get(f"{path}?{parameter}={quote(text)}")
            assert answer.status == 200, answer.raw
            assert answer.data["total"] == 0, (path, parameter)
    for parameter in ("limit", "offset"):
        assert (await ada.get(f"/api/users?{parameter}={quote(text)}")).status == 400
    assert (await ada.get("/api/users/ada")).status == 200
    assert await node.store.database.value("SELECT count(*) FROM worlds") == 1


@pytest.mark.parametrize("text", SQL)
async def test_a_text_that_is_there_is_found_letter_by_letter(ada: Client, text: str) -> None:
    await ada.put("/api/worlds", {"title": "Harbour"})
    made = (await ada.put("/api/worlds", {"title": f"a {text} b"})).data
    found = (await ada.get(f"/api/worlds?query={quote(text)}")).data["items"]
    assert [world["id"] for world in found] == [made["id"]]


HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"


async def test_html_in_names_is_never_served_as_html(ada: Client, anyone: Client) -> None:
    await ada.post("/api/users/@me", {"displayname": HTML[:32], "description": HTML})
    world = (await ada.put("/api/worlds", {"title": HTML, "description": HTML})).data["id"]
    build = {"version": "1", "engine": "unity", "platform": "windows"}
    asset = (await ada.put(f"/api/worlds/{world}/assets", build)).data["id"]
    file = f"/api/worlds/{world}/assets/{asset}/file"
    await ada.ask("POST", file, raw=HTML.encode(), headers={"Content-Type": "text/html"})
    for path in (
        "/api/users/ada", "/api/users", f"/api/worlds/{world}", f"/api/worlds?query={quote(HTML)}",
        f"/api/users/{quote(HTML)}", f"/api/{quote(HTML)}", file,
    ):  # fmt: skip
        answer = await anyone.get(path, headers={"Accept": "text/html"})
        kind = "application/octet-stream" if path is file else "application/json"
        assert answer.headers["Content-Type"] == kind, path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    down = await anyone.get(file)
    assert down.raw == HTML.encode()
    assert down.headers["Content-Disposition"].startswith("attachment; ")
    assert "<" not in down.headers["Content-Disposition"]


async def test_nobody_reaches_anothers_objects_by_their_ids(
    ada: Client, bob: Client, admin: Client
) -> None:
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    build = {"version": "1", "engine": "unity", "platform": "windows"}
    asset = (await ada.put(f"/api/worlds/{world}/assets", build)).data["id"]
    await ada.put("/api/services", {"id": "com.example.voice", "title": "Voice"})
    own = (await bob.put("/api/worlds", {"title": "Bob's"})).data["id"]
    before = [(await admin.get(f"/api/{path}")).raw for path in (f"worlds/{world}", "users/ada")]
    asked = [
        ("POST", f"/api/users/{ada.me['id']}", {"displayname": "Mine"}),
        ("DELETE", f"/api/users/{ada.me['id']}", None),
        ("POST", f"/api/users/{ada.me['id']}/home", {"world": own}),
        ("PUT", f"/api/users/{ada.me['id']}/follows/bob", None),
        ("POST", f"/api/worlds/{world}", {"title": "Mine"}),
        ("DELETE", f"/api/worlds/{world}", None),
        ("PUT", f"/api/worlds/{world}/assets", {**build, "version": "2"}),
        ("POST", f"/api/worlds/{world}/assets/{asset}", {"version": "2"}),
        ("DELETE", f"/api/worlds/{world}/assets/{asset}", None),
        # One's own world in the path opens no door to another's asset.
        ("POST", f"/api/worlds/{own}/assets/{asset}", {"version": "2"}),
        ("DELETE", f"/api/worlds/{own}/assets/{asset}", None),
        ("POST", f"/api/worlds/{own}/assets/{asset}/file", {"a": 1}),
        ("POST", "/api/services/com.example.voice", {"title": "Mine"}),
        ("DELETE", "/api/services/com.example.voice", None),
        ("POST", "/api/server", {"title": "Mine"}),
    ]
    for method, path, body in asked:
        answer = await bob.ask(method, path, body)
        assert answer.status in (403, 404), (method, path, answer.raw)
    after = [(await admin.get(f"/api/{path}")).raw for path in (f"worlds/{world}", "users/ada")]
    assert [json.loads(one)["data"] for one in before] == [json.loads(one)["data"] for one in after]


async def test_what_is_not_ones_to_assign_is_not_assigned(ada: Client, bob: Client) -> None:
    more = {
        "owner": bob.me["id"], "id": "x", "number": 1, "created_at": 1, "updated_at": 1,
        "system": "admin", "autopilot": True, "admin": True, "password_hash": "x", "server": "evil",
        "hash": "ab" * 32, "size": 1, "empty": False,
    }  # fmt: skip
    me = (await ada.post("/api/users/@me", {"description": "x", **more})).data
    assert (me["id"], me["tags"]) == (ada.me["id"], [])
    world = (await ada.put("/api/worlds", {"title": "t", **more})).data
    assert world["owner"].startswith(ada.me["id"])
    build = {"version": "1", "engine": "unity", "platform": "windows"}
    asset = (await ada.put(f"/api/worlds/{world['id']}/assets", {**build, **more})).data
    assert asset["empty"]
    assert "hash" not in asset
    service = {**more, "id": "com.example.voice", "title": "t"}
    assert (await ada.put("/api/services", service)).data["owner"].startswith(ada.me["id"])
    for path in ("/api/users/@me", f"/api/worlds/{world['id']}", "/api/services/com.example.voice"):
        for tags in (["avr:admin"], ["avr:official"]):
            answer = await ada.post(path, {"tags": tags})
            assert answer.status in (400, 403), (path, tags)


async def test_lines_in_what_is_sent_are_no_headers(ada: Client) -> None:
    hostile = "x\r\nSet-Cookie: _suid=stolen\r\n\r\n<html>"
    for path in (f"/api/users/{quote(hostile)}", f"/api/worlds?query={quote(hostile)}"):
        answer = await ada.get(path)
        assert "Set-Cookie" not in answer.headers
    answer = await ada.put("/api/worlds", {"title": hostile})
    assert (answer.status, answer.fields) == (400, {"title"})


async def test_a_guess_learns_nothing_of_accounts(anyone: Client, ada: Client) -> None:
    answers = [
        await anyone.post("/api/auth/login", {"username": name, "password": "wrong password"})
        for name in ("ada", "nobody_is_called_this", "server", "' OR 1=1 --")
    ]
    assert len({(one.status, one.code, one.body["message"]) for one in answers}) == 1
    seen = (await anyone.get("/api/users/ada")).data
    assert not {"email", "status", "following", "home"} & set(seen)
