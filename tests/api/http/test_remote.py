"""Requests about objects of other servers: passed on, redirected, or refused."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

import pytest

from api.app import ReiletaApp, create_app
from api.http.endpoint import Operation
from api.rate_limits import REMOTE
from reileta.errors import NoResponse, NotLoggedIn, ServerNotFound
from reileta.protocol.views.instance import PlayerInsideView, QueueView
from reileta.protocol.views.registry import (
    AssetView,
    InstanceView,
    ListView,
    ServiceView,
    UserView,
    WorldView,
)
from reileta.protocol.views.server import ServerView
from reileta.rules.federation.remote_objects import Source
from reileta.security.passwords import Passwords
from reileta.settings import Settings
from tests.api.clients import Client, Json, registered
from tests.api.fakes import ADDRESS, FakeNode
from tests.api.remote_peers import connected
from tests.reileta.federation.fake_peers import FakePeers, found, refused
from tests.reileta.rules.federation.remote_examples import (
    ASSET,
    INSTANCE,
    PEER,
    PLAYER,
    QUEUE,
    SERVER,
    SERVICE,
    USER,
    UUID,
    WORLD,
    page,
)

EXAMPLES: dict[Any, Json] = {
    UserView: USER, WorldView: WORLD, AssetView: ASSET, ServiceView: SERVICE, QueueView: QUEUE,
    InstanceView: INSTANCE, ServerView: SERVER, PlayerInsideView: PLAYER,
}  # fmt: skip
REFS = {
    "users": "ada", "worlds": f"w_{UUID}", "instances": "picnic", "services": "com.example.voice",
}  # fmt: skip


@pytest.fixture(autouse=True)
def peers(node: FakeNode) -> FakePeers:
    """Other servers, which answer every read with the right example."""
    return connected(node)


def example(operation: Operation) -> Json:
    """A right answer to a read."""
    if get_origin(operation.remote) is ListView:
        return page(EXAMPLES[get_args(operation.remote)[0]])
    return EXAMPLES[operation.remote]


def path_of(operation: Operation, at: str = "") -> str:
    """Its path, whose reference is followed by `at`."""
    parts = operation.path.split("/")
    refs = {"ref": REFS.get(parts[2], "") + at, "asset": f"f_{UUID}"}
    return re.sub(r"<(\w+)>", lambda part: refs.get(part[1], "x"), operation.path)


def reads(app: ReiletaApp) -> list[Operation]:
    return [operation for operation in app.operations if operation.remote is not None]


def others(app: ReiletaApp) -> list[Operation]:
    """The operations about objects of servers that are not passed on."""
    return [one for one in app.operations if one.of_server and one.remote is None]


async def test_every_read_of_what_is_public_is_passed_on(
    app: ReiletaApp, ada: Client, peers: FakePeers
) -> None:
    assert {operation.name for operation in reads(app)} == {
        "get_server", "get_users", "get_user", "get_worlds", "get_world", "get_assets",
        "get_asset", "get_services", "get_service", "get_instances", "get_instance", "get_queue",
        "get_players",
    }  # fmt: skip
    for operation in reads(app):
        path, right = path_of(operation), example(operation)
        peers.answers[path] = found(right)
        first = await ada.get(f"{path}?server={PEER}")
        assert first.data == right, operation.name
        assert first.body["request"] == f"{path}?server={PEER}"
        ways = [f"{path}?server={PEER.upper()}:443"]
        ways += [f"{path_of(operation, f'@{PEER}')}"] if "<ref>" in operation.path else []
        if operation.name in ("get_users", "get_worlds", "get_services", "get_instances"):
            ways += [f"{path}@{PEER}", f"{path}@{PEER}?server={PEER}"]
        if operation.name in ("get_server", "get_assets"):
            ways += [f"{path}@{PEER}"]
        asked = len(peers.asked)
        for way in ways:
            assert (await ada.get(way)).data == right, way
        assert len(peers.asked) == asked, "all of these are one request"
        assert (peers.asked[-1].server, peers.asked[-1].path) == (PEER, path)
        if operation.cached is not None:
            tag = first.headers["ETag"]
            assert first.headers["Cache-Control"] == "private, no-cache"
            again = await ada.ask("GET", ways[0], headers={"If-None-Match": tag})
            assert (again.status, again.raw) == (304, b"")


async def test_what_is_not_passed_on_names_the_other_server(
    app: ReiletaApp, admin: Client, peers: FakePeers
) -> None:
    assert len(others(app)) > 30
    gate = Source(PEER, http="https://gate.example:8443/vr")
    for source, redirect in (
        (Source(PEER), {"secure": True, "address": PEER}),
        (gate, {"secure": True, "address": "gate.example:8443"}),
        (Source(PEER, secure=False), {"secure": False, "address": PEER}),
    ):
        peers.sources[PEER] = source
        for operation in others(app):
            answer = await admin.ask(
                operation.method, f"{path_of(operation)}?server={PEER}", {"title": "t"}
            )
            assert (answer.status, answer.code) == (307, 10), operation.name
            assert answer.body["redirect"] == redirect
            assert "Location" not in answer.headers
    for path in (f"/api/users/@me@{PEER}", f"/api/users/@me?server={PEER}"):
        assert (await admin.get(path)).code == 10
    assert peers.asked == []


async def test_nobody_in_particular_asks_other_servers(
    app: ReiletaApp, anyone: Client, peers: FakePeers
) -> None:
    for operation in (*reads(app), *others(app)):
        answer = await anyone.ask(operation.method, f"{path_of(operation)}?server={PEER}", {})
        assert (answer.status, answer.code) == (401, NotLoggedIn.code), operation.name
    assert peers.asked == []


@pytest.mark.parametrize("via", ["avr/a.example", "1.1 proxy, AVR/a.example", "1.0 x,avr/b"])
async def test_a_request_that_was_passed_on_is_not_passed_on_again(
    app: ReiletaApp, ada: Client, peers: FakePeers, via: str
) -> None:
    for operation in (*reads(app), *others(app)):
        if operation.only is not None:
            continue
        path = f"{path_of(operation)}?server={PEER}"
        answer = await ada.ask(operation.method, path, {}, headers={"Via": via})
        assert (answer.status, answer.code) == (404, ServerNotFound.code), operation.name
    assert (await ada.get(f"/api/users?server={ADDRESS}", headers={"Via": via})).status == 200
    assert peers.asked == []


async def test_a_proxy_in_between_does_no_harm(ada: Client, peers: FakePeers) -> None:
    peers.answers["/api/users/ada"] = found(USER)
    answer = await ada.get(f"/api/users/ada@{PEER}", headers={"Via": "1.1 proxy.example"})
    assert answer.data == USER


@pytest.mark.parametrize(
    "path",
    [
        "/api/users/ada@", "/api/users/ada@127.1", "/api/users?server=", "/api/users?server=%00",
        "/api/users?server=a%20b", f"/api/users/ada@{PEER}?server={ADDRESS}",
        f"/api/users/ada@{ADDRESS}?server={PEER}", f"/api/users@{PEER}?server=other.example",
        f"/api/users/ada@{PEER}?server=other.example", "/api/users?server=https://peer.example",
        "/api/users?server=peer.example/api", "/api/users?server=a@peer.example",
    ],
)  # fmt: skip
async def test_what_names_no_server_or_two_is_not_found(
    ada: Client, peers: FakePeers, path: str
) -> None:
    answer = await ada.get(path)
    assert (answer.status, answer.code) == (404, 5)
    assert peers.asked == []


@pytest.mark.parametrize("own", [ADDRESS, ADDRESS.upper(), "play.example.org.:3032"])
async def test_this_server_in_any_spelling_is_this_server(
    ada: Client, peers: FakePeers, own: str
) -> None:
    me = (await ada.get("/api/users/@me")).data
    for path in (f"/api/users/@me@{own}", f"/api/users/ada?server={own}", f"/api/users/ada@{own}"):
        assert (await ada.get(path)).data == me
    assert (await ada.get(f"/api/users@{own}")).data == (await ada.get("/api/users")).data
    assert peers.asked == []


async def test_the_name_of_the_query_may_be_encoded(ada: Client, peers: FakePeers) -> None:
    peers.answers["/api/users/ada"] = found(USER)
    assert (await ada.get(f"/api/users/ada?s%65rver={PEER}")).data == USER


async def test_the_query_goes_along_without_credentials(ada: Client, peers: FakePeers) -> None:
    path = "/api/instances"
    peers.answers[path] = found(page(INSTANCE))
    query = (
        f"server={PEER}&authuser={ada.token}&integrityuser=ia_x&unknown=1&query=tea%26b&free=1"
        f"&world=w_{UUID}@{PEER}&owner=@me&tag=avr:public&limit=7&offset=3&after=5~x"
    )
    ada.token = None
    answer = await ada.get(f"{path}?{query}")
    assert answer.data["items"] == [INSTANCE]
    assert (answer.data["limit"], answer.data["offset"]) == (7, 3)
    assert dict(peers.asked[-1].query) == {
        "query": "tea&b", "free": "true", "world": f"w_{UUID}@{PEER}", "tag": "avr:public",
        "owner": f"{ada.me['id']}@{ADDRESS}", "limit": "7", "offset": "3", "after": "5~x",
    }  # fmt: skip
    assert answer.headers["Deprecation"]


async def test_a_wrong_query_is_refused_here(ada: Client, peers: FakePeers) -> None:
    query = "limit=0&free=maybe&offset=x"
    answer = await ada.get(f"/api/instances?server={PEER}&{query}")
    assert (answer.status, answer.code, answer.fields) == (400, 33, {"limit", "free", "offset"})
    for after in ("", "a%20b", "%00", "x" * 1025):
        answer = await ada.get(f"/api/users?server={PEER}&after={after}")
        assert (answer.status, answer.code, answer.fields) == (400, 14, {"after"})
    assert peers.asked == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/users/u-1", 17), ("/api/users/%00", 17), ("/api/users/é", 17),
        ("/api/users/" + "a" * 4000, 17), (f"/api/users/w_{UUID}", 17), ("/api/users/@other", 17),
        ("/api/worlds/harbour", 25), ("/api/worlds/@me", 25), (f"/api/worlds/w_{UUID}:1.2", 25),
        ("/api/instances/UPPER", 36), ("/api/services/voice", 106),
        (f"/api/worlds/w_{UUID}/assets/x", 27), ("/api/instances/x/queue", 36),
    ],
)  # fmt: skip
async def test_what_can_not_exist_anywhere_is_not_asked_for(
    ada: Client, peers: FakePeers, path: str, code: int
) -> None:
    answer = await ada.get(f"{path}?server={PEER}")
    assert (answer.status, answer.code) == (404, code)
    assert peers.asked == []


async def test_the_accounts_of_the_other_server_have_names(ada: Client, peers: FakePeers) -> None:
    for ref in ("@server", "@admin"):
        peers.answers[f"/api/users/{ref}"] = found(USER)
        assert (await ada.get(f"/api/users/{ref}@{PEER}")).data == USER


async def test_errors_of_the_other_server(node: FakeNode, ada: Client, peers: FakePeers) -> None:
    path, asked = f"/api/worlds/w_{UUID}", f"/api/worlds/w_{UUID}@{PEER}"
    for answer, status, code in (
        (refused(404, 25), 404, 25),
        (refused(404, 5), 502, 7),
        (refused(401, 101), 502, 7),
        (refused(403, 4), 502, 7),
        (refused(503, 122), 502, 6),
        (found({**WORLD, "id": f"w_{UUID[:-1]}1"}), 502, 11),
        (found({**WORLD, "owner": "u_x"}), 502, 11),
    ):
        peers.answers[path] = answer
        refusal = await ada.get(asked)
        assert (refusal.status, refusal.code) == (status, code)
        assert "WWW-Authenticate" not in refusal.headers
        assert (await ada.get("/api/users/@me")).status == 200
        node.clock.advance(10_000)
    peers.answers[path] = found({**WORLD, "owner": "u_x"})
    assert (await ada.get(asked)).fields == {"owner"}
    peers.answers[path] = NoResponse(retry_after_s=17.2)
    refusal = await ada.get(asked)
    assert (refusal.status, refusal.code) == (502, 6)
    assert refusal.headers["Retry-After"] == "18"


async def test_a_blocked_server_is_neither_asked_nor_named(
    node: FakeNode, ada: Client, peers: FakePeers
) -> None:
    await node.servers.block(PEER, by="test")
    peers.blocked.add(PEER)
    for method, path in (("GET", "/api/users"), ("PUT", "/api/worlds"), ("GET", "/api/users/@me")):
        answer = await ada.ask(method, f"{path}?server={PEER}", {})
        assert (answer.status, answer.code) == (403, 135)
    assert peers.asked == []


async def test_one_user_reads_thirty_a_minute(node: FakeNode, passwords: Passwords) -> None:
    node.settings = Settings()
    app = create_app(node.as_node(), passwords=passwords)
    peers = connected(node)
    peers.answers["/api/users"] = found(page(USER))
    ada, bob = await registered(app, "ada"), await registered(app, "bob")
    for _ in range(REMOTE.burst):
        assert (await ada.get(f"/api/users?server={PEER}")).status == 200
    limited = await ada.get(f"/api/users?server={PEER}")
    assert (limited.status, limited.code) == (429, 102)
    assert limited.headers["Retry-After"]
    assert (await ada.get("/api/users")).status == 200
    assert (await bob.get(f"/api/users?server={PEER}")).status == 200
    node.clock.advance(2_001)
    assert (await ada.get(f"/api/users?server={PEER}")).status == 200
    assert len(peers.asked) == 1


async def test_objects_of_this_server_must_exist(ada: Client, peers: FakePeers) -> None:
    world = (await ada.put("/api/worlds", {"title": "t"})).data["id"]
    for reference, status in (
        ({"owner": f"{ada.me['id']}@{ADDRESS}"}, 200),
        ({"owner": f"u_{UUID}@{ADDRESS}"}, 502),
        ({"master": f"u_{UUID}@{ADDRESS.upper()}"}, 502),
        ({"world": f"{world}:1@{ADDRESS}"}, 200),
        ({"world": f"w_{UUID}@{ADDRESS}"}, 502),
    ):
        name = f"place-{len(peers.asked)}"
        peers.answers[f"/api/instances/{name}"] = found({**INSTANCE, "name": name, **reference})
        assert (await ada.get(f"/api/instances/{name}@{PEER}")).status == status, reference


# Homes and instances of worlds of other servers --------------------------------------------------

HOME = "/api/users/@me/home"
WORLD_AT = f"w_{UUID}@{PEER}"


async def test_a_home_can_be_of_another_server(ada: Client, peers: FakePeers) -> None:
    peers.answers[f"/api/worlds/w_{UUID}"] = found(WORLD)
    for body, world in (
        ({"world": WORLD_AT}, WORLD_AT),
        ({"world": f"w_{UUID}@{PEER.upper()}:443"}, WORLD_AT),
        ({"id": f"w_{UUID}", "server": PEER, "version": "1.2"}, f"w_{UUID}:1.2@{PEER}"),
        ({"id": f"w_{UUID}@{PEER}", "version": "1.2"}, f"w_{UUID}:1.2@{PEER}"),
        ({"id": f"w_{UUID}", "server": f"{PEER.upper()}."}, WORLD_AT),
    ):
        assert (await ada.delete(HOME)).status in (200, 404)
        shown = {**WORLD, "world": world}
        assert (await ada.post(HOME, body)).data == shown, body
        first = await ada.get(HOME)
        assert first.data == shown
        again = await ada.ask("GET", HOME, headers={"If-None-Match": first.headers["ETag"]})
        assert again.status == 304
        assert (await ada.get("/api/users/@me")).data["home"] == world


async def test_a_home_of_another_server_must_exist(
    node: FakeNode, ada: Client, peers: FakePeers
) -> None:
    path = f"/api/worlds/w_{UUID}"
    for answer, code in ((refused(404, 25), 25), (NoResponse(), 6), (found({}), 11)):
        node.clock.advance(60_000)
        peers.answers[path] = answer
        assert (await ada.post(HOME, {"world": WORLD_AT})).code == code
    peers.answers[path] = found(WORLD)
    assert (await ada.post(HOME, {"world": f"w_{UUID}:9@{PEER}"})).code == 27
    assert (await ada.get(HOME)).code == 43


async def test_a_home_whose_server_is_away_is_a_reference(
    node: FakeNode, ada: Client, peers: FakePeers
) -> None:
    peers.answers[f"/api/worlds/w_{UUID}"] = found(WORLD)
    assert (await ada.post(HOME, {"world": WORLD_AT})).status == 200
    node.clock.advance(60_000)
    rest = {"id": f"w_{UUID}", "server": PEER, "world": WORLD_AT}
    for answer in (NoResponse(), refused(404, 25), refused(403, 4), found({})):
        peers.answers[f"/api/worlds/w_{UUID}"] = answer
        assert (await ada.get(HOME)).data == rest
        node.clock.advance(60_000)
    peers.blocked.add(PEER)
    assert (await ada.get(HOME)).data == rest


async def test_an_instance_can_be_of_a_world_of_another_server(
    ada: Client, peers: FakePeers
) -> None:
    peers.answers[f"/api/worlds/w_{UUID}"] = found(WORLD)
    for wanted, world in (
        (WORLD_AT, WORLD_AT),
        (f"w_{UUID}:1.2@{PEER.upper()}:443", f"w_{UUID}:1.2@{PEER}"),
    ):
        made: Json = (await ada.put("/api/instances", {"world": wanted})).data
        assert (made["world"], made["capacity"]) == (world, WORLD["capacity"])
        listed = (await ada.get(f"/api/instances?world={wanted}")).data["items"]
        assert made["id"] in {one["id"] for one in listed}


async def test_an_instance_of_an_unknown_world_elsewhere(
    node: FakeNode, ada: Client, peers: FakePeers
) -> None:
    for answer, code in ((refused(404, 25), 25), (NoResponse(), 6)):
        peers.answers[f"/api/worlds/w_{UUID}"] = answer
        assert (await ada.put("/api/instances", {"world": WORLD_AT})).code == code
        node.clock.advance(60_000)
    passed_on = {"Via": "avr/x"}
    refusal = await ada.put("/api/instances", {"world": WORLD_AT}, headers=passed_on)
    assert refusal.code == 5


async def test_a_follow_of_a_user_elsewhere_has_the_canonical_address(ada: Client) -> None:
    path = f"/api/users/@me/follows/u_{UUID}@{PEER.upper()}.:443"
    assert (await ada.ask("PUT", path)).data["user"] == f"u_{UUID}@{PEER}"
    assert (await ada.ask("PUT", f"/api/users/@me/follows/u_{UUID}@{PEER}")).code == 37
