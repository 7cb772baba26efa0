"""Requests of other servers: what they may ask, and what is never passed on."""

from __future__ import annotations

from api.app import ReiletaApp
from api.http.endpoint import ApiDeps, RequestContext, Routes
from api.rate_limits import SERVER
from reileta.protocol.views.registry import NothingView
from reileta.security.credentials import digest, new_token
from reileta.settings import Settings
from tests.api.clients import Client
from tests.api.fakes import FakeNode

B = "b.example:3032"


async def server_client(app: ReiletaApp, node: FakeNode, address: str = B) -> Client:
    """A client with a token of another server."""
    token = new_token("sa")
    await node.store.servers.learn(
        address,
        host=address.partition(":")[0],
        secure=True,
        public_key="K" * 43,
        key_since=1,
        gateway_http=None,
        gateway_ws=None,
        version=None,
    )
    await node.store.servers.issue_token(address, digest(token), node.clock.now_ms() + 10**9)
    return Client(app, token)


def register(app: ReiletaApp, node: FakeNode) -> list[RequestContext]:
    """Two operations, one of them for servers; the calls that they got."""
    calls: list[RequestContext] = []
    routes = Routes("tests", ApiDeps(node.as_node(), app.auth, app.limits))

    @routes.add("GET", "/api/anyone", summary="", gives=NothingView)
    async def anyone(call: RequestContext) -> NothingView:
        calls.append(call)
        return NothingView()

    @routes.add("GET", "/api/servers_only", summary="", gives=NothingView, only="server")
    async def servers_only(call: RequestContext) -> NothingView:
        calls.append(call)
        return NothingView()

    app.register_routes(routes)
    return calls


async def test_a_server_is_no_user_and_its_request_is_never_passed_on(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    calls = register(app, node)
    server = await server_client(app, node)
    for path in ("/api/anyone", "/api/servers_only"):
        assert (await server.get(path)).status == 200
        call = calls.pop()
        assert (call.principal, call.user, call.admin) == (None, None, False)
        assert call.by_server.address == B
        assert call.from_elsewhere
    assert (await ada.get("/api/anyone")).status == 200
    assert not calls.pop().from_elsewhere


async def test_the_header_via_marks_a_request_that_was_passed_on(
    app: ReiletaApp, node: FakeNode, ada: Client
) -> None:
    calls = register(app, node)
    for via, passed_on in (
        ("avr/a.example", True),
        ("AVR/a.example", True),
        ("1.1 proxy, avr/a.example", True),
        ("1.1 proxy,avr/a.example , 1.1 x", True),
        ("1.1 avr", False),
        ("1.1 proxy", False),
        ("", False),
    ):
        assert (await ada.get("/api/anyone", headers={"Via": via})).status == 200
        assert calls.pop().from_elsewhere == passed_on, via


async def test_what_is_for_servers_is_for_nobody_else(
    app: ReiletaApp, node: FakeNode, ada: Client, anyone: Client
) -> None:
    register(app, node)
    for client in (ada, anyone):
        answer = await client.get("/api/servers_only")
        assert (answer.status, answer.code) == (401, 136)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    answer = await Client(app, "sa_" + "x" * 43).get("/api/servers_only")
    assert (answer.status, answer.code) == (401, 101)


async def test_a_blocked_server_is_refused_whatever_it_asks(
    app: ReiletaApp, node: FakeNode
) -> None:
    calls = register(app, node)
    server = await server_client(app, node)
    # The rule alone, as before its tokens are revoked.
    await node.store.servers.put_rule("example", "block", by="u_1", reason=None, until=None)
    await node.servers.load()
    for path in ("/api/anyone", "/api/servers_only"):
        answer = await server.get(path)
        assert (answer.status, answer.code) == (403, 135)
    assert calls == []


async def test_a_server_has_a_rate_of_its_own_over_all_its_machines(
    app: ReiletaApp, node: FakeNode
) -> None:
    node.settings = Settings()
    limited = ReiletaApp(node.as_node(), 1)
    register(limited, node)
    server = await server_client(limited, node)
    found = [
        (await server.get("/api/anyone", client=(f"192.0.2.{number}", 1))).status
        for number in range(SERVER.burst + 1)
    ]
    assert found == [200] * SERVER.burst + [429]
    other = await server_client(limited, node, "c.example")
    assert (await other.get("/api/anyone")).status == 200


async def test_the_list_shows_what_was_sent_and_what_was_refused(
    app: ReiletaApp, node: FakeNode, admin: Client, anyone: Client
) -> None:
    for number in range(3):
        await node.store.challenges.begin(f"{number}" * 43, "b.example", "n" * 43)
        node.clock.advance(10)
        body = {"server": f"evil{number}.example", "id": "i" * 43, "nonce": "n" * 43}
        assert (await anyone.put("/api/challenges", body)).code == 110
        node.clock.advance(10)
    listed = (await admin.get("/api/challenges")).data
    assert listed["total"] == 6
    assert [one["direction"] for one in listed["items"]] == ["refused", "sent"] * 3
    seen = []
    after = None
    while True:
        page = (await admin.get(f"/api/challenges?limit=2{after or ''}")).data
        seen += page["items"]
        if "next" not in page:
            break
        after = f"&after={page['next']}"
    assert seen == listed["items"]
    assert all(len(one["id"]) < 10 for one in seen if "id" in one)
