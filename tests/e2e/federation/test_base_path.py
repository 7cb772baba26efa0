"""A server below a base path, behind a proxy whose root is something else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.conftest import Databases
from tests.e2e.federation.servers import federated_servers
from tests.ports import free_port

HOST = "127.0.0.13"
NOTHING = b"<html>Another site</html>"


@asynccontextmanager
async def proxy(port: int, base: str) -> AsyncIterator[dict[str, str]]:
    """Passes `/.well-known/avr` and what is below `base` to the server `to["address"]`; answers all
    else with a page of its own."""
    to: dict[str, str] = {}

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = await stream.receive_some()
            if not more:
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        while length is not None and len(body) < int(length[1]):
            body += await stream.receive_some()
        path = head.split(b" ")[1].decode()
        if path != "/.well-known/avr" and not path.startswith(f"{base}/"):
            page = b"HTTP/1.1 404 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            await stream.send_all(page % len(NOTHING) + NOTHING)
            return
        host, _, number = to["address"].partition(":")
        async with await trio.open_tcp_stream(host, int(number)) as server:
            await server.send_all(head + b"\r\nConnection: close\r\n\r\n" + body)
            async for part in server:
                await stream.send_all(part)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError):
                await serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host=HOST)
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield to
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_server_below_a_base_path_proves_itself_and_is_read(
    databases: Databases, tmp_path: Path
) -> None:
    """Both ways: it challenges, and it is challenged, visited and read."""
    port = free_port(HOST)
    address = f"{HOST}:{port}"
    own = ("--address", address, "--base-path", "/vr")
    async with (
        proxy(port, "/vr") as to,
        federated_servers(databases, tmp_path, 2, each=[own], peers=[address]) as (a, b),
    ):
        to["address"] = f"{a.host}:{a.port}"
        ann, bob = await a.account("ann"), await b.account("bob")
        # Before it is known: where its API is, is asked for.
        found = await b.get(f"/api/users/ann@{address}", bob)
        assert found["id"] == ann.id
        async with a.ask(ann) as client:
            answer = await client.post("/api/integrity", json={"server": b.address})
            assert answer.status_code == 200, answer.text
        async with b.ask(bob) as client:
            answer = await client.post("/api/integrity", json={"server": address})
            assert answer.status_code == 200, answer.text
            token = answer.json()["data"]["id"]
            assert (await client.delete(f"/api/integrity/{token}")).status_code == 200
        await b.running.until_logged("visit.revoked")
        listed = await b.get(f"/api/users@{address}", bob)
        assert "ann" in [one["username"] for one in listed["items"]]
