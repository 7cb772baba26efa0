"""Paths over a real server: an encoded slash separates nothing, over HTTP/1.1, HTTP/2, upgrades."""

from __future__ import annotations

import httpx
import pytest

from tests import logs
from tests.conftest import PATIENCE_S
from tests.e2e.servers import running
from tests.e2e.test_administration import client_of, header

ENCODED = (
    "/api%2Fusers",
    "/api%2fusers",
    "/%2Fapi/users",
    "/api/users%2F{name}",
    "/api/users/{name}%2Fhome",
    "/api/users/{name}%2fthumbnail",
    "/api/users/{name}@{address}%2Fhome",
    "/metrics%2F",
    "/docs%2Fdocs.css",
    "/resource%2Fdocument",
)


@pytest.mark.parametrize("http2", [False, True])
async def test_an_encoded_slash_separates_nothing(database_url: str, http2: bool) -> None:
    with logs.restored():
        async with running(database_url, rate_limits="off") as harness:
            ann = await harness.account("ann")
            base = f"http://{harness.host}:{harness.port}"
            async with httpx.AsyncClient(
                base_url=base, http1=not http2, http2=http2, headers=header(ann), timeout=PATIENCE_S
            ) as client:
                for template in ENCODED:
                    path = template.format(name=ann.username, address=harness.address)
                    answer = await client.get(path)
                    assert answer.status_code == 404, path
                    assert answer.json()["request"] == path
                # Other encoded characters are still the same as those that they encode.
                for path in ("/%61pi/users/%61nn", "/api/users/%40me", f"/api/users/{ann.id}"):
                    assert (await client.get(path)).json()["data"]["id"] == ann.id
                # An encoded percent sign is not decoded twice.
                assert (await client.get("/api/users/%2561nn")).status_code == 404


@pytest.mark.parametrize("path", ["/api%2Fws", "/ws%2fuser"])
async def test_an_encoded_slash_opens_no_socket(database_url: str, path: str) -> None:
    with logs.restored():
        async with running(database_url) as harness, client_of(harness) as client:
            ann = await harness.account("ann")
            upgrade = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version": "13",
            }
            answer = await client.get(path, headers={**header(ann), **upgrade})
            assert answer.status_code == 404
