"""`examples/visit.py`, run as a newcomer runs it, between two servers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.conftest import PATIENCE_S, Databases
from tests.e2e.federation.scripted_peer import ScriptedPeer, scripted_peer
from tests.e2e.federation.servers import FederatedServer, Json, two_servers
from tests.e2e.processes import eventually
from tests.reileta.rules.federation.remote_examples import INSTANCE, page

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[3] / "examples" / "visit.py"
Pair = tuple[FederatedServer, FederatedServer]


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """A third server, which answers what a test says."""
    async with scripted_peer() as peer:
        yield peer


@pytest.fixture
async def pair(databases: Databases, tmp_path: Path, peer: ScriptedPeer) -> AsyncIterator[Pair]:
    async with two_servers(databases, tmp_path, peers=[peer.address]) as (a, b):
        yield a, b


async def a_picnic(server: FederatedServer) -> Json:
    """A public instance."""
    owner = await server.account("bob")
    async with server.ask(owner) as client:
        world = (await client.put("/api/worlds", json={})).json()["data"]["id"]
        wanted = {"world": world, "name": "picnic", "tags": ["avr:public"]}
        made: Json = (await client.put("/api/instances", json=wanted)).json()["data"]
        return made


async def visit(a: FederatedServer, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs the example to its end, without input."""
    with trio.fail_after(PATIENCE_S):
        return await trio.run_process(
            [sys.executable, str(SCRIPT), "ann_example", "--server", a.url, *arguments],
            stdin=b"",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


async def complaint(a: FederatedServer, *arguments: str) -> str:
    """The one line on standard error of a visit that fails."""
    done = await visit(a, *arguments)
    assert done.returncode == 1, done
    (line,) = done.stderr.decode().splitlines()
    return line


async def test_a_user_of_one_server_stands_in_an_instance_of_the_other(pair: Pair) -> None:
    a, b = pair
    place = await a_picnic(b)
    seen: list[str] = []

    async def stays(*, task_status: trio.TaskStatus[trio.Process]) -> None:
        command = [sys.executable, str(SCRIPT), "ann_example", b.address, "--server", a.url]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        task_status.started(process)
        assert process.stdout is not None
        seen.append(b"".join([part async for part in process.stdout]).decode())

    async with trio.open_nursery() as nursery:
        process = await nursery.start(stays)
        path = f"/api/instances/{place['id']}/players"

        async def inside() -> list[Json]:
            found: list[Json] = (await b.get(path))["items"]
            return found

        (player,) = await eventually(inside)
        ann = await a.get("/api/users/ann_example")
        assert player["user"] == f"{ann['id']}@{a.address}"
        assert (player["displayname"], player["role"]) == ("ann_example", "normal")
        await process.stdin.aclose()
        with trio.fail_after(PATIENCE_S):
            assert await process.wait() == 0
    assert seen[0].splitlines() == [
        f"picnic on {b.address} has 0 players",
        f"a guest there as {player['user']}",
        f"inside {place['id']} as {player['player']}: ann_example",
    ]
    done = await visit(a, b.address, "--instance", "picnic")
    assert done.returncode == 0, done.stderr


async def test_each_failure_is_one_line(pair: Pair, peer: ScriptedPeer) -> None:
    a, b = pair
    assert await complaint(a, "not an address") == "refused: Server not found"
    assert await complaint(a, b.address) == f"refused: {b.address} has no instance with a free seat"
    missing = await complaint(a, b.address, "--instance", "nowhere")
    assert missing == "refused: Instance not found"
    # It lists instances, and does nothing else of what a server must do.
    peer.answer("/api/instances", page(INSTANCE))
    assert (await complaint(a, peer.address)).startswith("refused: ")
    await b.stop()
    away = await complaint(a, b.address, "--instance", "picnic")
    assert away == "refused: No response from server"
    admin = await a.admin()
    async with a.ask(admin) as client:
        rule = {"pattern": b.address, "kind": "block"}
        assert (await client.put("/api/servers/rules", json=rule)).status_code == 200
    assert await complaint(a, b.address) == "refused: Server blocked"
    nowhere = "http://127.0.0.1:1"
    done = await visit(a, b.address, "--server", nowhere)
    assert done.stderr.decode().startswith(f"no answer from {nowhere} (")


async def test_a_server_without_guests_is_one_line(databases: Databases, tmp_path: Path) -> None:
    async with two_servers(databases, tmp_path, each=[(), ("--guests", "off")]) as (a, b):
        await a_picnic(b)
        assert "refused: " in await complaint(a, b.address)
