"""TLS on the same port, for HTTP and WebSocket, with a certificate that the test makes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from api.listen import server
from api.listen.timeouts import Timeouts
from api.ws.transport.tls import STREAM_CHUNK
from tests.conftest import PATIENCE_S
from tests.e2e.clients import CLOSE, RawClient, connected, frame, text, until, upgrade_head
from tests.e2e.processes import eventually
from tests.e2e.servers import ServerHarness, running


@asynccontextmanager
async def secure(
    database_url: str, certificate: tuple[Path, Path], **changes: Any
) -> AsyncIterator[ServerHarness]:
    cert, key = certificate
    async with running(database_url, tls_cert=cert, tls_key=key, **changes) as harness:
        yield harness


async def test_http_1_and_2(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    async with secure(database_url, certificate) as harness:
        assert harness.server.url.startswith("https://")
        for http2 in (False, True):
            async with httpx.AsyncClient(
                verify=trusting, http2=http2, timeout=PATIENCE_S
            ) as client:
                for _ in range(2):
                    answer = await client.get(f"{harness.server.url}/api/time")
                    assert answer.status_code == 200
                    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                answer = await client.get(f"{harness.server.url}/api/nothing")
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, 2)


async def test_websocket(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    async with secure(database_url, certificate, rate_limits="off") as harness:
        ada, bob = await harness.account("ada"), await harness.account("bob")
        place = (await harness.instance(ada)).id
        async with (
            connected(harness, ada, ssl_context=trusting) as one,
            connected(harness, bob, ssl_context=trusting) as two,
        ):
            await one.join(place)
            await two.join(place)
            large = "x" * (STREAM_CHUNK - 2_000)
            for number in range(20):
                await one.say(place, {"n": number, "large": large})
            for number in range(20):
                assert (await two.hear())["data"] == {"n": number, "large": large}
            await one.ask("ping")
        await until(lambda: not len(harness.gateway))
        assert harness.metrics.backlog_bytes == 0


async def test_refusals_and_goodbyes(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    async with secure(database_url, certificate) as harness:
        ada = await harness.account("ada")
        async with RawClient.connected(harness, tls=trusting) as client:
            answer = await client.upgrade(None, "Authorization: Basic x")
            assert (answer.status, answer.code) == (400, 100)
        async with RawClient.connected(harness, tls=trusting) as client:
            await client.send(upgrade_head(ada) + text({"command": "ping", "state": 1}))
            assert (await client.answer()).status == 101
            await client.message("ping")
            await client.send(frame(CLOSE, b"\x03\xe8"))
            assert (await client.close_frame()).close_code == 1000
            await client.ended()
        async with RawClient.connected(harness, tls=trusting) as client:
            await client.enter(ada)
            await client.send(frame(1, b"\xff"))
            assert (await client.close_frame()).close_code == 1007
        await until(lambda: not len(harness.gateway))
        async with (
            connected(harness, ada, ssl_context=trusting) as player,
            trio.open_nursery() as n,
        ):
            n.start_soon(harness.server.stop)
            assert (await player.closed())[0] == 1001


async def test_what_is_no_tls_is_hung_up_on(
    database_url: str,
    certificate: tuple[Path, Path],
    trusting: ssl.SSLContext,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with secure(database_url, certificate, timeouts=Timeouts(handshake_s=0.2)) as harness:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""):
            async with RawClient.connected(harness) as client:
                await client.send(said)
                await client.ended()
        async with httpx.AsyncClient(verify=trusting, timeout=PATIENCE_S) as web:

            async def served() -> bool:
                """A busy machine may need longer than the handshake may take."""
                with suppress(httpx.TransportError):
                    return (await web.get(f"{harness.server.url}/api/time")).is_success
                return False

            await eventually(served)
    assert "connection.failed" not in capsys.readouterr().out


async def test_a_slow_reader(
    database_url: str,
    certificate: tuple[Path, Path],
    trusting: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "SEND_BUFFER", 16 * 1024)
    async with secure(
        database_url, certificate, backlog_limit_bytes=64 * 1024, rate_limits="off"
    ) as harness:
        ada, eve = await harness.account("ada"), await harness.account("eve")
        place = (await harness.instance(ada)).id
        async with connected(harness, ada, ssl_context=trusting) as one:
            await one.join(place)
            async with RawClient.connected(harness, tls=trusting) as slow:
                await slow.enter(eve, place)
                number = 0
                while not harness.metrics.too_slow:
                    await one.say(place, {"n": number, "filler": "x" * 16_000})
                    number += 1
                    assert number < 1_000
                await one.ask("ping")
                assert harness.metrics.backlog_bytes <= 2 * 64 * 1024
                assert (await slow.close_frame()).close_code == 4008
            await until(lambda: len(harness.gateway) == 1)
