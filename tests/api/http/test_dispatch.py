"""Operations are served without Quart as they are through it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from quart import Response

from actors.runtime.trace import current
from api.app import ReiletaApp, create_app
from api.http.dispatch import PATH_LENGTH, PATHS, Dispatch
from api.http.endpoint import ApiDeps, HttpReply, RequestContext, Routes
from api.rate_limits import READ
from reileta.errors import InstanceFull
from reileta.security.passwords import Passwords
from reileta.settings import Settings
from reileta.store import open_store
from tests.api.clients import PASSWORD, Client
from tests.api.fakes import FakeNode
from tests.api.pngs import png
from tests.api.remote_peers import connected
from tests.api.requests import WAYS, RawAnswer, Way, ask, request
from tests.conftest import Databases, ManualClock

NOWHERE = {
    "ref": "nobody",
    "other": "nobody",
    "user": "nobody",
    "asset": "f_1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9",
    "session": "s_1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f9",
    "type": "document",
    "number": "4711",
    "server": "elsewhere.example",
    "token": "nothing",
    "challenge": "A" * 43,
    "peer": "elsewhere.example",
}
ODD_PATHS = [
    "/", "/docs", "/openapi.json", "/asyncapi.json", "/metrics", "/nope", "/api", "/api/time/",
    "/api//time",
    "//api/time", "/api/%74ime", "/api/users/%40me", "/api/users/a%2Fb", "/api/users/a%20b",
    "/api/users/%00", "/api/users/%ff", "/api/users/" + "a" * PATH_LENGTH, "/api/users/",
    "/api/users/@me?server=elsewhere.example", "/api/users?limit=0&offset=x", "/api/time?a=%zz",
    "/api/users?query=%00", "/api/instances?owner=@me", "/api/ws", "/API/TIME",
]  # fmt: skip


@pytest.fixture
def app(node: FakeNode, passwords: Passwords) -> ReiletaApp:
    """Nothing is remembered here: both ways do all of the work. Other servers have nothing."""
    assert node.store.database.generation(("users",)) is None
    connected(node)
    return create_app(node.as_node(), passwords=passwords)


async def both(app: ReiletaApp, method: str, target: str, **more: object) -> RawAnswer:
    """The answer, which is the same both ways."""
    answers = [await ask(app, way, request(app, method, target, **more)) for way in WAYS]  # type: ignore[arg-type]
    assert answers[0] == answers[1], (method, target)
    return answers[0]


def targets(app: ReiletaApp, refs: dict[str, str]) -> list[tuple[str, str]]:
    """Method and path of every operation, with those in the place of what varies."""
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint in app.dispatch.serves:
            path = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: refs[part[1]], rule.rule)
            found += [(method, path) for method in sorted((rule.methods or set()) - {"OPTIONS"})]
    assert len(found) > 80
    return found


async def test_every_operation_refuses_alike(app: ReiletaApp, ada: Client) -> None:
    reads = ("GET", "HEAD")
    for method, path in targets(app, NOWHERE):
        answer = await both(app, method, path)
        assert answer.header("Cache-Control") is not None
        assert answer.header("X-Content-Type-Options") == "nosniff"
        await both(app, method, path, token="ua_unknown1234")
        await both(app, method, path, headers={"Authorization": "Basic x"})
        await both(app, method, f"{path}?server=elsewhere.example&authuser=odd")
        if path.endswith("/logout"):
            continue  # the second time it would find no token
        if method in reads:
            await both(app, method, path, token=ada.token)
            await both(app, method, f"{path}?limit=none", token=ada.token)
        else:
            await both(app, method, path, token=ada.token, body=b"[")
            await both(
                app, method, path, token=ada.token, body=b"1", headers={"Content-Type": "a/b"}
            )


async def test_every_read_answers_alike(app: ReiletaApp, ada: Client, admin: Client) -> None:
    world = (await ada.put("/api/worlds", {"title": "Harbour"})).data["id"]
    asset = {"version": "1", "engine": "unity", "platform": "linux"}
    made = await ada.put(f"/api/worlds/{world}/assets", asset)
    await ada.put("/api/instances", {"world": world, "name": "pier", "tags": ["avr:public"]})
    await ada.put("/api/services", {"id": "com.example.a", "title": "A"})
    await ada.ask(
        "POST", "/api/users/@me/thumbnail", raw=png(4, 4), headers={"Content-Type": "image/png"}
    )
    answered = set()
    for noun, ref in (
        ("users", "ada"),
        ("worlds", world),
        ("instances", "pier"),
        ("services", "com.example.a"),
    ):
        for method, path in targets(app, NOWHERE | {"ref": ref, "asset": made.data["id"]}):
            if method not in ("GET", "HEAD") or not path.startswith((f"/api/{noun}", "/api/time")):
                continue
            for token in (None, ada.token, admin.token):
                answer = await both(app, method, path, token=token)
                tag = answer.header("ETag")
                if tag is not None:
                    more = {"If-None-Match": f'"other", {tag}'}
                    again = await both(app, method, path, token=token, headers=more)
                    assert (again.status, again.body) == (304, b"")
                if answer.status == 200:
                    answered.add(path)
    assert len(answered) >= 16


@pytest.mark.parametrize("path", ODD_PATHS)
async def test_odd_paths_are_answered_alike(app: ReiletaApp, ada: Client, path: str) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "POST", "BREW", "get"):
        if path == "/metrics":
            continue  # it counts what was asked before
        for token in (None, ada.token):
            await both(app, method, path, token=token)


async def test_what_is_asked_directly_is_counted_logged_and_traced_alike(app: ReiletaApp) -> None:
    asked = [("GET", "/api/time"), ("HEAD", "/api/time"), ("GET", "/api/users/nobody"),
             ("GET", "/api/users/@me"), ("POST", "/api/time"), ("GET", "/nope")]  # fmt: skip
    seen = []
    for way in WAYS:
        app.node.metrics.http_requests.clear()
        with structlog.testing.capture_logs() as logs:
            for method, path in asked:
                await ask(app, way, request(app, method, path))
        for event in logs:
            assert event.pop("us") >= 0
        seen.append((dict(app.node.metrics.http_requests), logs))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == len(asked)


@pytest.mark.parametrize("way", WAYS)
async def test_limits_hold_either_way(node: FakeNode, passwords: Passwords, way: Way) -> None:
    node = replace(node, settings=Settings(rate_limits="on"))
    app = create_app(node.as_node(), passwords=passwords)
    for _ in range(READ.burst):
        answer = await ask(app, way, request(app, "GET", "/api/time"))
        assert answer.status == 200
    answer = await ask(app, way, request(app, "GET", "/api/time"))
    assert (answer.status, answer.header("Retry-After")) == (429, "1")
    assert node.metrics.http_limited == 1
    assert (await ask(app, way, request(app, "GET", "/api/server"))).status == 200
    assert (await ask(app, way, request(app, "GET", "/api/time", client="192.0.2.2"))).status == 200


def things(app: ReiletaApp) -> Routes:
    """Operations that answer in every way there is."""
    routes = Routes("things", ApiDeps(app.node, app.auth, app.limits))

    @routes.add("GET", "/things/broken", summary="Broken", gives=str, need="none")
    async def broken(call: RequestContext) -> str:
        raise RuntimeError("a defect")

    @routes.add("GET", "/things/full", summary="Full", gives=str, need="none")
    async def full(call: RequestContext) -> str:
        raise InstanceFull

    @routes.add("GET", "/things/reply", summary="Reply", gives=str)
    async def reply(call: RequestContext) -> HttpReply:
        return HttpReply("yes", {"X-Made": "yes", "Cache-Control": "max-age=1"})

    @routes.add("GET", "/things/response", summary="Response", gives=str)
    async def response(call: RequestContext) -> Response:
        return Response(b"raw", 202, {"X-Made": "yes"}, content_type="text/plain")

    @routes.add("GET", "/things/trace", summary="Trace", gives=str, need="none")
    async def trace(call: RequestContext) -> str:
        return current.get().trace_id

    return routes


async def test_all_kinds_of_answers_are_alike(app: ReiletaApp, ada: Client) -> None:
    app.register_routes(things(app))
    with structlog.testing.capture_logs() as logs:
        broken = await both(app, "GET", "/things/broken")
    assert (broken.status, json.loads(broken.body)["error"]["code"]) == (500, 16)
    failed = [event for event in logs if event["event"] == "request.failed"]
    assert [(one["route"], repr(one["exc_info"])) for one in failed] == 2 * [
        ("/things/broken", "RuntimeError('a defect')")
    ]
    assert (await both(app, "GET", "/things/full")).status == 409
    assert (await both(app, "GET", "/things/reply")).header("Cache-Control") == "max-age=1"
    deprecated = f"/things/reply?authuser={ada.token}"
    assert (await both(app, "GET", deprecated)).header("Deprecation") is not None
    deprecated = f"/things/response?authuser={ada.token}"
    assert (await both(app, "GET", deprecated)).header("Deprecation") is not None


async def test_the_trace_is_the_one_that_the_answer_names(app: ReiletaApp) -> None:
    app.register_routes(things(app))
    answer = await app.answer(request(app, "GET", "/things/trace"))
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["data"] == dict(answer.headers)[b"x-trace-id"].decode()


@asynccontextmanager
async def stack(databases: Databases, data: Path) -> AsyncIterator[ReiletaApp]:
    """A whole application, over a database of its own."""
    name, url = databases.create()
    clock = ManualClock()
    async with open_store(Settings(database=url, data=data), clock) as store:

        async def unhashed(password: str) -> str:
            return "none"

        await store.users.ensure_system_accounts(unhashed)
        yield create_app(FakeNode(store, clock).as_node())
    databases.drop(name)


async def story(app: ReiletaApp, way: Way) -> list[RawAnswer]:
    """Much of what clients do, one thing after the other."""
    told: list[RawAnswer] = []
    token: str | None = None

    async def tell(
        method: str, path: str, body: object = None, raw: bytes = b"", **headers: str
    ) -> str:
        if body is not None:
            raw = json.dumps(body).encode()
        made = request(app, method, path, body=raw, token=token, headers=headers)
        told.append(await ask(app, way, made))
        return told[-1].body.decode("latin-1")

    await tell("POST", "/api/auth/register", {"username": "ada", "password": PASSWORD})
    login = await tell("POST", "/api/auth/login", {"username": "ada", "password": PASSWORD})
    token = json.loads(login)["data"]["token"]
    await tell("POST", "/api/users/@me", {"displayname": "Ada L.", "description": "Überall"})
    world = json.loads(await tell("PUT", "/api/worlds", {"title": "Harbour"}))["data"]["id"]
    build = {"version": "1", "engine": "unity", "platform": "linux"}
    made = json.loads(await tell("PUT", f"/api/worlds/{world}/assets", build))["data"]["id"]
    await tell("POST", f"/api/worlds/{world}/assets/{made}/file", raw=b"0123456789",
               **{"Content-Type": "application/octet-stream"})  # fmt: skip
    await tell("GET", f"/api/worlds/{world}/assets/{made}/file", Range="bytes=2-4")
    await tell("GET", f"/api/worlds/{world}/assets/{made}/file", Range="bytes=99-")
    await tell("POST", "/api/users/@me/thumbnail", raw=png(4, 4), **{"Content-Type": "image/png"})
    await tell("GET", "/api/users/ada/thumbnail")
    await tell("PUT", "/api/instances", {"world": world, "name": "pier"})
    await tell("POST", "/api/instances/pier", {"title": "The pier"})
    await tell("POST", "/api/users/@me/home", {"world": world})
    for path in ("/api/users/@me", "/api/users", "/api/worlds", "/api/instances", "/api/server"):
        await tell("GET", path)
    await tell("DELETE", "/api/users/@me/home")
    await tell("DELETE", "/api/instances/pier")
    await tell("DELETE", f"/api/worlds/{world}")
    await tell("POST", "/api/auth/logout")
    await tell("GET", "/api/users/@me")
    return told


async def test_a_story_is_told_alike(databases: Databases, tmp_path: Path) -> None:
    told = []
    for number, way in enumerate(WAYS):
        async with stack(databases, tmp_path / str(number)) as app:
            told.append([_anonymous(one) for one in await story(app, way)])
    assert told[0] == told[1]
    assert [one.status for one in told[0]].count(200) >= 17


def _anonymous(one: RawAnswer) -> RawAnswer:
    """The answer without what is made at random."""
    replaced = re.compile(rb"\b[a-z]{1,2}_[\w-]{20,}|W/\"\w+\"|\b[0-9a-f-]{36}\b|Expires=[^;]+")
    headers = tuple((name, replaced.sub(b"*", value)) for name, value in one.headers)
    return replace(one, headers=headers, body=replaced.sub(b"*", one.body))


async def test_paths_are_remembered_up_to_a_bound(app: ReiletaApp) -> None:
    dispatch = Dispatch(app.url_map)
    dispatch.serves = app.dispatch.serves
    find: Callable[[str, str], object] = dispatch.find
    assert find("GET", "/api/time") is find("GET", "/api/time")
    long = "/api/users/" + "a" * PATH_LENGTH
    assert find("GET", long) is not None
    assert find("GET", long) is not find("GET", long)
    for number in range(PATHS + 10):
        find("GET", f"/api/users/{number}")
    assert dispatch.cached_paths == PATHS
    assert find("GET", "/docs") is None
    assert find("OPTIONS", "/api/time") is None
