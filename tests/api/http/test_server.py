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
    node.secure, node.ready_at = True, None
    server = (await Client(app).get("/api/server")).data
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
        "version": __version__,
    }


async def test_another_server_is_not_found(app: ReiletaApp) -> None:
    client = Client(app)
    assert (await client.get(f"/api/server?server={ADDRESS}")).status == 200
    for other in ("other.example.org", "", "%00", "play.example.org"):
        answer = await client.get(f"/api/server?server={other}")
        assert (answer.status, answer.code) == (404, 5)
