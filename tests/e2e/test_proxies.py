"""A server behind trusted proxies: the client, limits per client, the scheme, cookies, base path.

The proxy is the test itself; `test_nginx.py` has a real one.
"""

from __future__ import annotations

import httpx
import pytest
import trio
from structlog.testing import capture_logs

from api import rate_limits
from reileta.rules.ratelimit import Rate
from tests.api.listen.h2client import H2Client, get
from tests.conftest import PATIENCE_S
from tests.e2e.clients import RawClient, connected, until, upgrade_head
from tests.e2e.servers import ServerHarness, running

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"
ONE, TWO = "203.0.113.1", "203.0.113.2"
LOGIN = {"username": "ada", "password": "correct horse"}


def client(harness: ServerHarness, *, at: str = PROXY, **more: str) -> httpx.AsyncClient:
    """A client at that address of this machine; `more` are headers of all its requests."""
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    transport = httpx.AsyncHTTPTransport(local_address=at)
    url = f"http://127.0.0.1:{harness.port}"
    return httpx.AsyncClient(base_url=url, headers=headers, transport=transport, timeout=PATIENCE_S)


async def test_the_scheme_counts_from_trusted_proxies_only(database_url: str) -> None:
    async with running(
        database_url, trusted_proxies=PROXY, address="play.example.org", rate_limits="off"
    ) as harness:
        for at, headers, scheme in (
            (PROXY, {"X_Forwarded_Proto": "https"}, "https"),
            (PROXY, {"Forwarded": f"for={ONE};proto=https"}, "https"),
            (PROXY, {"X_Forwarded_Proto": "http"}, "http"),
            (PROXY, {}, "http"),
            (STRANGER, {"X_Forwarded_Proto": "https"}, "http"),
            (STRANGER, {"Forwarded": "proto=https"}, "http"),
        ):
            async with client(harness, at=at, **headers) as http:
                server = (await http.get("/api/server")).json()["data"]
                ws = scheme.replace("http", "ws")
                assert server["secure"] is (scheme == "https")
                assert server["gateways"] == {
                    "http": f"{scheme}://play.example.org",
                    "ws": f"{ws}://play.example.org/api/ws",
                }
                assert (await http.get("/.well-known/avr")).json()["data"]["secure"] is (
                    scheme == "https"
                )
                document = (await http.get("/asyncapi.json")).json()
                assert document["servers"]["this"]["protocol"] == ws
                answer = await http.post(
                    "/api/auth/register", json={**LOGIN, "username": "u_" + ws}
                )
                if answer.status_code == 400:  # it was registered by an earlier line
                    answer = await http.post(
                        "/api/auth/login", json={**LOGIN, "username": "u_" + ws}
                    )
                assert ("Secure" in answer.headers["Set-Cookie"]) is (scheme == "https")


async def test_events_have_the_scheme_of_the_proxy(database_url: str) -> None:
    async with running(database_url, trusted_proxies=PROXY) as harness:
        ada = await harness.account()
        record = await harness.instance(ada)
        headers = [(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-For", ONE.encode())]
        async with connected(harness, ada, headers=headers) as player:
            await player.ask("subscribe", {"event": "update-instance", "target": record.id})
            await player.join(record.id)
            events = [one for one in player.skipped if one["command"] == "update-instance"]
            event = events[0] if events else await player.event("update-instance")
            assert event["data"]["secure"] is True


async def test_the_own_origin_is_that_of_the_proxy(database_url: str) -> None:
    async with running(database_url, trusted_proxies=PROXY) as harness:
        ada = await harness.account()
        cookie = {"Cookie": f"_suid_{harness.port}={ada.token}"}
        body = {"status": "busy"}
        for at, origin, headers, status in (
            (PROXY, "https://play.example.org", {"X_Forwarded_Host": "play.example.org"}, 200),
            (PROXY, "https://play.example.org:443", {"X_Forwarded_Host": "play.example.org"}, 200),
            (PROXY, "http://play.example.org", {"X_Forwarded_Host": "play.example.org"}, 401),
            (PROXY, "https://evil.example", {"X_Forwarded_Host": "play.example.org"}, 401),
            (PROXY, "https://play.example.org", {"Host": "play.example.org"}, 200),
            (PROXY, f"https://{harness.address}", {"Host": "reileta.internal"}, 200),
            (PROXY, "https://play.example.org", {}, 401),
            (STRANGER, "https://play.example.org", {"X_Forwarded_Host": "play.example.org"}, 401),
        ):
            more = {"X_Forwarded_Proto": "https", "Origin": origin, **headers}
            async with client(harness, at=at, **more) as http:
                answer = await http.post("/api/users/@me", json=body, headers=cookie)
                assert answer.status_code == status, (at, origin, headers)
        sent = [
            (b"Cookie", cookie["Cookie"].encode()),
            (b"Origin", b"https://play.example.org"),
            (b"X-Forwarded-Proto", b"wss"),
            (b"X-Forwarded-Host", b"play.example.org"),
        ]
        async with connected(harness, headers=sent) as player:
            assert (await player.event("authenticated"))["data"]["user"]["id"] == ada.id


CLIENTS = [
    (f"9.9.9.9, {ONE}", ONE, TWO),
    ("2001:db8::1", "[2001:db8::ffff]:443", "2001:db8:0:1::1"),
]
"""Three values of `X-Forwarded-For`; the first two are of one client."""


@pytest.mark.parametrize(("mine", "mine_too", "other"), CLIENTS)
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_each_client_has_a_rate_limit(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    mine: str,
    mine_too: str,
    other: str,
) -> None:
    """On one connection of the proxy."""
    monkeypatch.setattr(rate_limits, "ADDRESS", Rate(per_s=0.001, burst=3))
    async with running(database_url, trusted_proxies=PROXY) as harness:

        async def asked() -> list[int]:
            values = [mine, mine_too, mine, mine, mine_too, other, other]
            if version == "2":
                async with H2Client.to(harness.port) as h2:
                    replies = [
                        await h2.ask(
                            get(b"/api/time", b"GET", (b"x-forwarded-for", value.encode()))
                        )
                        for value in values
                    ]
                    return [reply.status for reply in replies]
            async with RawClient.connected(harness) as raw:
                statuses = []
                for value in values:
                    head = f"GET /api/time HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {value}\r\n\r\n"
                    await raw.send(head.encode())
                    statuses.append((await raw.answer()).status)
                return statuses

        assert await asked() == [200, 200, 200, 429, 429, 200, 200]


async def test_each_client_has_its_own_guesses(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "GUESSES", Rate(per_s=0.001, burst=2))
    async with running(database_url, trusted_proxies=PROXY) as harness:
        async with client(harness, X_Forwarded_For=ONE) as http:
            user = (await http.post("/api/auth/register", json=LOGIN)).json()["data"]["user"]
            assert await harness.store.networks.known(user["id"], ONE)
            assert not await harness.store.networks.known(user["id"], PROXY)
        for forged in ("9.9.9.8, ", "9.9.9.9, "):
            async with client(harness, X_Forwarded_For=forged + ONE) as http:
                wrong = {**LOGIN, "password": "another horse"}
                assert (await http.post("/api/auth/login", json=wrong)).status_code == 401
        async with client(harness, X_Forwarded_For=ONE) as http:
            assert (await http.post("/api/auth/login", json=LOGIN)).status_code == 429
        async with client(harness, X_Forwarded_For=TWO) as http:
            assert (await http.post("/api/auth/login", json=LOGIN)).status_code == 200


async def test_each_client_has_a_share_of_connections(database_url: str) -> None:
    """The proxy itself has as many as it needs. A WebSocket and a request in progress count."""
    async with (
        running(database_url, trusted_proxies=PROXY, connections_per_address=2) as harness,
        trio.open_nursery() as nursery,
    ):
        idle = [await trio.open_tcp_stream(PROXY, harness.port) for _ in range(8)]
        ada = await harness.account()

        def behind(address: str) -> list[tuple[bytes, bytes]]:
            return [(b"X-Forwarded-For", address.encode())]

        async with (
            connected(harness, ada, headers=behind(ONE)),
            RawClient.connected(harness) as raw,
        ):
            head = "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            head += f"Content-Length: 2\r\nX-Forwarded-For: {ONE}\r\n\r\n"
            await raw.send(head.encode())
            await until(lambda: harness.server.http_server.http_connections == 9)
            async with client(harness, X_Forwarded_For=TWO) as http:
                assert (await http.get("/api/time")).status_code == 200
            with trio.fail_after(PATIENCE_S):
                while True:  # until the server has read the head of the request in progress
                    async with client(harness, X_Forwarded_For=ONE) as http:
                        if (await http.get("/api/time")).status_code == 429:
                            break
            async with RawClient.connected(harness) as refused:
                await refused.send(upgrade_head(None, f"X-Forwarded-For: {ONE}"))
                assert (await refused.answer()).status == 429
            async with H2Client.to(harness.port) as h2:
                header = (b"x-forwarded-for", ONE.encode())
                assert (await h2.ask(get(b"/api/time", b"GET", header))).status == 429
                header = (b"x-forwarded-for", TWO.encode())
                assert (await h2.ask(get(b"/api/time", b"GET", header))).status == 200
            await raw.send(b"{}")
            assert (await raw.answer()).status == 400
            async with connected(harness, ada, headers=behind(ONE)):
                pass
        for stream in idle:
            await stream.aclose()
        await until(lambda: not len(harness.server.http_server.admission))
        async with client(harness, X_Forwarded_For=ONE) as http:
            assert (await http.get("/api/time")).status_code == 200
        nursery.cancel_scope.cancel()


async def test_a_direct_client_keeps_its_share(database_url: str) -> None:
    async with (
        running(database_url, trusted_proxies="10.0.0.1", connections_per_address=1) as harness,
        RawClient.connected(harness),
        client(harness, X_Forwarded_For=ONE) as http,
    ):
        assert (await http.get("/api/time")).status_code == 429


async def test_headers_of_strangers_show_in_the_log_once(database_url: str) -> None:
    async with running(database_url) as harness:
        with capture_logs() as logs:
            for _ in range(3):
                async with client(harness, X_Forwarded_For=ONE) as http:
                    await http.get("/api/time")
                async with H2Client.to(harness.port) as h2:
                    await h2.ask(get(b"/api/time", b"GET", (b"forwarded", b"for=192.0.2.1")))
        warnings = [log for log in logs if log["event"] == "proxy.not_trusted"]
        assert [(log["proxy"], log["setting"]) for log in warnings] == [
            (PROXY, "--trusted-proxies")
        ]


# The cookie ------------------------------------------------------------------------------------


async def test_two_servers_on_one_host_keep_their_users(
    database_url: str, empty_database_url: str
) -> None:
    async with (
        running(database_url) as first,
        running(empty_database_url) as second,
        httpx.AsyncClient(timeout=PATIENCE_S) as browser,
    ):
        pages = [
            (f"http://127.0.0.1:{server.port}", {"Origin": f"http://127.0.0.1:{server.port}"})
            for server in (first, second)
        ]
        for url, _ in pages:
            await browser.post(f"{url}/api/auth/register", json=LOGIN)
        for url, _ in pages:
            assert (await browser.get(f"{url}/api/users/@me")).status_code == 200
        (url, origin), (other, _) = pages
        assert (await browser.get(f"{url}/api/auth/logout", headers=origin)).status_code == 200
        assert (await browser.get(f"{url}/api/users/@me")).status_code == 401
        assert (await browser.get(f"{other}/api/users/@me")).status_code == 200


async def test_the_cookie_of_an_earlier_version(database_url: str) -> None:
    """It counts until the next login or logout, which removes it; that of another server stays."""
    async with running(database_url) as harness, client(harness) as browser:
        origin = {"Origin": f"http://127.0.0.1:{harness.port}"}
        ada = await harness.account("bob")
        old = {"Cookie": f"_suid={ada.token}"}
        assert (await browser.get("/api/users/@me", headers=old)).status_code == 200
        for request in (
            browser.post("/api/auth/register", json=LOGIN, headers=old),
            browser.post("/api/auth/login", json=LOGIN, headers=old),
            browser.get("/api/auth/logout", headers={**old, **origin}),
        ):
            cookies = (await request).headers.get_list("Set-Cookie")
            assert [cookie.partition("=")[0] for cookie in cookies] == [
                f"_suid_{harness.port}",
                "_suid",
            ]
            assert "Max-Age=0" in cookies[1]
        foreign = {"Cookie": "_suid=ua_of-another-server-on-this-host"}
        answer = await browser.post("/api/auth/login", json=LOGIN, headers=foreign)
        assert len(answer.headers.get_list("Set-Cookie")) == 1


# The base path ---------------------------------------------------------------------------------


def leads_on(root: httpx.Response) -> bool:
    """Whether an answer is the client's page, or leads to the documentation if none was built."""
    if root.status_code == 302:
        return root.headers["Location"] in ("/vr/docs", "/vr/")
    return root.status_code == 200 and 'src="/vr/assets/' in root.text


async def test_the_base_path_is_everywhere(database_url: str) -> None:
    async with (
        running(
            database_url, base_path="/vr/", address="play.example.org", trusted_proxies=PROXY
        ) as harness,
        client(harness, X_Forwarded_Proto="https") as http,
    ):
        for prefix in ("/vr", ""):  # passed on by the proxy, or removed
            server = (await http.get(f"{prefix}/api/server")).json()["data"]
            assert server["gateways"] == {
                "http": "https://play.example.org/vr",
                "ws": "wss://play.example.org/vr/api/ws",
            }
            assert server["address"] == "play.example.org"
            assert leads_on(await http.get(f"{prefix}/"))
            page = (await http.get(f"{prefix}/docs/plain")).text
            for link in ("docs/docs.css", "openapi.json", "asyncapi.json"):
                assert f'href="/vr/{link}"' in page
                assert (await http.get(f"{prefix}/{link}")).status_code == 200
            openapi = (await http.get(f"{prefix}/openapi.json")).json()
            assert openapi["servers"] == [{"url": "/vr"}]
            asyncapi = (await http.get(f"{prefix}/asyncapi.json")).json()
            assert asyncapi["servers"]["this"] == {
                "host": "play.example.org",
                "protocol": "wss",
                "pathname": "/vr",
            }
        assert leads_on(await http.get("/vr"))
        answer = await http.post("/vr/api/auth/register", json=LOGIN)
        assert "Path=/vr;" in answer.headers["Set-Cookie"] + ";"
        for path in ("/vrx/api/time", "/vr//api/time", "/vr/vr/api/time", "/vr/nothing"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["request"]) == (404, path)
        assert (await http.get("/%76r/api/time")).status_code == 200
        ada = await harness.account("bob")
        for path in ("/vr/api/ws", "/api/ws"):
            async with connected(harness, ada, path=path):
                pass
        for path in ("/vr/ws/user", "/ws/user"):
            async with connected(
                harness, path=path, headers=[(b"Authorization", f"Bearer {ada.token}".encode())]
            ) as player:
                assert (await player.receive())["type"] == "event"
            await until(lambda: not len(harness.gateway))
