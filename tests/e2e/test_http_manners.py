"""HTTP as clients, browsers and operators expect it, on real sockets."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx
import pytest
import trio
import trio_websocket
from structlog.testing import capture_logs

from api import app as app_module
from api.app import PASSED_ON
from tests.api.listen.h2client import H2Client, get
from tests.conftest import PATIENCE_S
from tests.e2e.clients import (
    CLOSE,
    PING,
    TEXT,
    Answer,
    Json,
    RawClient,
    frame,
    strict,
    text,
    upgrade_head,
)
from tests.e2e.servers import Account, ServerHarness, running
from tests.e2e.split_roles import SPLIT

FILE = bytes(range(256)) * 16
STRANGER = Account("", "", "", "ua_" + "x" * 43)
SUBPROTOCOLS = {"/api/ws": "reileta.registry", "/ws/user": "reileta.session"}


@pytest.fixture
async def harness(database_url: str) -> AsyncIterator[ServerHarness]:
    async with running(database_url) as harness:
        yield harness


@pytest.fixture
async def file_path(harness: ServerHarness) -> str:
    """The path of an asset's file."""
    ada = await harness.account("ada")
    own = {"Authorization": f"Bearer {ada.token}"}
    async with httpx.AsyncClient(
        base_url=harness.server.url, headers=own, timeout=PATIENCE_S
    ) as web:
        world = (await web.put("/api/worlds", json={})).json()["data"]["id"]
        assets = f"/api/worlds/{world}/assets"
        path = f"{assets}/{(await web.put(assets, json={})).json()['data']['id']}/file"
        assert (await web.post(path, content=FILE)).status_code == 200
    return path


async def test_head_ignores_range(harness: ServerHarness, file_path: str) -> None:
    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as web:
        tag = (await web.head(file_path)).headers["ETag"]
        for headers in (
            {"Range": "bytes=0-9"},
            {"Range": "bytes=999999-"},
            {"Range": "bytes=0-9", "If-Range": tag},
        ):
            answer = await web.head(file_path, headers=headers)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["Content-Length"] == str(len(FILE))
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "Content-Range" not in answer.headers
        unchanged = await web.head(file_path, headers={"If-None-Match": tag, "Range": "bytes=0-9"})
        assert unchanged.status_code == 304
        for other in ("/api/time", "/api/users/ada", "/openapi.json"):
            whole = await web.head(other, headers={"Range": "bytes=0-0"})
            assert (whole.status_code, whole.content) == (200, b"")


async def test_a_page_of_another_origin_may_send_and_read_what_a_client_needs(
    harness: ServerHarness, file_path: str
) -> None:
    def listed(answer: httpx.Response, name: str) -> set[str]:
        return {one.strip().lower() for one in answer.headers[name].split(",")}

    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as web:
        for path, method in ((file_path, "GET"), ("/api/worlds", "PUT"), ("/auth/login", "POST")):
            asked = {
                "Origin": "https://game.example",
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "authorization, if-range, range, user-agent",
            }
            preflight = await web.options(path, headers=asked)
            assert preflight.status_code == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == "*"
            assert method.lower() in listed(preflight, "Access-Control-Allow-Methods")
            allowed = listed(preflight, "Access-Control-Allow-Headers")
            assert allowed >= {
                *("authorization", "content-type", "user-agent"),
                *("range", "if-range", "if-match", "if-none-match"),
            }
        part = await web.get(file_path, headers={"Range": "bytes=1-3"})
        assert part.status_code == 206
        missing = await web.post("/api/time")
        assert missing.status_code == 405
        unknown = await web.get("/session", headers={"Authorization": "Bearer x"})
        assert unknown.status_code == 401
        for answer in (part, missing, unknown):
            # These can be read without being named (Fetch, CORS-safelisted response headers), or
            # are for the browser alone.
            free = {"cache-control", "content-language", "content-type", "expires", "pragma"}
            own = {"vary", "referrer-policy", "x-content-type-options", "connection"}
            names = {name for name in answer.headers if not name.startswith("access-control-")}
            names -= {*free, *own, "content-security-policy"}
            assert names <= listed(answer, "Access-Control-Expose-Headers"), answer


async def status_line(harness: ServerHarness, head: bytes) -> str:
    async with RawClient.connected(harness) as client:
        await client.send(head)
        with trio.fail_after(PATIENCE_S):
            received = b""
            while b"\r\n" not in received:
                received += await client.stream.receive_some(4096)
    return received.partition(b"\r\n")[0].decode()


def request(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


async def test_status_lines_have_reason_phrases(harness: ServerHarness, file_path: str) -> None:
    known = {status.value: status.phrase for status in HTTPStatus}
    ada = await harness.account("bob")
    lines = {}
    for head in (
        request("GET /api/time"),
        request("GET /api/time").replace(b"1.1", b"1.0"),
        request("OPTIONS /api/time"),
        request(f"GET {file_path}", "Range: bytes=0-9"),
        request(f"GET {file_path}", "Range: bytes=999999-"),
        request(f"GET {file_path}", "If-None-Match: *"),
        request("GET /"),
        request("GET /api/users?limit=x"),
        request("GET /api/users/@me"),
        request("GET /api/users/nobody"),
        request("POST /api/time"),
        request("POST /api/auth/login", "Content-Type: a/b", "Content-Length: 1") + b"x",
        request("POST /api/auth/login", "Content-Length: 99999999"),
        request("GET /api/time", "X: " + "a" * 9_000),
        b"no HTTP\r\n\r\n",
        upgrade_head(ada),
        upgrade_head(STRANGER),
        upgrade_head(without="Connection"),
        upgrade_head(path="/nowhere"),
    ):
        line = await status_line(harness, head)
        status = int(line.split(" ")[1])
        lines[status] = line
        assert line.split(" ", 2)[2] == known[status], line
    assert {101, 200, 204, 206, 304, 400, 401, 404, 405, 413, 415, 416, 426, 431} <= set(lines)


async def refused(harness: ServerHarness, head: bytes) -> Answer:
    async with RawClient.connected(harness) as client:
        await client.send(head)
        return await client.answer()


async def test_a_refused_upgrade_has_a_trace_a_line_in_the_log_and_a_metric(
    harness: ServerHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [
        (upgrade_head(STRANGER), 401),
        (upgrade_head(None, "Authorization: Basic x"), 400),
        (upgrade_head(STRANGER, path="/ws/user"), 401),
        (upgrade_head(path="/nowhere"), 404),
        (upgrade_head(without="Sec-WebSocket-Key"), 400),
        (upgrade_head(without="Connection"), 426),
        (upgrade_head(None, "Sec-WebSocket-Protocol: chat"), 400),
        (upgrade_head(None, "Sec-WebSocket-Protocol: ,,@"), 400),
    ]
    capsys.readouterr()
    traces = set()
    for head, status in heads:
        answer = await refused(harness, head)
        assert answer.status == status, head
        assert answer.envelope["error"]["code"] in (2, 100, 101, 119)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cache-control"] == "no-store"
        assert re.fullmatch(r"[0-9A-Za-z, :]+ GMT", answer.headers["date"])
        traces.add(answer.headers["x-trace-id"])
    assert len(traces) == len(heads)
    logged = [line for line in capsys.readouterr().out.splitlines() if "upgrade.refused" in line]
    assert {trace for trace in traces for line in logged if trace in line} == traces
    assert len(logged) == len(heads), "one line each"
    assert not any(STRANGER.token in line for line in logged)
    async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as web:
        metrics = (await web.get("/metrics")).text
    for status, count in ((400, 4), (401, 2), (404, 1), (426, 1)):
        assert f'reileta_upgrades_refused_total{{status="{status}"}} {count}.0' in metrics
    assert 'reileta_http_requests_total{method="GET",route="/api/ws",status="401"} 1.0' in metrics


async def test_an_upgrade_over_the_share_of_connections_is_counted_too(database_url: str) -> None:
    async with running(database_url, connections_per_address=1) as harness:
        async with RawClient.connected(harness) as first:
            await first.send(request("GET /api/time"))
            assert (await first.answer()).status == 200
            answer = await refused(harness, upgrade_head())
        assert (answer.status, answer.code) == (429, 102)
        assert "x-trace-id" in answer.headers
        assert harness.metrics.upgrades_refused == {429: 1}


@pytest.mark.parametrize("path", SUBPROTOCOLS)
async def test_a_subprotocol_is_answered_or_the_upgrade_refused(
    harness: ServerHarness, path: str
) -> None:
    ada = await harness.account("ada")
    url = f"ws://{harness.host}:{harness.port}{path}"
    own = [(b"Authorization", f"Bearer {ada.token}".encode())]
    name = SUBPROTOCOLS[path]
    for offered, chosen in (([], None), ([name], name), (["chat", name], name)):
        async with trio_websocket.open_websocket_url(
            url, subprotocols=offered, extra_headers=own
        ) as socket:
            assert socket.subprotocol == chosen
            await socket.get_message()
        with trio.fail_after(PATIENCE_S):  # the token is free again
            while len(harness.gateway):
                await trio.sleep(0.005)
    answer = await refused(harness, upgrade_head(ada, "Sec-WebSocket-Protocol: chat", path=path))
    assert (answer.status, answer.code) == (400, 119)
    assert answer.envelope["error"]["details"][0]["field"] == "Sec-WebSocket-Protocol"
    lines = [f"Sec-WebSocket-Protocol: {one}" for one in ("chat", f"soap, {name}")]
    async with RawClient.connected(harness) as client:  # the header may be there twice
        await client.send(upgrade_head(ada, *lines, path=path))
        answer = await client.answer()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, name)


async def errors_before_the_close(client: RawClient, code: int) -> list[Json]:
    """The errors with code 102 that come before the close frame."""
    errors = []
    while (received := await client.frame()).opcode != CLOSE:
        if received.opcode == TEXT:
            message = strict(received.payload)
            error = message.get("error") or message.get("payload", {}).get("error")
            if error is not None:
                errors.append(error)
    assert received.close_code == code
    return errors


@pytest.mark.parametrize("path", SUBPROTOCOLS)
async def test_before_a_close_with_1008_comes_102_once(database_url: str, path: str) -> None:
    async with running(database_url, messages_burst=3, messages_per_s=0.001) as harness:
        ada = await harness.account("ada")
        event = {"type": "event", "id": "", "sent_at": "2026-09-21T14:13:20.123000+0000",
                 "status": "ok", "payload": {"kind": "state", "patch": {}}}  # fmt: skip
        command = {"command": "ping"}
        ids = (f"0a1b2c3d-4e5f-4071-8293-{n:012}" for n in itertools.count())

        def messages(count: int, **more: str) -> bytes:
            sent = (
                {**event, "id": next(ids)} if path == "/ws/user" else command for _ in range(count)
            )
            return b"".join(text({**one, **more}) for one in sent)

        for flood in (
            messages(9),
            messages(1, more="x" * 9_000),
            frame(PING) * 200,
            frame(PING) * 100 + messages(5) + frame(PING) * 100,
        ):
            async with RawClient.connected(harness) as client:
                await client.send(upgrade_head(ada, path=path))
                answer = await client.answer()
                assert answer.status == 101, answer
                await client.send(flood)
                errors = await errors_before_the_close(client, 1008)
                assert [one["code"] for one in errors] == [102]
                await client.send(frame(CLOSE, b"\x03\xf0"))
                await client.ended()
            with trio.fail_after(PATIENCE_S):
                while len(harness.gateway):
                    await trio.sleep(0.005)
            ada = await harness.account()


async def test_slow_requests_are_answered_and_logged_with_the_client(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP/1.1 and HTTP/2, with and without a route, malformed, or an upgrade."""
    monkeypatch.setattr(app_module, "SLOW_S", 0.0)
    async with running(database_url, log_addresses=True) as harness:
        with capture_logs() as entries:
            async with httpx.AsyncClient(base_url=harness.server.url, timeout=PATIENCE_S) as web:
                assert (await web.get("/api/time")).status_code == 200
                assert (await web.get("/nowhere")).status_code == 404
            async with H2Client.to(harness.port) as h2:
                assert (await h2.ask(get(b"/api/time"))).status == 200
            for raw in (b"GET / HTTP/1.1\r\n\r\n", upgrade_head(STRANGER)):
                async with RawClient.connected(harness) as client:
                    await client.send(raw)
                    assert (await client.answer()).status in {400, 401}
    slow = [one for one in entries if one["event"] == "request.slow"]
    if SPLIT:  # both the gateway and the registry log what is passed on
        assert [one["status"] for one in slow if one["route"] == PASSED_ON] == [404]
        slow = [one for one in slow if one["route"] not in (PASSED_ON, "/readyz")]
    assert [one["status"] for one in slow] == [200, 404, 200, 400, 401]
    assert {one["address"] for one in slow} == {"127.0.0.1"}
