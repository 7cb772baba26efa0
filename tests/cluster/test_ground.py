"""The ground stands: nodes start, can be broken, and come back where they were."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio

from tests.cluster.checker import check
from tests.cluster.ground import Node, eventually, ground
from tests.conftest import PATIENCE_S


async def ready(node: Node) -> bool:
    async with node.ask() as client:
        try:
            return (await client.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False


async def until_ready(node: Node) -> None:
    with trio.fail_after(PATIENCE_S):
        while not await ready(node):
            await trio.sleep(0.05)


@pytest.mark.slow
async def test_nodes_die_pause_and_are_cut_off_one_by_one(data_folder: Path) -> None:
    async with ground(data_folder, nodes=2, clients=2) as standing:
        a, b = standing.nodes
        for node in (a, b):
            await until_ready(node)
        instance = await standing.instance()
        visitor = standing.visitor(instance, 0, every_s=0.05)
        await standing.until_inside()
        host = await standing.until_hosted(instance)
        assert standing.places[instance][1] == 1
        await host.pause()
        host.resume()
        for gate in host.nats:
            gate.cut()
            gate.heal()
        other = b if host is a else a
        port = other.port
        await other.kill()
        assert not other.runs
        await other.start()
        assert other.port == port
        await until_ready(other)
        await eventually(lambda: visitor.inside)
        assert not standing.falls
        assert check(standing.crowd.records, falls=standing.falls) == []
