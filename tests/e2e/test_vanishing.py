"""Clients that vanish, in every state of a connection and in every way: nothing of them stays."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h2.settings
import pytest
import trio

from api.listen.byte_stream import ByteStream
from api.listen.http1 import PREFACE, Http1Connection
from api.listen.http2 import Http2Connection
from api.listen.request_head import RequestHead
from api.listen.timeouts import Timeouts
from api.listen.upgrade import Upgrade
from api.ws.transport.base import Transport
from reileta.security.credentials import new_token
from tests.api.listen.h2client import H2Client, frame
from tests.e2e.clients import PING, TEXT, RawClient, text, until, upgrade_head
from tests.e2e.clients import frame as ws_frame
from tests.e2e.servers import ServerHarness, running

Leave = Literal["close", "reset", "half", "silent"]
"""`half` closes the client's side alone; `silent` does nothing more."""
LEAVES: tuple[Leave, ...] = ("close", "reset", "half", "silent")

TIMEOUTS = Timeouts(
    handshake_s=1.5,
    head_s=1.5,
    idle_s=1.5,
    progress_s=1.5,
    half_closed_s=0.1,
    linger_s=0.1,
    tick_s=0.02,
)
SHORTEST_S = 0.4
"""The shortest deadline of these servers for a client that has said something."""
LONG = os.environ.get("REILETA_TEST_FORMS") == "long"
"""Whether clients leave in every manner over TLS, too: `make chaos` asks for it."""
MIB = 1024 * 1024
FILE_BYTES = 24 * MIB
GROWTH_LIMIT_BYTES = 512 * 1024
"""What memory may grow by in a round of a few hundred vanished clients, which held MiB."""
HELD = (ByteStream, Http1Connection, Http2Connection, RequestHead, Upgrade, Transport)
"""What belongs to one connection."""
HEADERS, RST, SETTINGS, WINDOW = 1, 3, 4, 8


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def post(path: str, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *lines]
    return "\r\n".join([*head, "", ""]).encode()


def unknown() -> str:
    """A credential that must be looked up."""
    return f"Authorization: Bearer {new_token('ua')}"


class VanishingClients:
    """The server, a large file on it, and how to get to them."""

    def __init__(self, harness: ServerHarness, file: str, tls: ssl.SSLContext | None) -> None:
        self.harness = harness
        self.file = file
        self.tls = tls

    @asynccontextmanager
    async def client(self, leave: Leave, *, http2: bool = False) -> AsyncIterator[RawClient]:
        """A client that vanishes at the block's end."""
        with trio.socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            await sock.connect((self.harness.host, self.harness.port))
            tcp = trio.SocketStream(sock)
            stream: trio.abc.Stream = tcp
            if self.tls is not None:
                self.tls.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
                stream = trio.SSLStream(
                    tcp, self.tls, server_hostname=self.harness.host, https_compatible=True
                )
                await stream.do_handshake()
            yield RawClient(stream)
            await self.vanish(sock, leave)

    @asynccontextmanager
    async def http2(self, leave: Leave) -> AsyncIterator[H2Client]:
        async with self.client(leave, http2=True) as raw:
            client = H2Client(raw.stream)
            client.reads = False
            client.h2.initiate_connection()
            await client.flush()
            yield client

    async def vanish(self, sock: trio.socket.SocketType, leave: Leave) -> None:
        match leave:
            case "close":
                pass
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "half" | "silent":
                if leave == "half":
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_WR)
                await until(lambda: not len(self.harness.server.http_server.admission))


Way = Callable[[VanishingClients, Leave], Awaitable[None]]


def sending(data: Callable[[VanishingClients], bytes] | bytes, *, later: bool) -> Way:
    """A client that sends this and vanishes; `later`: on a connection that was served before."""

    async def way(site: VanishingClients, leave: Leave) -> None:
        async with site.client(leave) as client:
            if later:
                await client.send(get("/api/time"))
                assert (await client.answer()).status == 200
            sent = data if isinstance(data, bytes) else data(site)
            with suppress(trio.BrokenResourceError), trio.move_on_after(0.2):
                await client.send(sent)

    return way


SENT: dict[str, Callable[[VanishingClients], bytes] | bytes] = {
    "nothing": b"",
    "a byte": b"G",
    "half a line": b"GET /api/ti",
    "half a head": get("/api/time")[:-3],
    "a blank line": b"\r\n",
    "half a preface": PREFACE[:9],
    "many requests": get("/api/time") * 200,
    "many requests and a half": get("/api/time") * 200 + b"GET",
    "what is not HTTP": b"hello\r\n\r\n" + bytes(100_000),
    "half a body": post("/api/auth/login", "Content-Length: 1000") + b"{",
    "half an unread body": post("/api/nothing", "Content-Length: 1000") + b"{",
    "a large unread body": post("/api/nothing", "Content-Length: 99999999") + bytes(MIB),
    "half a size of a chunk": post("/api/auth/login", "Transfer-Encoding: chunked") + b"3",
    "half a chunk": post("/api/auth/login", "Transfer-Encoding: chunked") + b"fff\r\n{",
    "half a trailer": post("/api/auth/login", "Transfer-Encoding: chunked") + b"0\r\nX",
    "no body after 100": post("/api/auth/login", "Expect: 100-continue", "Content-Length: 9"),
    "a download": lambda site: get(site.file),
    "downloads": lambda site: get(site.file) * 5,
    "a download and a half": lambda site: get(site.file) + b"GET",
    "half an upgrade": upgrade_head()[:-10],
    "an upgrade": upgrade_head(),
    "an upgrade and frames": upgrade_head() + text({"command": "ping"}) * 50 + ws_frame(PING),
    "an upgrade and half a frame": upgrade_head() + text({"command": "ping"})[:-3],
    "an upgrade and half a message": upgrade_head() + ws_frame(TEXT, b"{" * 9_000, fin=False),
    "an upgrade that is refused": upgrade_head(None, "Authorization: Basic x"),
    "an upgrade behind requests": get("/api/time") * 20 + upgrade_head(),
    "a socket that reads nothing": upgrade_head() + text({"command": "ping"}) * 150,
}

SENT_TO_DATABASE: dict[str, Callable[[VanishingClients], bytes] | bytes] = {
    "a request": lambda _: get("/api/users/@me", unknown()),
    "requests": lambda _: get("/api/users/@me", unknown()) * 10,
    "a request and a half": lambda _: get("/api/users/@me", unknown()) + b"GET",
    "an upgrade": lambda _: upgrade_head(None, unknown()),
    "an upgrade and frames": lambda _: upgrade_head(None, unknown()) + text({"command": "ping"}),
    "an upgrade behind requests": lambda _: get("/api/time") + upgrade_head(None, unknown()),
}


async def opened(site: VanishingClients, leave: Leave, *, later: bool) -> None:
    """A WebSocket that is open, and said and heard something."""
    async with site.client(leave) as client:
        if later:
            await client.send(get("/api/time"))
            await client.answer()
        assert (await client.upgrade()).status == 101
        await client.send(text({"command": "ping", "state": 1}))
        await client.message("ping")


async def tls_handshake(site: VanishingClients, leave: Leave, *, sent: bytes) -> None:
    """A handshake of TLS that is begun, and no more."""
    plain = VanishingClients(site.harness, site.file, None)
    async with plain.client(leave) as client:
        await client.send(sent)


async def h2_bytes(site: VanishingClients, leave: Leave, *, sent: bytes) -> None:
    async with site.client(leave, http2=True) as client:
        with suppress(trio.BrokenResourceError):
            await client.send(sent)


def h2_get(path: str, *more: tuple[bytes, bytes], method: bytes = b"GET") -> Any:
    pseudo = [(b":method", method), (b":path", path.encode()), (b":scheme", b"http")]
    return [*pseudo, (b":authority", b"x"), *more]


async def h2_silent(site: VanishingClients, leave: Leave) -> None:
    async with site.http2(leave) as client:
        assert (await client.ask(h2_get("/api/time"))).status == 200


async def h2_downloads(site: VanishingClients, leave: Leave, *, window: int) -> None:
    """Several downloads, for which there is room or not, and of which nothing is read."""
    async with site.http2(leave) as client:
        if window > 65_535:
            client.h2.increment_flow_control_window(window - 65_535)
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        with suppress(trio.BrokenResourceError), trio.move_on_after(0.2):
            for _ in range(16):
                await client.request(h2_get(site.file))


async def h2_uploads(site: VanishingClients, leave: Leave) -> None:
    async with site.http2(leave) as client:
        for path in ("/api/auth/login", "/api/nothing", "/api/auth/register"):
            number = await client.request(h2_get(path, method=b"POST"), end=False)
            client.h2.send_data(number, b"{")
        await client.flush()


async def h2_resets(site: VanishingClients, leave: Leave) -> None:
    async with site.http2(leave) as client:
        with suppress(trio.BrokenResourceError), trio.move_on_after(0.2):
            for _ in range(400):
                number = client.h2.get_next_available_stream_id()
                client.h2.send_headers(number, h2_get(site.file), end_stream=True)
                client.h2.reset_stream(number)
                await client.flush()


async def h2_goodbye(site: VanishingClients, leave: Leave) -> None:
    async with site.http2(leave) as client:
        await client.request(h2_get(site.file))
        client.h2.close_connection()
        with suppress(trio.BrokenResourceError):
            await client.flush()


async def h2_database(site: VanishingClients, leave: Leave) -> None:
    async with site.http2(leave) as client:
        for _ in range(4):
            bearer = unknown().partition(": ")[2].encode()
            await client.request(h2_get("/api/users/@me", (b"authorization", bearer)))


WAYS: dict[str, Way] = {
    **{name: sending(sent, later=False) for name, sent in SENT.items()},
    **{f"later, {name}": sending(sent, later=True) for name, sent in SENT.items()},
    "a socket": partial(opened, later=False),
    "a socket on a later request": partial(opened, later=True),
    "HTTP/2, preface": partial(h2_bytes, sent=PREFACE),
    "HTTP/2, half a frame": partial(h2_bytes, sent=PREFACE + frame(SETTINGS)[:5]),
    "HTTP/2, settings": partial(h2_bytes, sent=PREFACE + frame(SETTINGS)),
    "HTTP/2, half a head": partial(
        h2_bytes, sent=PREFACE + frame(SETTINGS) + frame(HEADERS, b"\x82", stream=1)
    ),
    "HTTP/2, nonsense": partial(h2_bytes, sent=PREFACE + bytes(range(256)) * 100),
    "HTTP/2, silent": h2_silent,
    "HTTP/2, downloads without room": partial(h2_downloads, window=65_535),
    "HTTP/2, downloads with room": partial(h2_downloads, window=2**31 - 1),
    "HTTP/2, downloads with no room at all": partial(h2_downloads, window=0),
    "HTTP/2, uploads": h2_uploads,
    "HTTP/2, resets": h2_resets,
    "HTTP/2, goodbye": h2_goodbye,
}
TLS_WAYS: dict[str, Way] = {
    "TLS, nothing": partial(tls_handshake, sent=b""),
    "TLS, a byte": partial(tls_handshake, sent=b"\x16"),
    "TLS, half a hello": partial(tls_handshake, sent=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"),
    "TLS, no TLS": partial(tls_handshake, sent=get("/api/time")),
}
DATABASE_WAYS: dict[str, Way] = {
    **{name: sending(sent, later=False) for name, sent in SENT_TO_DATABASE.items()},
    **{f"later, {name}": sending(sent, later=True) for name, sent in SENT_TO_DATABASE.items()},
    "HTTP/2": h2_database,
}


@asynccontextmanager
async def site_of(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext, *, tls: bool
) -> AsyncIterator[VanishingClients]:
    cert, key = certificate if tls else (None, None)
    async with running(
        database_url,
        timeouts=TIMEOUTS,
        tls_cert=cert,
        tls_key=key,
        rate_limits="off",
        keepalive_interval_s=SHORTEST_S / 2,
        keepalive_timeout_s=SHORTEST_S / 2,
        credential_deadline_s=0.5,
    ) as harness:
        store = harness.store
        ada = await harness.account()
        world = await store.worlds.create(
            title="w",
            description=None,
            capacity=8,
            owner=ada.id,
            tags=frozenset({"avr:public"}),
        )
        asset = await store.assets.create(
            world_id=world.id, version="1", engine="unity", platform="linux"
        )
        async with store.files.upload(FILE_BYTES) as upload:
            await upload.write(bytes(FILE_BYTES))
            stored = await upload.commit()
        await store.assets.fill(asset.id, stored.hash, stored.size)
        file = f"/api/worlds/{world.id}/assets/{asset.id}/file"
        yield VanishingClients(harness, file, trusting if tls else None)


async def vanish_once(way: Way, site: VanishingClients, leave: Leave) -> None:
    """One client. On a busy machine it may be so slow that the server closes it before it vanishes;
    the server never does so before its shortest deadline."""
    begun = trio.current_time()
    try:
        await way(site, leave)
    except* (EOFError, trio.BrokenResourceError):
        assert trio.current_time() - begun >= SHORTEST_S


async def vanish(site: VanishingClients, ways: dict[str, Way], leave: Leave) -> None:
    """All the ways, a few at a time, until the server has none of their places."""
    admission = site.harness.server.http_server.admission
    names = list(ways)
    for start in range(0, len(names), 32):
        async with trio.open_nursery() as nursery:
            for name in names[start : start + 32]:
                nursery.start_soon(vanish_once, ways[name], site, leave)
        await until(lambda: not len(admission))


async def blocked(site: VanishingClients, leave: Leave) -> None:
    """The ways that wait for the database, which answers nobody until they have gone."""
    database = site.harness.store.database
    async with database.transaction() as transaction:
        await transaction.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await transaction.execute("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        await vanish(site, DATABASE_WAYS, leave)


def descriptors() -> int:
    """How many the process has open, without those of the database: they come and go."""
    unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    count = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            kind, _, inode = os.readlink(f"/proc/self/fd/{number}").partition(":")
            count += kind != "socket" or inode.strip("[]") not in unix
    return count


def held() -> list[Any]:
    """What belongs to connections; tests that ran before may have left some."""
    return [one for one in gc.get_objects() if isinstance(one, HELD)]


def tasks() -> int:
    """How many live, without those that read for the database's connections: they come and go."""
    waiting, count = [trio.lowlevel.current_root_task()], 0
    while waiting:
        task = waiting.pop()
        if task is not None and "trio_asyncio" not in task.name:
            count += 1
        if task is not None:
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return count


@pytest.mark.usefixtures("quick_watch")
@pytest.mark.parametrize("tls", [False, True])
async def test_nothing_stays_of_clients_that_vanish(
    database_url: str,
    certificate: tuple[Path, Path],
    trusting: ssl.SSLContext,
    capsys: pytest.CaptureFixture[str],
    tls: bool,
) -> None:
    async with site_of(database_url, certificate, trusting, tls=tls) as site:
        harness = site.harness
        ways = WAYS | TLS_WAYS if tls else WAYS
        before_held = held()

        async def round_of_all(leaves: Sequence[Leave], step: int = 1) -> None:
            for turn, leave in enumerate(leaves):
                names = list(ways)[turn % step :: step]
                await vanish(site, {name: ways[name] for name in names}, leave)
                if leave != "silent":  # a silent client may wait for an answer
                    await blocked(site, leave)
            await until(
                lambda: not harness.server.http_server.http_connections and not len(harness.gateway)
            )
            said = capsys.readouterr().out  # which is not kept in memory, either
            for word in ("Traceback", "request.failed", "connection.failed"):
                assert word not in said
            del said
            for _ in range(3):
                gc.collect()

        await round_of_all(
            LEAVES[:1]
        )  # fills what is kept for all: caches, the database's connections
        proxy = harness.server.proxy
        if proxy is not None:
            # What is counted below would have the registry's connections, too, which stay open.
            await round_of_all(LEAVES)
            await until(lambda: proxy.exchanges == 0)
            assert harness.metrics.backlog_bytes == harness.metrics.connections == 0
            return
        before_tasks, before_open = tasks(), descriptors()
        tracemalloc.start()
        try:
            before_bytes, _ = tracemalloc.get_traced_memory()
            # Over TLS, a client of each way leaves twice: in the first and the third manner, or in
            # the others.
            await round_of_all(LEAVES, 2 if tls and not LONG else 1)
            after_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert len(harness.server.http_server.admission) == 0
        left = [one for one in held() if not any(one is other for other in before_held)]
        assert not left, [[type(by) for by in gc.get_referrers(one)] for one in left]
        await until(lambda: tasks() <= before_tasks)
        assert descriptors() <= before_open
        assert harness.metrics.backlog_bytes == harness.metrics.connections == 0
        assert after_bytes - before_bytes < GROWTH_LIMIT_BYTES
