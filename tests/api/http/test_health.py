"""`/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from api.app import ReiletaApp
from tests.api.clients import Client
from tests.api.fakes import FakeNode


async def test_alive(anyone: Client) -> None:
    assert (await anyone.get("/healthz")).data == {"status": "alive"}


async def test_ready_until_it_drains(node: FakeNode, anyone: Client) -> None:
    assert (await anyone.get("/readyz")).data == {"status": "ready"}
    node.draining = True
    answer = await anyone.get("/readyz")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, 122, "5")
    assert (await anyone.get("/healthz")).status == 200


async def test_not_ready_without_the_database(node: FakeNode, anyone: Client) -> None:
    await node.store.database.close()
    answer = await anyone.get("/readyz")
    assert (answer.status, answer.code) == (503, 122)
    assert "Retry-After" in answer.headers
    assert (await anyone.get("/healthz")).status == 200


async def test_rules_about_clients_don_t_concern_those_who_look(
    node: FakeNode, anyone: Client
) -> None:
    await node.clients.put("network", "0.0.0.0/0", by="root")
    await node.clients.put("network", "::/0", by="root")
    assert (await anyone.get("/api/worlds")).code == 137
    for path in ("/healthz", "/readyz"):
        assert (await anyone.get(path)).status == 200


async def test_metrics(node: FakeNode, anyone: Client, app: ReiletaApp) -> None:
    node.metrics.deliveries_out = 7
    await anyone.get("/api/users/nobody")
    await anyone.get("/no/such/path")
    answer = await anyone.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = answer.raw.decode().splitlines()
    assert "reileta_deliveries_out_total 7.0" in lines
    requests = "reileta_http_requests_total"
    assert f'{requests}{{method="GET",route="/api/users/<ref>",status="404"}} 1.0' in lines
    assert f'{requests}{{method="unmatched",route="unmatched",status="404"}} 1.0' in lines
    assert any(line.startswith("reileta_database_statements_total ") for line in lines)


async def test_a_background_task_that_fails_is_named(
    node: FakeNode, anyone: Client, app: ReiletaApp
) -> None:

    async def loop() -> None:
        raise OSError

    node.metrics.background = lambda: node.background.tasks
    async with trio.open_nursery() as nursery:
        node.background.run(nursery, "leases", loop)
        await wait_all_tasks_blocked()
        answer = await anyone.get("/readyz")
        assert (answer.status, answer.code) == (503, 122)
        assert "leases" in answer.raw.decode()
        lines = (await anyone.get("/metrics")).raw.decode().splitlines()
        assert 'reileta_background_failing{task="leases"} 1.0' in lines
        assert 'reileta_background_crashes_total{task="leases"} 1.0' in lines
        assert (await anyone.get("/healthz")).status == 200
        nursery.cancel_scope.cancel()
