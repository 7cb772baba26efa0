"""Every request of the corpus means one thing, to every parser, on every request of a connection,
and behind nginx."""

from __future__ import annotations

import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from h2.errors import ErrorCodes

from api import rate_limits
from reileta.rules.ratelimit import Rate
from tests.api.listen.h2client import H2Client
from tests.conftest import PATIENCE_S
from tests.e2e.clients import Answer, RawClient, until
from tests.e2e.servers import ServerHarness, running
from tests.e2e.smuggling import ACCEPTED, REFUSED, SMUGGLED, Case, get
from tests.tools import need

QUIET = ("Traceback", "request.failed", "connection.failed")
"""What no client may bring about in the log."""


def quiet(capsys: pytest.CaptureFixture[str]) -> None:
    output = capsys.readouterr()
    for word in QUIET:
        assert word not in output.out + output.err


@dataclass(frozen=True)
class Port:
    """How to reach the server: plain or TLS."""

    database_url: str
    server: tuple[Path, Path] | tuple[None, None] = (None, None)
    """Certificate and key."""
    client: ssl.SSLContext | None = None

    @asynccontextmanager
    async def harness(self) -> AsyncIterator[ServerHarness]:
        """A server without rate limits. At its end, all of its connections end."""
        cert, key = self.server
        async with running(
            self.database_url, tls_cert=cert, tls_key=key, rate_limits="off"
        ) as harness:
            yield harness
            await until(lambda: not len(harness.server.http_server.admission))

    async def for_each(
        self,
        cases: Iterable[Case],
        check: Callable[[ServerHarness, RawClient, Case], Awaitable[None]],
    ) -> None:
        """Checks each case on a connection of its own to one server."""
        async with self.harness() as harness:
            for case in cases:
                async with RawClient.connected(harness, tls=self.client) as client:
                    await check(harness, client, case)


@pytest.fixture(params=["plain", "tls"])
def port(
    request: pytest.FixtureRequest,
    database_url: str,
    certificate: tuple[Path, Path],
    trusting: ssl.SSLContext,
) -> Port:
    if request.param == "plain":
        return Port(database_url)
    return Port(database_url, certificate, trusting)


async def refused(client: RawClient, case: Case) -> None:
    """The case is refused in the envelope, what follows it is never answered, and the connection
    ends."""
    answer = await client.answer()
    assert answer.status in case.statuses, (case.name, answer)
    assert answer.code, case.name
    assert len(answer.headers["x-trace-id"]) >= 16, case.name
    assert answer.headers["connection"] == "close", case.name
    assert await client.ended() == b"", case.name


@pytest.mark.parametrize("later", [False, True])
async def test_what_is_not_http_is_refused_in_the_envelope(
    port: Port, capsys: pytest.CaptureFixture[str], later: bool
) -> None:
    counted = 0

    async def check(harness: ServerHarness, client: RawClient, case: Case) -> None:
        nonlocal counted
        if later:
            await client.send(get())
            assert (await client.answer()).status == 200
        with suppress(trio.BrokenResourceError):
            await client.send(case.sent + SMUGGLED)
        await refused(client, case)
        counted += 1 + later
        assert sum(harness.metrics.http_requests.values()) == counted, case.name

    await port.for_each(REFUSED, check)
    quiet(capsys)


@pytest.mark.parametrize("later", [False, True])
async def test_what_is_not_http_is_refused_in_any_pieces(
    database_url: str, capsys: pytest.CaptureFixture[str], later: bool
) -> None:
    async def check(harness: ServerHarness, client: RawClient, case: Case) -> None:
        client.stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)  # type: ignore[attr-defined]
        with suppress(trio.BrokenResourceError):
            for byte in (get() if later else b"") + case.sent + SMUGGLED:
                await client.send(bytes([byte]))
        if later:
            assert (await client.answer()).status == 200
        await refused(client, case)

    short = [case for case in REFUSED if len(case.sent) <= 400]
    await Port(database_url).for_each(short, check)
    quiet(capsys)


async def test_what_is_http_is_answered_and_so_is_what_follows(
    port: Port, capsys: pytest.CaptureFixture[str]
) -> None:
    async def check(harness: ServerHarness, client: RawClient, case: Case) -> None:
        for _ in range(2):
            await client.send(case.sent + SMUGGLED + get(path=b"/healthz"))
            answer = await client.answer()
            assert answer.status in case.statuses, (case.name, answer)
            assert (await client.answer()).status == 404, case.name
            assert (await client.answer()).status == 200, case.name

    await port.for_each(ACCEPTED, check)
    quiet(capsys)


async def test_limits_apply_to_what_is_not_http(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "ADDRESS", Rate(per_s=0.01, burst=20))
    async with running(database_url) as harness:
        statuses = []
        for _ in range(40):
            async with RawClient.connected(harness) as client:
                await client.send(b"hello\r\n\r\n")
                answer = await client.answer()
                statuses.append(answer.status)
                if answer.status == 429:
                    assert answer.code == 102
                    assert int(answer.headers["retry-after"]) >= 1
                    break
        assert set(statuses) == {400, 429}
        assert harness.metrics.http_limited == 1


# HTTP/2 ----------------------------------------------------------------------------------------

M, P, S, A = b":method", b":path", b":scheme", b":authority"
PLAIN = [(M, b"GET"), (P, b"/api/time"), (S, b"http"), (A, b"x")]


def instead(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(one, value if one == name else old) for one, old in PLAIN]


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in PLAIN if pair[0] != name]


HEADS: dict[str, list[tuple[bytes, bytes]]] = {
    "path not ASCII": instead(P, "/é".encode()),
    "path of bytes": instead(P, b"/\xff\xfe"),
    "path with a space": instead(P, b"/a b"),
    "path with a request": instead(P, b"/ HTTP/1.1\r\nHost: smuggled\r\n\r\nGET /smuggled"),
    "path with NUL": instead(P, b"/\x00"),
    "no path": without(P),
    "empty path": instead(P, b""),
    "no slash": instead(P, b"api/time"),
    "two slashes": instead(P, b"//api/time"),
    "asterisk": instead(P, b"*"),
    "fragment": instead(P, b"/a#b"),
    "long path": instead(P, b"/" + b"x" * 9_000),
    "absolute with another host": instead(P, b"http://u:p@y/api/time"),
    "lower-case method": instead(M, b"get"),
    "method with a space": instead(M, b"GET /smuggled HTTP/1.1"),
    "method with CRLF": instead(M, b"GET\r\n"),
    "method not ASCII": instead(M, b"\xff"),
    "empty method": instead(M, b""),
    "no method": without(M),
    "CONNECT": [(M, b"CONNECT"), (A, b"x:80")],
    "CONNECT with a path": instead(M, b"CONNECT"),
    "extended CONNECT": [*instead(M, b"CONNECT"), (b":protocol", b"websocket")],
    "protocol of a GET": [*PLAIN, (b":protocol", b"websocket")],
    "no scheme": without(S),
    "no authority": without(A),
    "bad authority": instead(A, b"a b"),
    "empty authority": instead(A, b""),
    "authority with userinfo": instead(A, b"u@x"),
    "authority not ASCII": instead(A, "é".encode()),
    "another Host": [*PLAIN, (b"host", b"y")],
    "two Hosts": [*without(A), (b"host", b"x"), (b"host", b"y")],
    "bad Host": [*without(A), (b"host", b"a/b")],
    "path twice": [*PLAIN, (P, b"/smuggled")],
    "method twice": [*PLAIN, (M, b"POST")],
    "unknown pseudo-header": [*PLAIN, (b":foo", b"x")],
    "pseudo-header of an answer": [*PLAIN, (b":status", b"200")],
    "pseudo-header last": [(b"a", b"b"), *PLAIN],
    "upper-case name": [*PLAIN, (b"A", b"b")],
    "name with a space": [*PLAIN, (b"a b", b"c")],
    "name with a colon": [*PLAIN, (b"a:b", b"c")],
    "name with CRLF": [*PLAIN, (b"a\r\nb", b"c")],
    "empty name": [*PLAIN, (b"", b"c")],
    "name not ASCII": [*PLAIN, ("é".encode(), b"c")],
    "value with LF": [*PLAIN, (b"a", b"b\nc: d")],
    "value with CR": [*PLAIN, (b"a", b"b\rc")],
    "value with NUL": [*PLAIN, (b"a", b"\x00")],
    "connection": [*PLAIN, (b"connection", b"close")],
    "keep-alive": [*PLAIN, (b"keep-alive", b"timeout=5")],
    "upgrade": [*PLAIN, (b"upgrade", b"websocket")],
    "transfer-encoding": [*PLAIN, (b"transfer-encoding", b"chunked")],
    "te": [*PLAIN, (b"te", b"gzip")],
    "content-length of nothing": [*PLAIN, (b"content-length", b"3")],
    "content-length twice": [*PLAIN, (b"content-length", b"0"), (b"content-length", b"3")],
    "content-length signed": [*PLAIN, (b"content-length", b"-1")],
    "content-length with a sign": [*PLAIN, (b"content-length", b"+0")],
    "content-length of letters": [*PLAIN, (b"content-length", b"x")],
    "content-length of other digits": [*PLAIN, (b"content-length", b"\xd9\xa3")],
    "HTTP2-Settings": [*PLAIN, (b"http2-settings", b"!!!")],
    "too many headers": [*PLAIN, *[(b"a%d" % n, b"b") for n in range(120)]],
    "too large a header": [*PLAIN, (b"a", b"b" * 9_000)],
    "too large a head": [*PLAIN, *[(b"a%d" % n, b"b" * 1_000) for n in range(30)]],
    "far too large a head": [*PLAIN, *[(b"a%d" % n, b"b" * 4_000) for n in range(30)]],
}
ALSO_FINE = {"no scheme", "no authority", "te"}
"""Heads that a parser may as well take."""


@pytest.mark.parametrize("later", [False, True])
async def test_http_2_refuses_the_stream_or_ends_the_connection(
    port: Port, capsys: pytest.CaptureFixture[str], later: bool
) -> None:
    async with port.harness() as harness:
        for name, headers in HEADS.items():
            async with H2Client.to(harness.port, tls=port.client) as client:
                if later:
                    assert (await client.ask(PLAIN)).status == 200
                reply = await client.ask(headers)
                if reply.headers:
                    fine = {200} if name in ALSO_FINE else set()
                    assert reply.status in {400, 431} | fine, (name, reply)
                    if reply.status != 200:
                        envelope = Answer(
                            reply.status, {"content-type": "application/json"}, bytes(reply.body)
                        )
                        assert envelope.code, name
                    assert b"x-trace-id" in reply.headers, name
                    assert (await client.ask(PLAIN)).status == 200, name
                else:
                    goodbye = client.goodbye
                    assert reply.reset or goodbye not in (None, ErrorCodes.NO_ERROR), name
    quiet(capsys)


# Behind nginx ----------------------------------------------------------------------------------

NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format upstream "$upstream_addr";
    access_log {folder}/access.log upstream;
    client_header_timeout 1s;
    client_body_timeout 1s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream harness {{ server 127.0.0.1:{upstream}; keepalive 4; }}
    server {{
        listen unix:{folder}/socket;
        keepalive_requests 100000;
        ignore_invalid_headers off;
        underscores_in_headers on;
        merge_slashes off;
        location / {{
            proxy_pass http://harness;
            proxy_http_version {version};
            proxy_request_buffering {buffering};
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@contextmanager
def nginx(folder: Path, upstream: int, version: str, buffering: str) -> Iterator[str]:
    """nginx in front of the port; the path of the socket that it listens on."""
    program = need("nginx")
    config = NGINX.format(folder=folder, upstream=upstream, version=version, buffering=buffering)
    (folder / "nginx.conf").write_text(config)
    with subprocess.Popen(
        [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", f"{folder}/error.log"],
        stdin=subprocess.DEVNULL,
    ) as process:
        try:
            yield f"{folder}/socket"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have paths that the system takes."""
    with TemporaryDirectory(prefix="nginx-") as folder:
        yield Path(folder)


@asynccontextmanager
async def behind(socket: str) -> AsyncIterator[RawClient]:
    with trio.fail_after(PATIENCE_S):
        while (stream := await to_unix(socket)) is None:
            await trio.sleep(0.01)  # it is not up yet
    async with stream:
        yield RawClient(stream)


async def to_unix(socket: str) -> trio.SocketStream | None:
    try:
        return await trio.open_unix_socket(socket)
    except (OSError, RuntimeError):
        return None


@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_behind_nginx_answers_stay_in_step(
    database_url: str,
    short_folder: Path,
    capsys: pytest.CaptureFixture[str],
    version: str,
    buffering: str,
) -> None:
    """Whatever nginx makes of a case, it gets one answer for each request that it passes on: the
    next client, on the same connection of nginx, gets its own."""
    last = get(b"Connection: close", path=b"/last")
    async with running(database_url, rate_limits="off") as harness:
        with nginx(short_folder, harness.port, version, buffering) as socket:
            for case in (*REFUSED, *ACCEPTED):
                async with behind(socket) as client:
                    with suppress(trio.BrokenResourceError):
                        await client.send(case.sent + SMUGGLED + last)
                    await client.ended()
                async with behind(socket) as client:
                    for number in range(3):
                        await client.send(get(path=b"/in-step/%d" % number))
                        answer = await client.answer()
                        assert answer.status == 404, case.name
                        assert answer.envelope["request"] == f"/in-step/{number}", case.name
        passed_on = (short_folder / "access.log").read_text().count(f"127.0.0.1:{harness.port}")
        assert sum(harness.metrics.http_requests.values()) == passed_on
        await until(lambda: not len(harness.server.http_server.admission))
    quiet(capsys)
