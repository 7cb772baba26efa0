"""Lists of many cost no more statements than lists of few. What they show is tested by noun."""

from __future__ import annotations

from api.app import ReiletaApp
from tests.api.clients import Client, registered
from tests.api.fakes import FakeNode


async def statements(node: FakeNode, client: Client, path: str) -> int:
    await client.get(path)  # its credential is known then
    before = node.store.database.statements
    assert (await client.get(path)).status == 200
    return node.store.database.statements - before


async def test_lists_of_users(app: ReiletaApp, node: FakeNode, ada: Client, admin: Client) -> None:
    askers = (ada, admin, Client(app))
    few = [await statements(node, client, "/api/users") for client in askers]
    for number in range(5):
        await registered(app, f"user_{number}")
    assert [await statements(node, client, "/api/users") for client in askers] == few
    assert max(few) <= 4


async def test_lists_of_worlds(node: FakeNode, ada: Client) -> None:
    few = await statements(node, ada, "/api/worlds")
    for number in range(5):
        await ada.put("/api/worlds", {"title": f"World {number}"})
    many = await statements(node, ada, "/api/worlds")
    assert many <= 3
    assert few <= many
