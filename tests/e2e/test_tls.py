"""TLS on the same port, for HTTP and WebSocket, with a certificate that the test makes."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from api.listen import server
from api.listen.timeouts import Timeouts
from api.ws.transport.tls import STREAM_CHUNK
from tests.e2e.clients import CLOSE, Raw, connected, frame, text, until, upgrade_head
from tests.e2e.servers import House, running


@asynccontextmanager
async def secure(
    database_url: str, certificate: tuple[Path, Path], **changes: Any
) -> AsyncIterator[House]:
    cert, key = certificate
    async with running(database_url, tls_cert=cert, tls_key=key, **changes) as house:
        yield house


async def test_http_1_and_2(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    async with secure(database_url, certificate) as house:
        assert house.server.url.startswith("https://")
        for http2 in (False, True):
            async with httpx.AsyncClient(verify=trusting, http2=http2) as client:
                for _ in range(2):
                    answer = await client.get(f"{house.server.url}/api/time")
                    assert answer.status_code == 200
                    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
                answer = await client.get(f"{house.server.url}/api/nothing")
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, 2)


async def test_websocket(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    async with secure(database_url, certificate, rate_limits="off") as house:
        ada, bob = await house.account("ada"), await house.account("bob")
        place = (await house.instance(ada)).id
        async with (
            connected(house, ada, ssl_context=trusting) as one,
            connected(house, bob, ssl_context=trusting) as two,
        ):
            await one.join(place)
            await two.join(place)
            large = "x" * (STREAM_CHUNK - 2_000)
            for number in range(20):
                await one.say(place, {"n": number, "large": large})
            for number in range(20):
                assert (await two.hear())["data"] == {"n": number, "large": large}
            await one.ask("ping")
        await until(lambda: not len(house.gateway))
        assert house.metrics.backlog_bytes == 0


async def test_refusals_and_goodbyes(
    database_url: str, certificate: tuple[Path, Path], trusting: ssl.SSLContext
) -> None:
    async with secure(database_url, certificate) as house:
        ada = await house.account("ada")
        async with Raw.connected(house, tls=trusting) as client:
            answer = await client.upgrade(None, "Authorization: Basic x")
            assert (answer.status, answer.code) == (400, 100)
        async with Raw.connected(house, tls=trusting) as client:
            await client.send(upgrade_head(ada) + text({"command": "ping", "state": 1}))
            assert (await client.answer()).status == 101
            await client.message("ping")
            await client.send(frame(CLOSE, b"\x03\xe8"))
            assert (await client.close_frame()).close_code == 1000
            await client.ended()
        async with Raw.connected(house, tls=trusting) as client:
            await client.enter(ada)
            await client.send(frame(1, b"\xff"))
            assert (await client.close_frame()).close_code == 1007
        await until(lambda: not len(house.gateway))
        async with connected(house, ada, ssl_context=trusting) as player, trio.open_nursery() as n:
            n.start_soon(house.server.stop)
            assert (await player.closed())[0] == 1001


async def test_what_is_no_tls_is_hung_up_on(
    database_url: str,
    certificate: tuple[Path, Path],
    trusting: ssl.SSLContext,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with secure(database_url, certificate, timeouts=Timeouts(handshake_s=0.2)) as house:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b""):
            async with Raw.connected(house) as client:
                await client.send(said)
                await client.ended()
        async with httpx.AsyncClient(verify=trusting) as client:
            assert (await client.get(f"{house.server.url}/api/time")).status_code == 200
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
    ) as house:
        ada, eve = await house.account("ada"), await house.account("eve")
        place = (await house.instance(ada)).id
        async with connected(house, ada, ssl_context=trusting) as one:
            await one.join(place)
            async with Raw.connected(house, tls=trusting) as slow:
                await slow.enter(eve, place)
                number = 0
                while not house.metrics.too_slow:
                    await one.say(place, {"n": number, "filler": "x" * 16_000})
                    number += 1
                    assert number < 1_000
                await one.ask("ping")
                assert house.metrics.backlog_bytes <= 2 * 64 * 1024
                assert (await slow.close_frame()).close_code == 4008
            await until(lambda: len(house.gateway) == 1)
