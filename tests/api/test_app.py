"""What holds for every request, whatever it asks for."""

from __future__ import annotations

import json

import pytest
import structlog
from quart import Blueprint, Response
from structlog.testing import capture_logs

from actors.runtime.trace import current
from api import app as app_module
from api.app import BODY_TIMEOUT_S, ReiletaApp, create_app
from api.rate_limits import ADDRESS, GUESSES, GUESSES_FROM_AFAR, READ
from reileta.errors import Detail, InstanceFull, Overloaded, Redirected
from reileta.security.passwords import Passwords
from reileta.site import OWN_ROOTS
from tests.api.clients import Client
from tests.api.fakes import FakeNode


async def test_unknown_paths_get_the_envelope(node: FakeNode, anyone: Client) -> None:
    for path in ("/nope", "/api", "/api/", "/api/time/", "/api//time", "/api/users/"):
        answer = await anyone.get(path)
        assert answer.status == 404, path
        assert answer.body == {
            "request": path,
            "time": node.clock.now_ms(),
            "message": "Request not found",
            "error": {"code": 2, "message": "Request not found"},
        }
        assert answer.headers["Content-Type"] == "application/json"


async def test_wrong_methods_get_the_envelope_and_are_told_the_right_ones(anyone: Client) -> None:
    answer = await anyone.ask("DELETE", "/api/time")
    assert (answer.status, answer.code) == (405, 2)
    assert answer.headers["Allow"] == "GET, HEAD"
    assert (await anyone.ask("PATCH", "/api/users/@me")).status == 405
    assert (await anyone.ask("BREW", "/api/time")).status == 405


async def test_head_is_get_without_the_body(anyone: Client) -> None:
    answer = await anyone.ask("HEAD", "/api/time")
    assert answer.status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b" ", b"{", b"nonsense", b"\xff\xfe", b'"\xed\xa0\x80"', b"{'a': 1}", b"null", b"[]",
        b"5", b'"text"', b"NaN", b'{"username": Infinity}', b"\xef\xbb\xbf" * 2 + b"{}", b"{}{}",
        b"[" * 9_000, b'{"a":' * 10_000, b"1" * 60_000, b'{"username": "a" "b"}',
    ],
)  # fmt: skip
async def test_what_is_no_json_object_is_refused(anyone: Client, raw: bytes) -> None:
    answer = await anyone.ask("POST", "/api/auth/login", raw=raw)
    assert (answer.status, answer.code, answer.fields) == (400, 22, {"body"})


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}"])
async def test_an_empty_body_is_an_empty_object(anyone: Client, raw: bytes) -> None:
    answer = await anyone.ask("POST", "/api/auth/login", raw=raw)
    assert (answer.status, answer.code, answer.fields) == (400, 22, {"username", "password"})


async def test_absurd_numbers_are_a_fields_fault(ada: Client) -> None:
    for number in (b"1" * 50_000, b"-" + b"9" * 5000, b"1e999", b"-1e400", b"1" * 41, b"1.5"):
        answer = await ada.ask(
            "PUT", "/api/worlds", raw=b'{"title":"t","capacity":' + number + b"}"
        )
        assert (answer.status, answer.code, answer.fields) == (400, 24, {"capacity"})


async def test_odd_names_are_no_trouble(ada: Client) -> None:
    raw = rb'{"title":"new","\u0000":2,"":3,"__proto__":{}}'
    assert (await ada.ask("PUT", "/api/worlds", raw=raw)).data["title"] == "new"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (rb'{"title":"old","title":"new"}', "title"),
        (rb'{"title":"a\ud800"}', "title"),
        (rb'{"title":"a","capacity":1e400}', "capacity"),
        (b'{"title":"a","capacity":1' + b"0" * 400 + b"}", "capacity"),
        (rb'{"title":"a","tags":["x",{"y":[1,-1e-400]}]}', "tags.1.y.1"),
        (b'{"title":' + b"[" * 70 + b"]" * 70 + b"}", "body"),
    ],
)
async def test_what_would_be_changed_is_refused_where_it_stands(
    ada: Client, raw: bytes, field: str
) -> None:
    answer = await ada.ask("PUT", "/api/worlds", raw=raw)
    assert (answer.status, answer.code, answer.fields) == (400, 24, {field})


async def test_a_body_of_too_many_values_is_too_large(ada: Client) -> None:
    for raw in (b"[" * 60_000, b'{"tags":[' + b"1," * 11_000 + b"1]}"):
        answer = await ada.ask("PUT", "/api/worlds", raw=raw)
        assert (answer.status, answer.code, answer.fields) == (413, 103, {"body"})


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x/y; a=b"]
)
async def test_other_content_types_are_refused(anyone: Client, kind: str) -> None:
    answer = await anyone.ask("POST", "/api/auth/login", raw=b"{}", headers={"Content-Type": kind})
    assert (answer.status, answer.code) == (415, 104)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/ld+json", ""])
async def test_json_by_any_name_is_taken(anyone: Client, kind: str) -> None:
    answer = await anyone.ask("POST", "/api/auth/login", raw=b"{}", headers={"Content-Type": kind})
    assert (answer.status, answer.fields) == (400, {"username", "password"})


async def test_a_body_over_the_limit_is_refused(node: FakeNode, anyone: Client) -> None:
    size = node.settings.body_limit_bytes
    for headers in ({}, {"Content-Length": str(size + 1)}):
        answer = await anyone.ask("POST", "/api/auth/login", raw=b" " * (size + 1), headers=headers)
        assert (answer.status, answer.code) == (413, 103)


async def test_a_body_that_does_not_come_times_out(app: ReiletaApp) -> None:
    assert app.config["BODY_TIMEOUT"] == BODY_TIMEOUT_S
    app.config["BODY_TIMEOUT"] = 0
    request = app.test_client().request(
        "/api/auth/login", method="POST", headers={"Transfer-Encoding": "chunked"}
    )
    async with request as connection:
        await connection.send(b'{"username":')
        response = await connection.as_response()
    assert response.status_code == 408
    assert (await response.get_json())["error"]["code"] == 125


async def test_credentials_in_the_query_do_not_come_back(anyone: Client) -> None:
    answer = await anyone.get("/api/time?a=%20b&authuser=ua_secret12&%61uthserver=sa_secret12&c")
    assert answer.body["request"] == "/api/time?a=%20b&authuser=&%61uthserver=&c"
    answer = await anyone.get("/api/users/@me?integrityuser=ia_secret12")
    assert answer.status == 401
    assert b"secret" not in answer.raw


async def test_every_answer_says_how_it_may_be_used(anyone: Client) -> None:
    for path in ("/api/time", "/nope", "/api/users/@me", "/docs", "/metrics", "/"):
        headers = (await anyone.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Cache-Control" in headers
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in headers
    assert (await anyone.get("/api/time")).headers["Cache-Control"] == "no-store"


async def test_a_401_says_what_is_wanted(anyone: Client) -> None:
    answer = await anyone.get("/api/users/@me")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_preflight(anyone: Client) -> None:
    answer = await anyone.ask(
        "OPTIONS",
        "/api/worlds",
        headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "PUT"},
    )
    assert (answer.status, answer.raw) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS, PUT"
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    answer = await anyone.ask("OPTIONS", "/nope")
    assert (answer.status, answer.code) == (404, 2)


@pytest.fixture
def strange(app: ReiletaApp) -> Client:
    """A client of an app with handlers that no noun has."""
    blueprint = Blueprint("strange", __name__)

    @blueprint.get("/strange/crash")
    async def crash() -> Response:
        raise RuntimeError("a secret that is nobody's business")

    @blueprint.get("/strange/group")
    async def group() -> Response:
        raise ExceptionGroup("several", [InstanceFull(Detail("instance", "has no seat"))])

    @blueprint.get("/strange/elsewhere")
    async def elsewhere() -> Response:
        raise Redirected("other.example.org:3032", secure=True)

    @blueprint.get("/strange/busy")
    async def busy() -> Response:
        raise Overloaded(retry_after_s=2.1)

    @blueprint.get("/strange/trace")
    async def trace() -> Response:
        return Response(json.dumps({"trace": current.get().trace_id}))

    app.register_blueprint(blueprint)
    return Client(app)


async def test_a_crash_says_nothing_of_itself(strange: Client) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await strange.get("/strange/crash?authuser=ua_secret12")
    assert (answer.status, answer.code) == (500, 16)
    assert answer.body["error"] == {"code": 16, "message": "Internal error"}
    assert b"secret" not in answer.raw
    assert b"Traceback" not in answer.raw
    failures = [log for log in logs if log["event"] == "request.failed"]
    assert len(failures) == 1
    assert failures[0]["route"] == "/strange/crash"
    assert isinstance(failures[0]["exc_info"], RuntimeError)


async def test_an_error_out_of_a_nursery_is_the_error_itself(strange: Client) -> None:
    answer = await strange.get("/strange/group")
    assert (answer.status, answer.code, answer.fields) == (409, 48, {"instance"})


async def test_a_redirect_names_the_server(strange: Client) -> None:
    answer = await strange.get("/strange/elsewhere")
    assert (answer.status, answer.code) == (307, 10)
    assert answer.body["redirect"] == {"secure": True, "address": "other.example.org:3032"}


async def test_an_overload_says_when_to_come_back(strange: Client) -> None:
    answer = await strange.get("/strange/busy")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, 122, "3")


async def test_a_request_runs_in_a_trace_that_the_answer_names(strange: Client) -> None:
    first, second = await strange.get("/strange/trace"), await strange.get("/strange/trace")
    assert first.body["trace"] == first.headers["X-Trace-Id"]
    assert first.body["trace"] != second.body["trace"]
    assert len(first.body["trace"]) == 16


async def test_without_the_database_it_says_when_to_come_back(
    node: FakeNode, anyone: Client
) -> None:
    await node.store.database.close()
    for path in ("/api/instances", "/api/users/ada", "/api/server"):
        answer = await anyone.get(path)
        assert (answer.status, answer.code) == (503, 122)
        assert answer.headers["Retry-After"] == "1"
    assert (await anyone.get("/api/time")).status == 200


@pytest.fixture
def limited(node: FakeNode, passwords: Passwords) -> ReiletaApp:
    node.settings = node.settings.model_copy(update={"rate_limits": "on"})
    return create_app(node.as_node(), passwords=passwords)


async def test_a_route_is_limited_for_each_address(limited: ReiletaApp, node: FakeNode) -> None:
    client = Client(limited)
    answers = [await client.get("/api/time") for _ in range(READ.burst + 10)]
    assert [answer.status for answer in answers] == [200] * READ.burst + [429] * 10
    assert (answers[-1].code, answers[-1].headers["Retry-After"]) == (102, "1")
    assert node.metrics.http_limited == 10
    assert (await client.get("/api/time", client=("192.0.2.2", 1))).status == 200
    assert (await client.get("/healthz")).status == 200


async def test_an_address_is_limited_whatever_it_asks(limited: ReiletaApp) -> None:
    client = Client(limited)
    codes = [(await client.get("/nope")).status for _ in range(ADDRESS.burst + 30)]
    assert codes == [404] * ADDRESS.burst + [429] * 30


async def test_guessing_at_one_name_is_limited_from_everywhere(limited: ReiletaApp) -> None:
    client = Client(limited)
    statuses = [
        (
            await client.post(
                "/api/auth/login",
                {"username": "ADA" if n % 2 else "ada", "password": "guess"},
                client=(f"192.0.2.{n}", 1),
            )
        ).status
        for n in range(GUESSES_FROM_AFAR.burst + 5)
    ]
    assert statuses == [401] * GUESSES_FROM_AFAR.burst + [429] * 5


async def test_guessing_at_one_name_is_limited_sooner_from_one_address(
    limited: ReiletaApp,
) -> None:
    client = Client(limited)
    body = {"username": "ada", "password": "guess"}
    statuses = [(await client.post("/api/auth/login", body)).status for _ in range(25)]
    assert statuses == [401] * GUESSES.burst + [429] * 5


async def test_the_limits_can_be_lifted(anyone: Client) -> None:
    statuses = {(await anyone.get("/api/time")).status for _ in range(READ.burst + 10)}
    assert statuses == {200}


async def test_a_noun_is_a_blueprint(app: ReiletaApp) -> None:
    assert {"server", "auth", "users", "worlds", "instances"} <= set(app.blueprints)


async def test_slow_requests_are_logged_at_info(
    anyone: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as entries:
        await anyone.get("/api/time")
        monkeypatch.setattr(app_module, "SLOW_S", 0.0)
        await anyone.get("/api/time")
    (slow,) = [one for one in entries if one["event"] == "request.slow"]
    assert (slow["route"], slow["status"], slow["log_level"]) == ("/api/time", 200, "info")
    assert "address" not in slow


async def test_a_base_path_differs_from_every_path(app: ReiletaApp) -> None:
    """Else a path without the base path could be read as one with it."""
    roots = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
    assert roots - {""} | {"ws"} == OWN_ROOTS
