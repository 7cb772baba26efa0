"""Gateway, registry and host of instances as processes of their own would be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionRejected

from reileta import cli
from tests import logs
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, RawClient, connected, until
from tests.e2e.servers import ServerHarness, running
from tests.e2e.smuggling import SMUGGLED

GATEWAY = "eu.play.example:444"
FILE = bytes(range(256)) * 4096
FORGED = (
    {"AVR-Client": "203.0.113.9"},
    {"avr-client": "203.0.113.9", "avr-gateway": "true evil.example"},
    {"AVR_Client": "203.0.113.9"},
    {"AVR-Gateway": "true evil.example"},
    {"Avr-Gateway": "false evil.example", "AVR-CLIENT": "203.0.113.9", "AVR-Trace": "0" * 16},
    {"AVR-Proof": "0" * 64},
    {"X-Forwarded-For": "203.0.113.9"},
    {"x-forwarded-for": "203.0.113.9, 127.0.0.1"},
    {"X_Forwarded_For": "203.0.113.9"},
    {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
    {"Forwarded": 'for=203.0.113.9;host="evil.example";proto=https'},
    {"Connection": "AVR-Client, AVR-Gateway, AVR-Proof", "AVR-Client": "203.0.113.9"},
)


@asynccontextmanager
async def asking(url: str, host: str = "127.0.0.1", **headers: str) -> AsyncIterator[Any]:
    """A client with an address of its own."""
    transport = httpx.AsyncHTTPTransport(local_address=host)
    async with httpx.AsyncClient(
        base_url=url, transport=transport, timeout=PATIENCE_S, headers=headers
    ) as client:
        yield client


class Addresses:
    """The addresses of clients, as the registry takes them."""

    def __init__(self, harness: ServerHarness) -> None:
        admission = harness.behind["eta"].http_server.admission
        before = admission.enter_behind
        self.seen: list[str] = []

        def enter_behind(address: str) -> Any:
            self.seen.append(address)
            return before(address)

        admission.enter_behind = enter_behind  # type: ignore[method-assign]


async def test_the_gateway_and_its_registry(database_url: str) -> None:
    async with running(database_url, split=True, gateway_address=GATEWAY) as harness:
        url, eta = harness.server.url, harness.behind["eta"].url
        ada = await harness.account(admin=True)
        bearer = {"Authorization": f"Bearer {ada.token}"}
        addresses = Addresses(harness)

        # What clients say of themselves is dropped, in every spelling.
        async with asking(url, "127.0.0.3") as client:
            for forged in FORGED:
                answer = await client.get("/api/users/@me", headers={**bearer, **forged})
                assert answer.status_code == 200, answer.text
                assert f"http://{GATEWAY}/" in answer.text or "evil" not in answer.text
            assert set(addresses.seen) == {"127.0.0.3"}
            assert len(addresses.seen) == len(FORGED)

        # The registry itself believes neither strangers nor those without a proof.
        for host in ("127.0.0.4", "127.0.0.1"):
            addresses.seen.clear()
            async with asking(eta, host) as client:
                for forged in FORGED:
                    answer = await client.get("/api/users/@me", headers={**bearer, **forged})
                    assert answer.status_code == 200
                    assert "evil" not in answer.text
            assert "203.0.113.9" not in addresses.seen

        # URLs name the gateway, ids the server; the registry knows gateways that live.
        async with asking(url, **bearer) as client:
            made = await client.put("/api/worlds", json={"title": "Harbour"})
            world: Json = made.json()["data"]
            assert world["server"] == harness.address
            path = f"/api/worlds/{world['id']}/assets"
            build = {"version": "1", "engine": "unity", "platform": "windows"}
            asset = (await client.put(path, json=build)).json()["data"]
            file = f"{path}/{asset['id']}/file"
            stored = (await client.post(file, content=FILE)).json()["data"]
            assert stored["url"] == f"http://{GATEWAY}{file}"
            missing = await client.get("/api/nothing?a=1")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, 2)
            assert missing.json()["request"] == "/api/nothing?a=1"
            assert len(missing.headers["x-trace-id"]) == 16
            # Downloads are as without a gateway.
            down = await client.get(file)
            assert down.content == FILE
            part = await client.get(file, headers={"Range": "bytes=5-9"})
            assert (part.status_code, part.content) == (206, FILE[5:10])
            same = await client.get(file, headers={"If-None-Match": down.headers["etag"]})
            assert (same.status_code, same.content) == (304, b"")
        with trio.fail_after(PATIENCE_S):
            async with asking(eta, "127.0.0.4") as client:
                while True:  # until the registry has seen the gateway
                    server = (await client.get("/api/server")).json()["data"]
                    if server["gateways"]["http"] == f"http://{GATEWAY}":
                        break
                    await trio.sleep(0.05)
                upgrade = {
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                }
                away = await client.get("/api/ws", headers=upgrade)
                assert (away.status_code, away.json()["error"]["code"]) == (307, 10)
                assert away.json()["redirect"] == {"secure": False, "address": GATEWAY}
                unknown = await client.get(f"{url}/api/nothing", headers=upgrade)
                assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, 2)

        # What could be read in two ways never reaches the registry.
        addresses.seen.clear()
        for framing in (
            b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            b"Content-Length: 0\r\nContent-Length: 4\r\n\r\n",
            b"X: 1\r\n Y: 2\r\n\r\n",
            b"Host: other\r\n\r\n",
        ):
            sent = b"POST /api/worlds HTTP/1.1\r\nHost: x\r\n" + framing + SMUGGLED
            assert await raw(harness, sent) in (b"400", b"501")
        assert await raw(harness, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n") == b"400"
        assert await raw(harness, b"GET /api/worlds HTTP/1.1\nHost: x\n\n") in (b"400", b"")
        assert addresses.seen == []


async def raw(harness: ServerHarness, data: bytes) -> bytes:
    """The status of the first answer; the connection ends after it."""
    stream = await trio.open_tcp_stream(harness.host, harness.port)
    async with stream:
        await stream.send_all(data)
        await stream.send_eof()
        answer = b""
        with trio.fail_after(PATIENCE_S):
            while more := await stream.receive_some():
                answer += more
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    return answer[9:12]


async def command(harness: ServerHarness, *words: str) -> int:
    """`reileta clients …`, which knows of the server's database alone."""
    assert harness.settings.database is not None
    arguments = ["clients", *words, "--database", harness.settings.database]
    with logs.restored():
        return await trio.to_thread.run_sync(cli.main, arguments)


async def test_rules_about_clients(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(database_url, split=True, rate_limits="off", seat_grace_s=600) as harness:
        ada, bob = await harness.account(admin=True), await harness.account()
        room = (await harness.instance(ada)).id
        url = harness.server.url
        addresses = Addresses(harness)

        async def rule(method: str, **fields: Any) -> int:
            async with asking(url, Authorization=f"Bearer {ada.token}") as admin:
                where: Any = {"json": fields} if method == "PUT" else {"params": fields}
                answer = await admin.request(method, "/api/clients/rules", **where)
                return int(answer.status_code)

        async with (
            connected(harness, bob) as guest,
            connected(harness, ada) as host,
            asking(url, "127.0.0.5", Authorization=f"Bearer {bob.token}") as client,
        ):
            await guest.join(room)
            await host.join(room)
            assert (await client.get("/api/worlds")).status_code == 200
            for kind, pattern in (
                ("network", "127.0.0.5"),
                ("agent", "python-httpx*"),
                ("account", bob.id),
            ):
                if kind == "agent":  # the admin's, too
                    assert await rule("PUT", kind=kind, pattern=pattern) == 400
                    continue
                assert await rule("PUT", kind=kind, pattern=pattern) == 200
                addresses.seen.clear()
                for path in ("/api/worlds", "/api/users/@me/sessions"):
                    refused = await client.get(path)
                    assert (refused.status_code, refused.json()["error"]["code"]) == (403, 137)
                assert "127.0.0.5" not in addresses.seen
                if kind == "account":
                    assert (await guest.closed())[0] == 4010
                    left = (await host.event("instance-left"))["data"]
                    assert (left["user"].partition("@")[0], left["reason"]) == (bob.id, "left")
                assert await rule("DELETE", kind=kind, pattern=pattern) == 200
                assert (await client.get("/api/worlds")).status_code == 200
            assert await rule("DELETE", kind="network", pattern="127.0.0.5") == 404
            now = harness.server.node.clock.now_ms()
            past = await rule("PUT", kind="network", pattern="127.0.0.5", until=now - 1)
            assert past in (200, 400)
            assert (await client.get("/api/worlds")).status_code == 200
            await host.say(room, {"still": "here"})
            # A command does the same. The seat is free although the client answers no close.
            stream = await trio.open_tcp_stream(
                harness.host, harness.port, local_address="127.0.0.7"
            )
            await until(lambda: not harness.hosting.node.clients.active)
            async with stream:
                silent = RawClient(stream)
                await silent.enter(bob, room)
                assert await command(harness, "block", "network", "127.0.0.7/32") == 0
                left = (await host.event("instance-left"))["data"]
                assert (left["user"].partition("@")[0], left["reason"]) == (bob.id, "left")
            capsys.readouterr()
            assert await command(harness, "list") == 0
            assert capsys.readouterr().out.endswith("network  127.0.0.7\n")
            assert await command(harness, "unblock", "network", "127.0.0.7") == 0
            assert await command(harness, "unblock", "network", "127.0.0.7") == 1
        # A rule of another process is in force within a moment, here on what is open already.
        async with connected(harness, bob) as guest:
            await harness.store.database.execute(
                "INSERT INTO client_rules (kind, pattern, by_ref, created_at) "
                "VALUES ('account', $1, 'root', 0)",
                bob.id,
            )
            await harness.server.node.clients.apply()
            assert (await guest.closed())[0] == 4010
            await until(lambda: len(harness.gateway) == 0)


@pytest.mark.parametrize("kind", ["network", "account"])
async def test_rules_about_clients_are_for_instance_nodes_too(database_url: str, kind: Any) -> None:
    async with running(database_url, rate_limits="off") as harness:
        bob, clients = await harness.account(), harness.server.node.clients
        async with asking(harness.server.url, Authorization=f"Bearer {bob.token}") as client:
            made = (await client.put("/api/nodes", json={"title": "Attic"})).json()["data"]
        headers = [(b"Authorization", f"Bearer {made['token']}".encode())]
        pattern = bob.id if kind == "account" else "127.0.0.1"
        async with connected(harness, path="/api/nodes/link", headers=headers) as link:
            await clients.put(kind, pattern, by="root")
            assert (await link.closed())[0] == 4010
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected, check=is_forbidden)):
            async with connected(harness, path="/api/nodes/link", headers=headers):
                pass


def is_forbidden(refused: ConnectionRejected) -> bool:
    return bool(refused.status_code == 403)
