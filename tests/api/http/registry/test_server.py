"""`/api/server`, `/api/time`, `/.well-known/avr`."""

from __future__ import annotations

from api.app import ReiletaApp
from reileta import __version__
from tests.api.clients import Client
from tests.api.fakes import ADDRESS, FakeNode


async def test_the_server_says_what_it_is_and_where_it_is_reached(
    app: ReiletaApp, node: FakeNode
) -> None:
    server = (await Client(app).get("/api/server")).data
    identity = await node.store.identity.get()
    assert server == {
        "id": identity.id,
        "title": "Reileta",
        "address": ADDRESS,
        "secure": False,
        "version": __version__,
        "gateways": {"http": f"http://{ADDRESS}", "ws": f"ws://{ADDRESS}/api/ws"},
        "public_key": node.public_key,
        "created_at": identity.created_at,
        "updated_at": identity.updated_at,
        "ready_at": node.ready_at,
    }


async def test_under_tls_the_gateways_say_so(app: ReiletaApp, node: FakeNode) -> None:
    node.ready_at = None
    server = (await Client(app).get("/api/server", scheme="https")).data
    assert server["secure"] is True
    assert server["gateways"] == {"http": f"https://{ADDRESS}", "ws": f"wss://{ADDRESS}/api/ws"}
    assert "ready_at" not in server


async def test_the_time_is_the_bare_milliseconds(app: ReiletaApp, node: FakeNode) -> None:
    node.clock.advance(123)
    answer = await Client(app).get("/api/time")
    assert answer.body == {
        "request": "/api/time",
        "time": 1_790_000_000_123,
        "message": "OK",
        "data": 1_790_000_000_123,
    }


async def test_discovery(app: ReiletaApp, node: FakeNode) -> None:
    assert (await Client(app).get("/.well-known/avr")).data == {
        "address": ADDRESS,
        "secure": False,
        "public_key": node.public_key,
        "keys": [],
        "gateways": {
            "http": f"http://{ADDRESS}",
            "ws": f"ws://{ADDRESS}/api/ws",
        },
        "version": __version__,
    }


async def test_admins_name_the_server(node: FakeNode, admin: Client, anyone: Client) -> None:
    node.clock.advance(5)
    changes = {
        "title": "Harbour",
        "description": "Boats.",
        "icon": "https://example.org/icon.png",
    }
    server = (await admin.post("/api/server", changes)).data
    assert changes.items() <= server.items()
    assert server["updated_at"] == node.clock.now_ms()
    assert (await anyone.get("/api/server")).data == server
    assert node.told == [("server", server["id"])]
    emptied = (await admin.post("/api/server", {"description": None, "icon": None})).data
    assert not {"description", "icon"} & set(emptied)
    assert (await admin.post("/api/server", {"address": "evil.example"})).data == emptied
    assert len(node.told) == 2


async def test_nobody_else_names_it(node: FakeNode, ada: Client, anyone: Client) -> None:
    assert (await ada.post("/api/server", {"title": "Mine"})).code == 4
    assert (await anyone.post("/api/server", {"title": "Mine"})).code == 3
    assert node.told == []


async def test_what_it_can_not_be_called(admin: Client) -> None:
    body = {"title": "", "icon": "http://example.org/icon.png"}
    answer = await admin.post("/api/server", body)
    assert (answer.status, answer.code, answer.fields) == (400, 29, {"title", "icon"})
