"""The WebSocket's hostile cases through every door: plain and TLS, on a connection's first request
and on a later one. HTTP/2 has no such door."""

from __future__ import annotations

import json
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.api.listen.h2client import H2Client
from tests.e2e.clients import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    Json,
    RawClient,
    connected,
    frame,
    text,
    until,
)
from tests.e2e.hostile import BROKEN, LIMIT, REFUSED, UNREADABLE, deflated, pour
from tests.e2e.servers import Account, ServerHarness, running

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Door:
    """One way to a WebSocket."""

    harness: ServerHarness
    tls: ssl.SSLContext | None
    later: bool

    @asynccontextmanager
    async def client(self) -> AsyncIterator[RawClient]:
        """A client whose next request may be an upgrade."""
        async with RawClient.connected(self.harness, tls=self.tls) as client:
            if self.later:
                for path in ("/api/time", "/api/nothing"):
                    await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    assert (await client.answer()).status in (200, 404)
            yield client


Open = Callable[..., Any]


@pytest.fixture(params=["plain", "TLS"])
def tls(
    request: pytest.FixtureRequest, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> tuple[tuple[Path, Path], ssl.SSLContext] | None:
    return (certificate, trusting) if request.param == "TLS" else None


@pytest.fixture(params=["first", "later"])
def door(
    request: pytest.FixtureRequest,
    database_url: str,
    tls: tuple[tuple[Path, Path], ssl.SSLContext] | None,
) -> Open:
    """Opens a server with that door."""

    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[Door]:
        if tls is not None:
            changes |= {"tls_cert": tls[0][0], "tls_key": tls[0][1]}
        async with running(database_url, **changes) as harness:
            yield Door(harness, None if tls is None else tls[1], request.param == "later")
            await until(
                lambda: not len(harness.gateway) and not len(harness.server.http_server.admission)
            )
            assert harness.metrics.backlog_bytes == 0

    return opened


async def test_broken_frames_get_their_close_codes(door: Open) -> None:
    async with door(message_limit_bytes=LIMIT, rate_limits="off") as it:
        harness: ServerHarness = it.harness
        ada, bob = await harness.account(), await harness.account()
        place = await harness.instance(ada)
        async with connected(harness, bob, ssl_context=it.tls) as other:
            await other.join(place.id)
            for number, (name, (broken, code)) in enumerate(BROKEN.items()):
                async with it.client() as client:
                    await client.enter(ada, place.id)
                    say = {"command": "instance-data", "subgroup": place.id, "data": number}
                    await client.send(text(say) + broken + text(dict(say, data="after")))
                    assert (await client.close_frame()).close_code == code, name
                    await client.ended()
                assert (await other.hear())["data"] == number, name


async def test_broken_frames_right_behind_the_upgrade(door: Open) -> None:
    async with door(message_limit_bytes=LIMIT, rate_limits="off") as it:
        for name, (broken, code) in BROKEN.items():
            async with it.client() as client:
                answer = await client.upgrade(after=broken + text({"command": "ping"}))
                assert answer.status == 101, name
                assert (await client.close_frame()).close_code == code, name
                await client.ended()


async def test_broken_messages_get_their_codes(door: Open) -> None:
    async with door(rate_limits="off") as it:
        ada = await it.harness.account()
        place = await it.harness.instance(ada)
        async with it.client() as client:
            await client.enter(ada, place.id)

            async def refused(sent: str) -> Json:
                await client.send(text(sent.encode()))
                while b'"error"' not in (one := await client.frame()).payload:
                    assert one.opcode == TEXT
                error: Json = json.loads(one.payload)["error"]
                return error

            for sent in UNREADABLE:
                assert (await refused(sent))["code"] == 119, sent[:99]
            for fields, code, _ in REFUSED:
                sent = '{"state":[7],' + fields.replace("PLACE", f'"{place.id}"') + "}"
                assert (await refused(sent))["code"] == code, fields[:99]
            await client.send(text({"command": "ping", "state": 1}))
            assert (await client.message("ping"))["state"] == 1


async def test_fragments_and_pings(door: Open) -> None:
    async with door(rate_limits="off") as it, it.client() as client:
        assert (await client.upgrade()).status == 101
        payload = b'{"command":"ping","state":"\xc3\xa9"}'
        for at in range(len(payload)):
            kind = CONT if at else TEXT
            last = at == len(payload) - 1
            await client.send(frame(kind, payload[at : at + 1], fin=last) + b"")
            if not last:
                await client.send(frame(PING, b"%d" % at))
                assert (await client.frame()).payload == b"%d" % at
        assert (await client.message("ping"))["state"] == "é"
        await client.send(frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe"))
        assert b'"code":119' in (await client.frame()).payload


@pytest.mark.parametrize("kind", ["fragments", "pings", "pongs", "messages"])
async def test_floods_are_closed(door: Open, kind: str) -> None:
    flood = {
        "fragments": frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 30_000,
        "pings": frame(PING) * 30_000,
        "pongs": frame(PONG) * 30_000,
        "messages": text({"command": "ping"}) * 5_000,
    }[kind]
    async with door() as it, it.client() as client:
        assert (await client.upgrade()).status == 101
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, client, flood)
            assert (await client.close_frame()).close_code == 1008
            nursery.cancel_scope.cancel()


async def test_a_bomb_where_nothing_is_inflated(door: Open) -> None:
    """`--deflate off` holds for every door: the offer is passed over, and its bits are an error."""
    async with door(deflate=False) as it, it.client() as client:
        answer = await client.upgrade(None, DEFLATE)
        assert answer.status == 101
        assert "sec-websocket-extensions" not in answer.headers
        await client.send(deflated(b" " * MIB))
        assert (await client.close_frame()).close_code == 1002
        await client.ended()


async def test_bombs_where_messages_are_inflated(door: Open) -> None:
    bombs = (
        deflated(b" " * 50_000_000),
        deflated(b" " * 60_000, fin=False) + frame(CONT, zlib.compress(b" " * 10_000, wbits=-12)),
        deflated(b" " * 60_000, fin=False) + frame(CONT, b"", fin=False) * 20 + deflated(b"x"),
    )
    async with door(deflate=True) as it:
        for bomb, codes in zip(bombs, ({1009}, {1009}, {1002}), strict=True):
            async with it.client() as client:
                answer = await client.upgrade(None, DEFLATE)
                assert "permessage-deflate" in answer.headers["sec-websocket-extensions"]
                tracemalloc.start()
                try:
                    await client.send(bomb)
                    closed = await client.close_frame()
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                assert closed.close_code in codes
                assert peak < 8 * MIB
                await client.ended()
        async with it.client() as client:
            await client.upgrade(None, DEFLATE)
            await client.send(frame(TEXT, b"\xff\xff\xff\xff", reserved=4))
            assert (await client.close_frame()).close_code == 1002


async def test_nothing_is_taken_after_too_large_a_message(door: Open) -> None:
    """The limit holds after its close code as well."""
    async with door(message_limit_bytes=LIMIT, rate_limits="off") as it:
        ada, bob = await it.harness.account(), await it.harness.account()
        place = await it.harness.instance(ada)
        async with (
            connected(it.harness, bob, ssl_context=it.tls) as other,
            it.client() as client,
            trio.open_nursery() as nursery,
        ):
            await other.join(place.id)
            await client.enter(ada, place.id)
            say = text({"command": "instance-data", "subgroup": place.id, "data": 1})
            too_large = frame(TEXT, b"x" * (LIMIT + 1))
            nursery.start_soon(pour, client, (too_large + say) * 1_000)
            assert (await client.close_frame()).close_code == 1009
            nursery.cancel_scope.cancel()
            assert (await other.ask("ping"))["command"] == "ping"
            assert not [one for one in other.skipped if one["command"] == "instance-data"]


async def test_dead_clients_are_noticed(door: Open, quick_watch: None) -> None:
    async with (
        door(keepalive_interval_s=0.1, keepalive_timeout_s=0.1, credential_deadline_s=60) as it,
        it.client() as client,
    ):
        assert (await client.upgrade()).status == 101
        assert (await client.frame()).opcode == PING
        await until(lambda: not len(it.harness.gateway))


async def test_who_never_says_who_it_is(door: Open, quick_watch: None) -> None:
    async with door(credential_deadline_s=0.1) as it, it.client() as client:
        assert (await client.upgrade()).status == 101
        assert (await client.close_frame()).close_code == 4001


async def test_refused_upgrades_get_the_envelope(door: Open) -> None:
    async with door() as it:
        dead = Account("", "", "", "ua_" + "x" * 43)
        for account, lines, status, code in (
            (None, ("Authorization: Basic x",), 400, 100),
            (dead, (), 401, 101),
        ):
            async with it.client() as client:
                answer = await client.upgrade(account, *lines)
                assert (answer.status, answer.code) == (status, code)
                assert answer.headers["connection"] == "close"
                assert await client.ended() == b""


async def test_too_many_are_told_so(door: Open) -> None:
    async with door(connections=1) as it:
        ada = await it.harness.account()
        async with it.client() as first:
            await first.enter(ada)
            async with RawClient.connected(it.harness, tls=it.tls) as second:
                answer = await second.upgrade(ada)
                assert answer.status == 101
                assert (await second.close_frame()).close_code == 1013


async def test_http_2_offers_no_websocket(
    database_url: str,
    tls: tuple[tuple[Path, Path], ssl.SSLContext] | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither the setting of RFC 8441 nor an extended CONNECT, nor an upgrade as in HTTP/1.1."""
    changes: dict[str, Any] = {} if tls is None else {"tls_cert": tls[0][0], "tls_key": tls[0][1]}
    connect = [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        (b":scheme", b"https"),
        (b":path", b"/api/ws"),
        (b":authority", b"x"),
        (b"sec-websocket-version", b"13"),
    ]
    upgrade = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/api/ws"),
        (b":authority", b"x"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
    ]
    plain = [*upgrade[:4]]
    async with running(database_url, **changes) as harness:
        for headers in (connect, upgrade, plain):
            async with H2Client.to(harness.port, tls=None if tls is None else tls[1]) as client:
                number = await client.request(headers, end=headers is not connect)
                reply = await client.reply(number)
                assert not client.h2.remote_settings.enable_connect_protocol
                assert not reply.headers or reply.status == 400
                assert reply.headers or reply.reset or client.goodbye
        assert harness.metrics.connections_total == 0
        await until(lambda: not len(harness.server.http_server.admission))
    said = capsys.readouterr().out
    assert "Traceback" not in said
