"""Behind a real nginx: the site of docs/operating.md, a base path, and two proxies in a row."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs
from trio_websocket import wrap_client_stream

from api import rate_limits
from reileta.rules.ratelimit import Rate
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Json, Player
from tests.e2e.servers import ServerHarness, running
from tests.reileta.media.pngs import png
from tests.tools import need

DOCS = Path(__file__).parents[2] / "docs" / "operating.md"
MAIN = """
daemon off;
user {user};
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""
ONE, TWO = "127.0.0.5", "127.0.0.6"
LOGIN = {"username": "ada", "password": "correct horse"}
MIB = 1024 * 1024


def documented(replaced: Callable[[str], str] = lambda site: site) -> str:
    """The site of the documentation."""
    text = DOCS.read_text()
    match = re.search(r"```nginx\n(map .*?)```", text, re.DOTALL)
    assert match is not None
    return replaced(match[1])


def documented_base_path() -> str:
    """The locations that the documentation puts in the place of `location /`."""
    match = re.search(r"```nginx\n( +location /vr/ .*?)```", DOCS.read_text(), re.DOTALL)
    assert match is not None
    return match[1]


class Nginx:
    """nginx programs of a test, on ports of the system's choice."""

    def __init__(self, folder: Path, certificate: tuple[Path, Path]) -> None:
        self._folder = folder
        self._certificate = certificate
        self._numbers = iter(range(9))

    @contextmanager
    def serving(self, site: str, upstream: int) -> Iterator[tuple[int, int]]:
        """Serves a site in front of that port: the ports of plain HTTP, and of TLS.

        nginx inherits listening sockets, as in an upgrade of its program: no port can be taken by
        another test meanwhile, and clients can connect at once.
        """
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        sockets = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2)]
        plain, secure = (one.getsockname()[1] for one in sockets)
        site = re.sub(r"listen \[::\].*;", "", site)
        site = re.sub(r"listen 80;", f"listen 127.0.0.1:{plain};", site)
        site = re.sub(r"listen 443", f"listen 127.0.0.1:{secure}", site)
        site = site.replace("127.0.0.1:3032", f"127.0.0.1:{upstream}")
        site = re.sub(r"/etc/.*/fullchain.pem", str(self._certificate[0]), site)
        site = re.sub(r"/etc/.*/privkey.pem", str(self._certificate[1]), site)
        (folder / "nginx.conf").write_text(
            MAIN.format(folder=folder, site=site, user=pwd.getpwuid(os.getuid()).pw_name)
        )
        descriptors = [one.fileno() for one in sockets]
        command = [need("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
        with subprocess.Popen(
            [*command, "-e", f"{folder}/error.log"],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={**os.environ, "NGINX": "".join(f"{one};" for one in descriptors)},
        ) as process:
            for one in sockets:
                one.close()
            try:
                yield plain, secure
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()


@pytest.fixture
def nginx(tmp_path: Path, certificate: tuple[Path, Path]) -> Nginx:
    return Nginx(tmp_path, certificate)


@pytest.fixture
def browser(trusting: ssl.SSLContext) -> Callable[..., httpx.AsyncClient]:
    """Makes a client of a TLS port, at an address of this machine."""

    def made(port: int, *, at: str = ONE, **more: Any) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(local_address=at, verify=trusting, http2=False)
        url = f"https://127.0.0.1:{port}"
        return httpx.AsyncClient(base_url=url, transport=transport, timeout=PATIENCE_S, **more)

    return made


Browser = Callable[..., httpx.AsyncClient]


@asynccontextmanager
async def socket_at(
    port: int, path: str, trusting: ssl.SSLContext, *headers: tuple[str, str], at: str = ONE
) -> AsyncIterator[Player]:
    """A WebSocket through the TLS port, from that address."""
    tcp = await trio.open_tcp_stream("127.0.0.1", port, local_address=at)
    stream = trio.SSLStream(tcp, trusting, server_hostname="127.0.0.1", https_compatible=True)
    sent = [(name.encode(), value.encode()) for name, value in headers]
    async with trio.open_nursery() as nursery:
        host = f"127.0.0.1:{port}"
        yield Player(await wrap_client_stream(nursery, stream, host, path, extra_headers=sent))
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def behind(database_url: str, **changes: Any) -> AsyncIterator[ServerHarness]:
    async with running(
        database_url,
        **{"trusted_proxies": "127.0.0.1", "address": "play.example.org", **changes},
    ) as harness:
        yield harness


async def test_the_documented_site(
    database_url: str, nginx: Nginx, browser: Browser, trusting: ssl.SSLContext
) -> None:
    async with behind(database_url) as harness:
        with nginx.serving(documented(), harness.port) as (plain, secure):
            async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
                moved = await http.get(f"http://127.0.0.1:{plain}/api/time?a=b")
                assert moved.status_code == 308
                assert moved.headers["Location"] == "https://127.0.0.1/api/time?a=b"
            async with browser(secure) as http:
                server = (await http.get("/api/server")).json()["data"]
                assert server["secure"] is True
                assert server["gateways"] == {
                    "http": "https://play.example.org",
                    "ws": "wss://play.example.org/api/ws",
                }
                answer = await http.post("/api/auth/register", json=LOGIN)
                assert "; Secure;" in answer.headers["Set-Cookie"]
                user = answer.json()["data"]["user"]["id"]
                assert await harness.store.networks.known(user, ONE)
                # The jar sends the cookie; the page is the server's own.
                own = {"Origin": f"https://127.0.0.1:{secure}"}
                body = {"status": "busy"}
                assert (await http.post("/api/users/@me", json=body, headers=own)).is_success
                other = {"Origin": "https://127.0.0.1"}
                assert (await http.post("/api/users/@me", json=body, headers=other)).is_error
                assert (await http.get("/metrics")).status_code == 404
                cookie = "; ".join(f"{one.name}={one.value}" for one in http.cookies.jar)
            headers = ("Cookie", cookie), ("Origin", own["Origin"])
            async with socket_at(secure, "/api/ws", trusting, *headers) as player:
                told = await player.event("authenticated")
                assert told["data"]["user"]["id"] == user
                room = await harness.instance(await harness.account())
                await player.join(room.id)
                await player.ask("subscribe", {"event": "update-instance", "target": room.id})
                await player.say(room.id, {"text": "x" * 60_000}, state="big")
                answer_ = await player.until(lambda one: one.get("state") == "big")
                assert "error" not in answer_
            token = cookie.partition("=")[2]
            async with socket_at(
                secure, "/ws/user", trusting, ("Authorization", f"Bearer {token}")
            ) as player:
                hello = await player.receive()
                assert hello["type"] == "event"


async def test_files_through_nginx(database_url: str, nginx: Nginx, browser: Browser) -> None:
    """Whole and in parts, larger than every buffer of nginx and the default of its body limit."""
    content = hashlib.shake_256(b"").digest(5 * MIB)
    async with behind(database_url) as harness:
        with nginx.serving(documented(), harness.port) as (_, secure):
            async with browser(secure) as http:
                ada = await harness.account()
                http.headers["Authorization"] = f"Bearer {ada.token}"

                async def done(request: Any) -> Json:
                    answer: httpx.Response = await request
                    assert answer.is_success, answer.text
                    data: Json = answer.json()["data"]
                    return data

                world = await done(http.put("/api/worlds", json={"title": "A meadow"}))
                assets = f"/api/worlds/{world['id']}/assets"
                kind = {"version": "1", "engine": "unity", "platform": "linux"}
                asset = await done(http.put(assets, json=kind))
                path = f"{assets}/{asset['id']}/file"
                raw = {"Content-Type": "application/octet-stream"}
                given = await done(http.post(path, content=content, headers=raw))
                assert given["url"] == f"https://play.example.org{path}"
                assert given["size"] == len(content)
                other = await done(http.put(assets, json={**kind, "version": "2"}))
                form = {"file": ("a.bin", content)}
                sent = await done(http.post(f"{assets}/{other['id']}/file", files=form))
                assert sent["hash"] == given["hash"]
                whole = await http.get(path)
                assert whole.content == content
                part = await http.get(path, headers={"Range": "bytes=1000000-2999999"})
                assert (part.status_code, part.content) == (206, content[1_000_000:3_000_000])
                picture = png([[(0, 0, 0), (255, 255, 255)]], 8, 2)
                shown = await done(
                    http.post(
                        "/api/users/@me/thumbnail",
                        content=picture,
                        headers={"Content-Type": "image/png"},
                    )
                )
                url = f"/api/users/{ada.id}/thumbnail"
                assert shown["thumbnail"] == f"https://play.example.org{url}"
                assert (await http.get(url)).headers["Content-Type"] == "image/png"
                # Refused before the body has come: nginx passes the answer on.
                del http.headers["Authorization"]
                assert (await http.post(path, content=content, headers=raw)).status_code == 401


async def test_each_client_behind_nginx_has_its_limits(
    database_url: str, nginx: Nginx, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "ADDRESS", Rate(per_s=0.001, burst=3))
    async with behind(database_url) as harness:
        with nginx.serving(documented(), harness.port) as (_, secure), capture_logs() as logs:
            statuses = []
            for number in range(5):
                forged = {"X-Forwarded-For": f"9.9.9.{number}", "Forwarded": f"for=9.9.8.{number}"}
                async with browser(secure, headers=forged) as http:
                    statuses.append((await http.get("/api/time")).status_code)
            assert statuses == [200, 200, 200, 429, 429]
            async with browser(secure, at=TWO) as http:
                assert (await http.get("/api/time")).status_code == 200
        assert not [log for log in logs if log["event"].startswith("proxy.")]
        # All of these came over one connection, which nginx keeps open.
        assert harness.server.http_server.http_connections <= 1


def with_locations(locations: str) -> str:
    """The documented site, with other locations than `/`."""
    return re.sub(r" +location / \{.*?\}\n", lambda _: locations, documented(), flags=re.DOTALL)


@pytest.mark.parametrize("removed", [False, True])
async def test_a_base_path_behind_nginx(
    database_url: str, nginx: Nginx, browser: Browser, trusting: ssl.SSLContext, removed: bool
) -> None:
    """`removed`: nginx removes the path from requests that it passes on."""
    locations = documented_base_path()
    if removed:
        locations = locations.replace(
            "proxy_pass http://reileta;", "proxy_pass http://reileta/;", 1
        )
    site = with_locations(locations)
    async with behind(database_url, base_path="/vr") as harness:
        with nginx.serving(site, harness.port) as (_, secure):
            async with browser(secure) as http:
                server = (await http.get("/vr/api/server")).json()["data"]
                assert server["gateways"]["ws"] == "wss://play.example.org/vr/api/ws"
                assert (await http.get("/.well-known/avr")).json()["data"]["secure"] is True
                # The client's page, or the documentation if it was not built.
                page = await http.get("/vr/", follow_redirects=True)
                style, *_ = re.findall(r'stylesheet" href="([^"]*)"', page.text)
                assert style.startswith("/vr/")
                assert (await http.get(style)).headers["Content-Type"].startswith("text/css")
                assert (await http.get("/api/server")).status_code == 404  # nginx's own
                answer = await http.post("/vr/api/auth/register", json=LOGIN)
                assert "Path=/vr" in answer.headers["Set-Cookie"]
                assert (await http.get("/vr/api/users/@me")).is_success
                token = answer.json()["data"]["token"]
            bearer = ("Authorization", f"Bearer {token}")
            async with socket_at(secure, "/vr/api/ws", trusting, bearer) as player:
                await player.event("authenticated")


@pytest.mark.parametrize("removed", [False, True])
async def test_a_gateway_and_its_registry_behind_nginx(
    database_url: str, nginx: Nginx, browser: Browser, trusting: ssl.SSLContext, removed: bool
) -> None:
    """TLS, addresses of clients, WebSockets, uploads and a base path, as in front of one process.
    (`make split` runs all tests of this file like that.)"""
    locations = documented_base_path()
    if removed:
        locations = locations.replace(
            "proxy_pass http://reileta;", "proxy_pass http://reileta/;", 1
        )
    content = hashlib.shake_256(b"").digest(5 * MIB)
    async with behind(database_url, base_path="/vr", split=True) as harness:
        seen: set[str] = set()
        admission = harness.registry.http_server.admission
        enter_behind = admission.enter_behind

        def entered(address: str) -> Any:
            seen.add(address)
            return enter_behind(address)

        admission.enter_behind = entered  # type: ignore[method-assign]
        with nginx.serving(with_locations(locations), harness.port) as (_, secure):
            async with browser(secure, headers={"X-Forwarded-For": "9.9.9.9"}) as http:
                server = (await http.get("/vr/api/server")).json()["data"]
                assert server["gateways"]["ws"] == "wss://play.example.org/vr/api/ws"
                answer = await http.post("/vr/api/auth/register", json=LOGIN)
                assert "Path=/vr" in answer.headers["Set-Cookie"]
                assert "; Secure;" in answer.headers["Set-Cookie"]
                user = answer.json()["data"]["user"]["id"]
                assert await harness.store.networks.known(user, ONE)
                # From here on, the registry answers.
                http.cookies.clear()
                http.headers["Authorization"] = f"Bearer {answer.json()['data']['token']}"
                made = await http.put("/vr/api/worlds", json={"title": "A meadow"})
                world = made.json()["data"]
                assert world["server"] == "play.example.org"
                assets = f"/vr/api/worlds/{world['id']}/assets"
                kind = {"version": "1", "engine": "unity", "platform": "linux"}
                asset = (await http.put(assets, json=kind)).json()["data"]
                path = f"{assets}/{asset['id']}/file"
                given = (await http.post(path, content=content)).json()["data"]
                assert given["url"] == f"https://play.example.org{path}"
                assert (await http.get(path)).content == content
                part = await http.get(path, headers={"Range": "bytes=1000000-2999999"})
                assert (part.status_code, part.content) == (206, content[1_000_000:3_000_000])
                body = {"world": world["id"], "tags": ["avr:public"]}
                room = (await http.put("/vr/api/instances", json=body)).json()["data"]
                assert room["secure"] is True
                missing = await http.get("/vr/api/nothing")
                assert missing.status_code == 404
                assert missing.json()["request"] == ("" if removed else "/vr") + "/api/nothing"
            assert seen == {ONE}
            bearer = ("Authorization", http.headers["Authorization"])
            async with socket_at(secure, "/vr/api/ws", trusting, bearer) as player:
                await player.event("authenticated")
                await player.ask("subscribe", {"event": "update-instance", "target": room["id"]})
                await player.join(room["id"])
                known = [one for one in player.skipped if one["command"] == "update-instance"]
                event = known[0] if known else await player.event("update-instance")
                assert event["data"]["secure"] is True


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
async def test_two_proxies_in_a_row(
    database_url: str, nginx: Nginx, browser: Browser, trusting: ssl.SSLContext, header: str
) -> None:
    """The outer one speaks TLS with clients, the inner one appends to its headers."""
    proxied = "proxy_pass http://reileta;"
    inner = f"""
        upstream reileta {{ server 127.0.0.1:3032; keepalive 4; }}
        server {{
            listen 80;
            location / {{
                {proxied}
                proxy_http_version 1.1;
                proxy_set_header Host $http_host;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $http_connection;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            }}
        }}
    """
    outer = documented().replace(proxied, f"{proxied} proxy_bind 127.0.0.9;")
    if header == "Forwarded":
        inner = re.sub(
            r"proxy_set_header X-Forwarded-For .*;",
            'proxy_set_header Forwarded "$http_forwarded, for=$remote_addr;proto=$scheme";',
            inner,
        )
        outer = re.sub(r"proxy_set_header X-Forwarded-\w+ .*;", "", outer)
        outer = re.sub(
            r"proxy_set_header Forwarded .*;",
            'proxy_set_header Forwarded "$http_forwarded, for=$remote_addr;proto=$scheme";',
            outer,
        )
    async with behind(database_url, trusted_proxies="127.0.0.1,127.0.0.9") as harness:
        with (
            nginx.serving(inner, harness.port) as (between, _),
            nginx.serving(outer, between) as (_, secure),
        ):
            forged = {header: "9.9.9.9" if header != "Forwarded" else "for=9.9.9.9;proto=http"}
            async with browser(secure, headers=forged) as http:
                assert (await http.get("/api/server")).json()["data"]["secure"] is True
                answer = await http.post("/api/auth/register", json=LOGIN)
                user = answer.json()["data"]["user"]["id"]
                for address, known in ((ONE, True), ("127.0.0.9", False), ("9.9.9.9", False)):
                    assert await harness.store.networks.known(user, address) is known
                token = answer.json()["data"]["token"]
            bearer = ("Authorization", f"Bearer {token}")
            async with socket_at(secure, "/api/ws", trusting, bearer) as player:
                await player.event("authenticated")
