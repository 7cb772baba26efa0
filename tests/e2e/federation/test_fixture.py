"""The servers that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Databases
from tests.e2e.federation.servers import two_servers


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
