"""What is remembered is never out of date, and never somebody else's; entity tags and 304."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import api.app
from actors.server import LiveServer
from api.app import ReiletaApp, create_app
from api.credentials import Auth
from api.http import etags
from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.http.etags import LIMIT_BYTES, AnswerCache, Cached, Data, key_of
from reileta.records import User
from reileta.security.passwords import Passwords
from reileta.security.server_key import ServerKey
from reileta.settings import Settings
from reileta.store import Store, open_store, read_cache
from reileta.store.read_cache import TABLES, ReadCache, read_by
from tests.api.clients import PASSWORD, Client, logged_in, registered
from tests.api.fakes import FakeNode, FakeOccupancy
from tests.api.pngs import png
from tests.api.requests import ask, request
from tests.conftest import ManualClock

HOUR_S = 3600
PNG = {"Content-Type": "image/png"}


@pytest.fixture(autouse=True)
def long_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches keep their entries for as long as the test runs."""
    monkeypatch.setattr(etags, "TTL_S", HOUR_S)
    monkeypatch.setattr(read_cache, "TTL_S", HOUR_S)


@pytest.fixture
async def store(database_url: str, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Store]:
    """A store that caches rows."""
    settings = Settings(database=database_url, data=tmp_path, read_cache="on")
    async with open_store(settings, clock) as store:
        yield store


@pytest.fixture
async def plain(
    node: FakeNode,
    database_url: str,
    tmp_path: Path,
    passwords: Passwords,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ReiletaApp]:
    """The same server without caches."""
    settings = Settings(database=database_url, data=tmp_path)
    async with open_store(settings, node.clock) as store:
        twin = FakeNode(store, node.clock, inside=node.inside, online=node.online)
        with monkeypatch.context() as patch:
            patch.setattr(api.app, "Auth", partial(Auth, ttl_ms=0))
            app = create_app(twin.as_node(), passwords=passwords)
        yield app


async def get(app: ReiletaApp, path: str, token: str | None, **headers: str) -> tuple[int, bytes]:
    answer = await ask(app, "directly", request(app, "GET", path, token=token, headers=headers))
    return answer.status, answer.body


async def statements(app: ReiletaApp, work: Callable[[], Awaitable[object]]) -> int:
    """How many statements the work takes."""
    before = app.node.store.database.statements
    await work()
    return app.node.store.database.statements - before


class CacheComparison:
    """Compares all that everybody sees with what it is without a memory."""

    def __init__(self, app: ReiletaApp, plain: ReiletaApp) -> None:
        self._app = app
        self._plain = plain
        self.tokens: dict[str, str | None] = {"anyone": None}
        self.paths = [
            "/api/users", "/api/users?query=ada", "/api/users/@me", "/api/users/@me/home",
            "/api/users/@me/follows", "/api/users/@me/followers",
            "/api/worlds", "/api/worlds?owner=@me", "/api/instances", "/api/instances?free=true",
            "/api/services?owner=ada", "/api/server",
        ]  # fmt: skip
        self.seen: dict[tuple[str, str], bytes] = {}

    async def compare(self) -> None:
        """Everybody asks for everything, twice: the second time it is remembered."""
        for path in self.paths:
            for who, token in self.tokens.items():
                true = await get(self._plain, path, token)
                for _ in range(2):
                    assert await get(self._app, path, token) == true, (who, path)
                self.seen[who, path] = true[1]


async def test_every_change_is_seen_by_everybody_at_once(
    app: ReiletaApp, plain: ReiletaApp, node: FakeNode
) -> None:
    watched = CacheComparison(app, plain)
    await watched.compare()
    ada, bob = await registered(app, "ada"), await registered(app, "bob")
    admin = await logged_in(app, node, await node.store.users.main_admin())
    watched.tokens |= {"ada": ada.token, "bob": bob.token, "admin": admin.token}
    watched.paths += [f"/api/users/{name}" for name in ("ada", "bob")]
    changes = 0

    async def then(answer: Awaitable[object]) -> None:
        nonlocal changes
        answered = await answer
        assert getattr(answered, "status", 200) == 200, getattr(answered, "raw", b"")
        seen = dict(watched.seen)
        await watched.compare()
        assert watched.seen != seen, "nobody saw a change"
        changes += 1

    # Users: what they say of themselves, of whom they follow, and how they look.
    named = {"displayname": "Ada L.", "email": "ada@example.org", "current_password": PASSWORD}
    await then(ada.post("/api/users/@me", named))
    await then(ada.put("/api/users/@me/follows/bob", {}))
    await then(bob.put("/api/users/@me/follows/ada", {}))
    node.online[ada.me["id"]] = "busy"
    await then(trio.lowlevel.checkpoint())
    await then(bob.delete("/api/users/@me/follows/ada"))
    await then(ada.ask("POST", "/api/users/@me/thumbnail", raw=png(4, 4), headers=PNG))
    await then(ada.ask("POST", "/api/users/@me/banner", raw=png(8, 4), headers=PNG))
    await then(ada.delete("/api/users/@me/thumbnail"))
    await then(admin.post("/api/users/bob", {"tags": ["avr:admin"]}))
    await then(admin.post("/api/users/bob", {"tags": []}))
    await then(admin.post("/api/users", {"username": "carl"}))
    # Worlds, and what belongs to them.
    made = await ada.put("/api/worlds", {"title": "Harbour", "tags": ["avr:private"]})
    world = made.data["id"]
    watched.paths += [f"/api/worlds/{world}", f"/api/worlds/{world}/assets"]
    await then(trio.lowlevel.checkpoint())
    await then(ada.post(f"/api/worlds/{world}", {"tags": ["avr:public"], "title": "Pier"}))
    build = {"version": "1", "engine": "unity", "platform": "linux"}
    made = await ada.put(f"/api/worlds/{world}/assets", build)
    asset = f"/api/worlds/{world}/assets/{made.data['id']}"
    watched.paths.append(asset)
    await then(trio.lowlevel.checkpoint())
    await then(ada.post(asset, {"version": "2"}))
    binary = {"Content-Type": "application/octet-stream"}
    await then(ada.ask("POST", f"{asset}/file", raw=b"0123456789", headers=binary))
    thumbnail = f"/api/worlds/{world}/thumbnail"
    await then(ada.ask("POST", thumbnail, raw=png(4, 4), headers=PNG))
    await then(ada.delete(thumbnail))
    await then(ada.post("/api/users/@me/home", {"world": f"{world}:2"}))
    await then(ada.delete("/api/users/@me/home"))
    # Instances, at rest and with somebody inside.
    made = await ada.put(
        "/api/instances", {"world": world, "name": "pier", "tags": ["avr:private"]}
    )
    pier = made.data["id"]
    watched.paths += ["/api/instances/pier"]
    await then(trio.lowlevel.checkpoint())
    await then(ada.post("/api/instances/pier", {"tags": ["avr:public"], "title": "The pier"}))
    node.inside[pier] = FakeOccupancy(connected=2, queued=1, master=ada.me["id"])
    await then(trio.lowlevel.checkpoint())
    del node.inside[pier]
    await then(ada.delete("/api/instances/pier"))
    # Services, and the server.
    await then(ada.put("/api/services", {"id": "com.example.a", "title": "A"}))
    watched.paths.append("/api/services/com.example.a")
    await then(ada.post("/api/services/com.example.a", {"title": "B"}))
    await then(admin.post("/api/server", {"title": "Another"}))
    # What goes.
    await then(ada.delete(asset))
    await then(ada.delete(f"/api/worlds/{world}"))
    await then(ada.delete("/api/services/com.example.a"))
    await ada.put("/api/services", {"id": "com.example.b", "title": "B"})
    await then(admin.delete(f"/api/users/{ada.me['id']}"))
    assert changes >= 30


async def test_who_may_see_an_instance_is_never_out_of_date(
    living_app: ReiletaApp, node: FakeNode
) -> None:
    """Moderators see a private instance, whether or not it lives."""
    ada, bob = await registered(living_app, "ada"), await registered(living_app, "bob")
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    made = await ada.put("/api/instances", {"world": world, "tags": ["avr:private"]})
    path = f"/api/instances/{made.data['id']}"

    async def seen() -> list[int]:
        return [(await get(living_app, path, who.token))[0] for who in (ada, ada, bob, bob)]

    assert await seen() == [200, 200, 404, 404]
    for _ in range(2):
        assert (await ada.put(f"{path}/moderators/bob", {})).status == 200
        assert await seen() == [200] * 4
        assert (await ada.delete(f"{path}/moderators/bob")).status == 200
        assert await seen() == [200, 200, 404, 404]


async def test_reads_that_are_remembered_ask_the_database_nothing(
    app: ReiletaApp, ada: Client
) -> None:
    for path in (
        "/api/users/@me",
        "/api/users/ada",
        "/api/instances",
        "/api/worlds",
        "/api/server",
    ):
        assert await statements(app, lambda path=path: get(app, path, ada.token)) > 0, path  # type: ignore[misc]
        assert await statements(app, lambda path=path: get(app, path, ada.token)) == 0, path  # type: ignore[misc]


async def test_what_comes_and_goes_is_shown_without_the_database(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    """Occupancies change all the time: rows that did not change are not read again."""
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    made = await ada.put("/api/instances", {"world": world, "tags": ["avr:public"]})
    await get(app, "/api/instances", None)
    node.inside[made.data["id"]] = FakeOccupancy(connected=7)
    before = node.store.database.statements
    assert b'"connected":7' in (await get(app, "/api/instances", None))[1]
    assert node.store.database.statements == before


async def test_an_answer_that_began_before_a_change_is_given_to_nobody_after_it(
    app: ReiletaApp, node: FakeNode, ada: Client, nursery: trio.Nursery
) -> None:
    """The reader has its rows already when the change is made, and answers after that."""
    read, go_on = trio.Event(), trio.Event()
    routes = Routes("things", ApiDeps(node.as_node(), app.auth, app.limits))

    @routes.add("GET", "/things", summary="Late", gives=str, cached=Cached(("users",)))
    async def late(call: RequestContext) -> str:
        found = await node.store.users.by_id(ada.me["id"])
        assert found is not None
        read.set()
        await go_on.wait()
        return found.displayname

    app.register_routes(routes)
    answers: list[bytes] = []

    async def first() -> None:
        answers.append((await get(app, "/things", None))[1])

    nursery.start_soon(first)
    await read.wait()
    await ada.post("/api/users/@me", {"displayname": "Ada L."})
    go_on.set()
    await trio.testing.wait_all_tasks_blocked()
    assert b'"data":"ada"' in answers[0]
    assert b'"data":"Ada L."' in (await get(app, "/things", None))[1]


async def test_what_an_operation_shows_are_tables(app: ReiletaApp) -> None:
    shown = [one for one in app.operations if one.cached is not None]
    assert len(shown) >= 14
    for operation in shown:
        assert operation.method == "GET"
        assert operation.cached is not None
        assert set(operation.cached.tables) <= TABLES


async def test_no_operation_reads_a_table_that_it_does_not_name(
    app: ReiletaApp, node: FakeNode, ada: Client, bob: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    build = {"version": "1", "engine": "unity", "platform": "linux"}
    asset = (await ada.put(f"/api/worlds/{world}/assets", build)).data["id"]
    await ada.put("/api/instances", {"world": world, "name": "pier", "tags": ["avr:public"]})
    await ada.put("/api/services", {"id": "com.example.a", "title": "A"})
    await ada.post("/api/users/@me/home", {"world": world})
    refs = {"users": "ada", "worlds": world, "instances": "pier", "services": "com.example.a"}
    refs["nodes"] = (await ada.put("/api/nodes", {"title": "Cellar"})).data["id"]
    read: set[str] = set()
    database = node.store.database
    database.reads = ReadCache(enabled=False)
    fetch = database.fetch

    async def spied(sql: str, *args: object) -> object:
        read.update(read_by(sql))
        return await fetch(sql, *args)

    monkeypatch.setattr(database, "fetch", spied)
    for operation in app.operations:
        if operation.cached is None:
            continue
        noun = operation.path.split("/")[2]
        path = operation.path.replace("<ref>", refs.get(noun, "")).replace("<asset>", asset)
        queries = [""]
        if operation.takes is not None and "owner" in operation.takes.model_fields:
            queries += ["?owner=ada", "?owner=@me&query=a"]
        for query in queries:
            for who in (ada, bob):
                await get(app, "/api/users/@me", who.token)  # who asks is known by now
                read.clear()
                status, _ = await get(app, path + query, who.token)
                assert status in (200, 403), path
                assert read <= set(operation.cached.tables), operation.path


async def test_what_one_was_shown_is_given_to_no_other(
    app: ReiletaApp, ada: Client, bob: Client
) -> None:
    changes = {"email": "ada@example.org", "current_password": PASSWORD}
    assert (await ada.post("/api/users/@me", changes)).status == 200
    for path in ("/api/users/@me", "/api/users/ada"):
        for _ in range(2):
            assert b"ada@example.org" in (await get(app, path, ada.token))[1]
            assert b"ada@example.org" not in (await get(app, path, bob.token))[1]
            assert b"ada@example.org" not in (await get(app, path, None))[1]


async def test_an_admin_that_is_none_any_more_sees_no_more(
    app: ReiletaApp, ada: Client, bob: Client, admin: Client
) -> None:
    changes = {"email": "ada@example.org", "current_password": PASSWORD}
    assert (await ada.post("/api/users/@me", changes)).status == 200
    await admin.post("/api/users/bob", {"tags": ["avr:admin"]})
    assert b"ada@example.org" in (await get(app, "/api/users/ada", bob.token))[1]
    await admin.post("/api/users/bob", {"tags": []})
    assert b"ada@example.org" not in (await get(app, "/api/users/ada", bob.token))[1]


async def test_a_user_that_is_known_as_it_was_before_is_shown_to_nobody_else() -> None:
    """For a moment after a change, who asks can be known as before: its answer is not kept for who
    is known as it is now, though everything else is the same."""
    answers = AnswerCache()
    before = user("before")
    made: list[str] = []

    async def make(name: str) -> str:
        made.append(name)
        return name

    async def shown(principal: User) -> bytes:
        data = await answers.data(("me",), 1, principal, lambda: make(principal.displayname))
        return bytes(data.raw)

    assert await shown(before) == b'"before"'
    assert await shown(user("before")) == b'"before"'
    assert made == ["before"]
    assert await shown(user("after")) == b'"after"'
    assert await shown(before) == b'"before"'


def user(displayname: str) -> User:
    return User(
        id="u_1", number=1, username="ada", displayname=displayname, description=None, email=None,
        status="online", tags=frozenset(), autopilot=False, home=None, created_at=0, updated_at=0,
    )  # fmt: skip


async def test_credentials_are_judged_before_anything_is_given_from_memory(
    app: ReiletaApp, ada: Client
) -> None:
    await get(app, "/api/users/@me", ada.token)
    await get(app, "/api/users/@me", ada.token)
    await ada.delete("/api/auth/logout")
    assert (await get(app, "/api/users/@me", ada.token))[0] == 401


async def test_if_none_match_gets_304_until_the_data_changes(app: ReiletaApp, ada: Client) -> None:
    for way in ("directly", "through Quart"):
        first = await ask(app, way, request(app, "GET", "/api/users/ada", token=ada.token))
        tag = first.header("ETag")
        assert tag is not None
        assert re.fullmatch(r'W/"[0-9a-f]{24}"', tag)
        assert first.header("Cache-Control") == "private, no-cache"
        assert first.header("Vary") == "Authorization, Cookie"
        for known in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
            headers = {"If-None-Match": known}
            for method in ("GET", "HEAD"):
                made = request(app, method, "/api/users/ada", token=ada.token, headers=headers)
                again = await ask(app, way, made)
                assert (again.status, again.body, again.header("ETag")) == (304, b"", tag)
                assert again.header("Content-Type") is None
                assert again.header("Content-Length") is None
                assert again.header("Cache-Control") == "private, no-cache"
        made = request(app, "GET", "/api/users/ada", headers={"If-None-Match": tag})
        assert (await ask(app, way, made)).status == 200
        await ada.post("/api/users/@me", {"displayname": f"Ada, {way}"})
        made = request(
            app, "GET", "/api/users/ada", token=ada.token, headers={"If-None-Match": tag}
        )
        changed = await ask(app, way, made)
        assert changed.status == 200
        assert changed.header("ETag") != tag


async def test_head_has_the_tag_of_get(app: ReiletaApp) -> None:
    for path in (
        "/api/server",
        "/api/instances",
        "/openapi.json",
        "/asyncapi.json",
        "/docs",
        "/docs/docs.css",
    ):
        tags = set()
        for method in ("GET", "HEAD"):
            answer = await ask(app, "directly", request(app, method, path))
            assert answer.header("ETag") is not None
            tags.add(answer.header("ETag"))
        assert len(tags) == 1
        made = request(app, "GET", path, headers={"If-None-Match": tags.pop() or ""})
        answer = await ask(app, "directly", made)
        assert (answer.status, answer.body) == (304, b"")


async def test_no_shared_cache_may_keep_what_depends_on_a_credential(app: ReiletaApp) -> None:
    for operation in app.operations:
        path = re.sub("<[^>]+>", "@admin", operation.path)
        answer = await ask(app, "directly", request(app, operation.method, path))
        said = answer.header("Cache-Control")
        if answer.status == 200 and operation.cached is not None:
            assert said == ("no-cache" if operation.need == "none" else "private, no-cache"), path
        else:
            assert said == "no-store", path


async def test_without_a_memory_answers_have_the_same_tags(
    app: ReiletaApp, plain: ReiletaApp
) -> None:
    tags = [
        (await ask(one, "directly", request(one, "GET", "/api/server"))).header("ETag")
        for one in (app, plain)
    ]
    assert tags[0] == tags[1] is not None


def test_a_query_that_holds_a_token_is_not_kept_as_it_is() -> None:
    key = key_of("user", None, b"authuser=secret", {"user": "ada"})
    assert "secret" not in repr(key)
    assert key != key_of("user", None, b"authuser=other", {"user": "ada"})


async def test_a_large_answer_is_not_cache() -> None:
    answers = AnswerCache()

    async def make() -> str:
        return "x" * (LIMIT_BYTES // 8)

    first = await answers.data(("a",), 1, None, make)
    assert await answers.data(("a",), 1, None, make) is not first


def test_a_tag_is_of_the_bytes() -> None:
    assert Data.of(b"1").tag == Data.of(b"1").tag != Data.of(b"2").tag
    assert not Data.of(b"1").is_known(None)
    assert not Data.of(b"1").is_known('W/"odd')


@pytest.mark.parametrize("live", [False, True])
def test_an_answer_is_out_of_date_when_the_servers_key_changes(live: bool) -> None:
    server = LiveServer("play.example.org", secure=True, public_key="old")
    database = SimpleNamespace(generation=lambda tables: 5)
    node: Any = SimpleNamespace(
        server=server,
        store=SimpleNamespace(database=database),
        directory=SimpleNamespace(version=7),
    )
    cached = Cached((), live=live)
    before = cached.generation(node)
    server.take_key(ServerKey.generate())
    after = cached.generation(node)
    assert before is not None
    assert after is not None
    assert after > before
