"""A server that is away is left alone for a while, and works when it is back."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from tests.conftest import PATIENCE_S, Databases
from tests.e2e.federation.hostile_peer import Json, hostile_peer
from tests.e2e.federation.servers import Account, FederatedServer, federated_servers, two_servers


async def contact(server: FederatedServer, by: Account, address: str) -> tuple[Json, int]:
    """The error (or nothing), and `Retry-After`."""
    async with server.ask(by) as client:
        answer = await client.post("/api/servers", json={"server": address})
    return answer.json().get("error", {}), int(answer.headers.get("Retry-After", "0"))


async def test_a_peer_sees_three_attempts_and_then_none_for_a_while(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        peer.discovery = lambda _: b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
        for _ in range(3):
            error, _ = await contact(b, admin, peer.address)
            assert error["code"] == 6
        assert len(peer.requests) == 3
        failed = time.monotonic()
        for _ in range(10):
            error, retry_after = await contact(b, admin, peer.address)
            assert error["code"] == 6
            if len(peer.requests) > 3:  # a busy machine has taken the five seconds
                assert time.monotonic() - failed >= 4
                break
            assert 1 <= retry_after <= 7


async def test_a_peer_that_asks_for_time_gets_it(databases: Databases, tmp_path: Path) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, peers=[peer.address]) as (b,),
    ):
        admin = await b.admin()
        body = b'{"error": {"code": 102, "message": "no"}}'
        head = b"HTTP/1.1 429 X\r\nRetry-After: 9999\r\nContent-Length: %d\r\n\r\n" % len(body)
        peer.discovery = lambda _: head + body
        assert (await contact(b, admin, peer.address))[0]["code"] == 6
        error, retry_after = await contact(b, admin, peer.address)
        assert (error["code"], retry_after) == (6, 600)
        assert len(peer.requests) == 1


async def test_a_real_server_that_stops_is_6_and_works_when_it_is_back(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        admin = await a.admin()
        assert await contact(a, admin, b.address) == ({}, 0)
        await b.stop()
        error, _ = await contact(a, admin, b.address)
        assert error["code"] == 6
        before = await a.get(f"/api/servers/{b.address}", admin)
        assert before["failures"] == 1
        assert before["state"] == "known"
        assert "token_expires_at" in before
        await b.start()
        with trio.fail_after(PATIENCE_S):
            while (await contact(a, admin, b.address))[0]:
                await trio.sleep(0.5)
        assert (await a.get(f"/api/servers/{b.address}", admin))["failures"] == 0
