"""The server's key: `reileta key rotate`, SIGHUP, a restart, and what other servers see."""

from __future__ import annotations

import signal
from pathlib import Path

from reileta.observability import log_events
from reileta.rules.federation.signatures import CHAIN_LENGTH, Link, follows_chain
from tests.conftest import Databases
from tests.e2e.federation.servers import FederatedServer, federated_servers


def leads(found: dict[str, object], pin: str) -> bool:
    """Whether the keys that a server shows lead from that key to its present one."""
    keys = found["keys"]
    assert isinstance(keys, list)
    links = [Link(one["public_key"], one["since"], one["by"]) for one in keys]
    assert links[0].public_key == found["public_key"]
    return follows_chain(pin, links, str(found["address"]))


async def hang_up(server: FederatedServer, public_key: str) -> None:
    """Sends SIGHUP, and waits until the server has that key."""
    server.running.process.send_signal(signal.SIGHUP)
    logged = await server.running.until_logged(log_events.SERVER_KEY_CHANGED)
    assert logged["public_key"] == public_key


async def test_the_server_takes_a_new_key_when_it_runs_and_when_it_starts(
    databases: Databases, tmp_path: Path
) -> None:
    cached = ("--read-cache", "on")
    async with federated_servers(databases, tmp_path, 1, options=cached) as (server,):
        first = await server.get("/.well-known/avr")
        assert first["keys"] == []
        assert first["gateways"] == {
            "http": server.url,
            "ws": f"ws://{server.address}/api/ws",
        }
        async with server.ask() as client:
            tags = [
                (await client.get(path)).headers["ETag"]
                for path in ("/api/server", "/.well-known/avr")
            ]

        made = (await server.command("key", "rotate")).strip()
        assert (await server.get("/.well-known/avr")) == first
        assert await server.command("key", "rotate", check=False) == ""  # one waits already
        await hang_up(server, made)
        second = await server.get("/.well-known/avr")
        assert second["public_key"] == made != first["public_key"]
        assert leads(second, first["public_key"])
        async with server.ask() as client:
            for path, tag in zip(("/api/server", "/.well-known/avr"), tags, strict=True):
                answer = await client.get(path, headers={"If-None-Match": tag})
                assert answer.status_code == 200
                assert answer.json()["data"]["public_key"] == made

        third = (await server.command("key", "rotate")).strip()
        await server.stop()
        await server.start()
        found = await server.get("/.well-known/avr")
        assert found["public_key"] == third
        assert [leads(found, key) for key in (first["public_key"], made)] == [True, True]
        assert (await server.get("/api/server"))["public_key"] == third

        await server.stop()
        await server.start()
        assert (await server.get("/.well-known/avr")) == found

        admin = await server.admin()
        entries = (await server.get("/api/audit", admin))["items"]
        noted = [one["details"]["public_key"] for one in entries if one["action"] == "rotate_key"]
        assert noted == [third, made]


async def test_the_chain_is_bounded(databases: Databases, tmp_path: Path) -> None:
    async with federated_servers(databases, tmp_path, 1) as (server,):
        keys = [(await server.get("/.well-known/avr"))["public_key"]]
        for _ in range(CHAIN_LENGTH + 1):
            keys.append((await server.command("key", "rotate")).strip())
            await hang_up(server, keys[-1])
            server.running.log.clear()
        found = await server.get("/.well-known/avr")
        assert len(found["keys"]) == CHAIN_LENGTH
        assert [leads(found, key) for key in keys] == [False, *[True] * (CHAIN_LENGTH + 1)]


async def test_a_new_key_that_can_not_be_read_changes_nothing(
    databases: Databases, tmp_path: Path
) -> None:
    async with federated_servers(databases, tmp_path, 1) as (server,):
        before = await server.get("/.well-known/avr")
        (server.data / "server.key.next").write_text("rubbish")
        server.running.process.send_signal(signal.SIGHUP)
        logged = await server.running.until_logged(log_events.SERVER_KEY_REFUSED)
        assert "server.key.next" in logged["reason"]
        assert await server.get("/.well-known/avr") == before
