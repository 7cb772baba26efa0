"""The servers that the tests of this folder share."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from tests.conftest import Databases
from tests.e2e.federation.servers import two_servers
from tests.ports import free_port


async def test_two_servers_run_side_by_side_and_come_back(
    databases: Databases, tmp_path: Path
) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        found = [await one.get("/.well-known/avr") for one in (a, b)]
        assert [one["address"] for one in found] == [a.address, b.address]
        assert found[0]["public_key"] != found[1]["public_key"]
        admin = await b.admin()
        assert await b.get("/api/audit", admin)
        await b.stop()
        await b.start()
        assert (await b.get("/api/users/@me", admin))["id"] == admin.id


async def test_a_free_port_is_given_once_and_a_server_can_listen_there() -> None:
    host = "127.0.0.12"
    ports = [free_port(host) for _ in range(200)]
    assert len(set(ports)) == len(ports)
    with pytest.raises(OSError), socket.socket() as other:
        other.bind((host, ports[0]))
    for _ in range(2):  # a server that starts again, too
        for listener in await trio.open_tcp_listeners(ports[0], host=host):
            await listener.aclose()
    with pytest.raises(OSError):
        await trio.open_tcp_stream(host, ports[0])
