"""Objects of other servers, between real servers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Databases
from tests.e2e.federation.scripted_peer import ScriptedPeer, scripted_peer
from tests.e2e.federation.servers import Account, FederatedServer, Json, two_servers
from tests.reileta.rules.federation.remote_examples import (
    INSTANCE,
    USER,
    UUID,
    WORLD,
    changed,
    page,
)

pytestmark = pytest.mark.slow
Pair = tuple[FederatedServer, FederatedServer]


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """A server that answers what a test says."""
    async with scripted_peer() as peer:
        yield peer


@pytest.fixture
async def pair(databases: Databases, tmp_path: Path, peer: ScriptedPeer) -> AsyncIterator[Pair]:
    async with two_servers(databases, tmp_path, peers=[peer.address]) as (a, b):
        yield a, b


async def refused(server: FederatedServer, path: str, account: Account | str | None) -> Json:
    """The error of a read."""
    async with server.ask(account) as client:
        answer = (await client.get(path)).json()
    assert "error" in answer, answer
    error: Json = answer["error"]
    return error


async def code(server: FederatedServer, path: str, account: Account | str | None) -> int:
    return int((await refused(server, path, account))["code"])


async def a_world(server: FederatedServer, owner: Account, **fields: object) -> Json:
    async with server.ask(owner) as client:
        made = await client.put("/api/worlds", json={"title": "Harbour", **fields})
        world: Json = made.json()["data"]
        path = f"/api/worlds/{world['id']}"
        await client.put(f"{path}/assets", json={"version": "1.2", "url": f"https://x.example/{1}"})
        return dict((await client.get(path)).json()["data"])


async def test_each_call_of_the_documented_client_that_names_a_server(pair: Pair) -> None:
    a, b = pair
    ada, bob = await a.account("ada"), await b.account("bob")
    world = await a_world(b, bob)
    at, asset = f"{world['id']}@{b.address}", world["assets"][0]
    shown = {**world, "assets": [{key: one for key, one in asset.items() if key != "url"}]}

    assert (await a.get(f"/api/users/bob@{b.address}", ada))["id"] == bob.id
    assert await a.get(f"/api/worlds/{at}?empty", ada) == shown
    assert (await a.get(f"/api/worlds/{world['id']}?server={b.address}", ada)) == shown
    listed = await a.get(f"/api/worlds/{world['id']}/assets@{b.address}", ada)
    assert [one["id"] for one in listed["items"]] == [asset["id"]]
    one = await a.get(f"/api/worlds/{at}/assets/{asset['id']}", ada)
    assert one == shown["assets"][0]
    server = await a.get(f"/api/server@{b.address}", ada)
    assert (server["address"], server["secure"]) == (b.address, False)
    assert server["gateways"]["http"] == b.url
    for noun in ("users", "worlds", "services", "instances"):
        whole = await a.get(f"/api/{noun}@{b.address}", ada)
        assert whole["total"] == (await b.get(f"/api/{noun}"))["total"]

    home = "/api/users/@me/home"
    async with a.ask(ada) as client:
        for body, kept in (
            ({"id": world["id"], "server": b.address}, at),
            ({"id": world["id"], "server": b.address, "version": ""}, at),
            (
                {"id": world["id"], "server": b.address, "version": "1.2"},
                f"{world['id']}:1.2@{b.address}",
            ),
            ({"world": at}, at),
        ):
            set_ = await client.post(home, json=body)
            assert set_.json()["data"] == {**shown, "world": kept}
            assert (await client.get(home)).json()["data"] == {**shown, "world": kept}
        missing = await client.post(home, json={"id": f"w_{UUID}", "server": b.address})
        assert missing.json()["error"]["code"] == 25
        made = (await client.put("/api/instances", json={"world": at})).json()["data"]
        assert (made["world"], made["server"]) == (at, a.address)
        host = {"secure": False, "address": b.address}
        for path, new in (
            ("worlds", {"title": "t"}),
            ("instances", {"world": world["id"], "tags": ["avr:public"]}),
        ):
            made = (await client.put(f"/api/{path}@{b.address}", json=new)).json()
            assert (made["error"]["code"], made["redirect"]) == (10, host)
        visit = (await client.post("/api/integrity", json={"server": b.address})).json()["data"]
        assert (visit["user"], visit["server"]) == (ada.at, b.address)
        assert visit["token"].startswith("ia_")
        for path in (f"/api/users/{bob.at}/thumbnail", f"/api/worlds/{at}/thumbnail"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["redirect"]) == (307, host)
        answer = await client.get(f"/api/time?server={b.address}")
        assert (answer.json()["error"]["code"], answer.json()["redirect"]) == (10, host)


async def test_instances_of_another_server_are_found_and_followed(pair: Pair) -> None:
    a, b = pair
    ada, bob = await a.account("ada"), await b.account("bob")
    world = await a_world(b, bob)
    async with b.ask(bob) as client:
        wanted = {"world": world["id"], "name": "picnic", "tags": ["avr:public"]}
        made = (await client.put("/api/instances", json=wanted)).json()["data"]
        hidden = {**wanted, "name": "hidden", "tags": ["avr:private"]}
        await client.put("/api/instances", json=hidden)
    found = await a.get(f"/api/instances?server={b.address}", ada)
    assert (found["total"], found["items"]) == (1, [made])
    assert await a.get(f"/api/instances/picnic@{b.address}", ada) == made
    queue = await a.get(f"/api/instances/{made['id']}@{b.address}/queue", ada)
    assert queue == {"queued": 0}
    players = await a.get(f"/api/instances/{made['id']}@{b.address}/players", ada)
    assert players["items"] == []
    assert await code(a, f"/api/instances/hidden@{b.address}", ada) == 36


async def test_private_objects_reach_nobody_and_no_cache(pair: Pair) -> None:
    a, b = pair
    ada, bob = await a.account("ada"), await b.account("bob")
    private = await a_world(b, bob, tags=["avr:private"])
    public = await a_world(b, bob)
    path = f"/api/worlds/{private['id']}@{b.address}"
    assert (await b.get(f"/api/worlds/{private['id']}", bob))["id"] == private["id"]
    for account, expected in ((ada, 25), (None, 3), (bob, 101)):
        assert await code(a, path, account) == expected
    assert (await a.get(f"/api/worlds/{public['id']}@{b.address}", ada))["id"] == public["id"]
    assert await code(a, f"/api/worlds/{public['id']}@{b.address}", None) == 3
    me = await a.get(f"/api/users/bob@{b.address}", ada)
    assert not {"email", "home", "following", "status"} & set(me)


async def test_no_request_goes_in_circles(pair: Pair, peer: ScriptedPeer) -> None:
    a, b = pair
    ada = await a.account("ada")
    peer.answer("/api/users", page(USER))
    for via in (f"avr/{b.address}", f"1.1 proxy, avr/{b.address}"):
        async with a.ask(ada) as client:
            answer = await client.get(f"/api/users?server={peer.address}", headers={"Via": via})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, 5)
    assert peer.received == []
    await a.get(f"/api/users?server={peer.address}", ada)
    (received,) = peer.received
    assert received.headers["via"] == f"avr/{a.address}"
    assert received.headers["user-agent"] == "AVR(Server)"
    assert "authorization" not in received.headers
    assert "cookie" not in received.headers
    assert ada.token not in str(received)


async def test_a_server_that_is_away_is_not_a_login_that_failed(pair: Pair) -> None:
    a, b = pair
    ada = await a.account("ada")
    await b.stop()
    async with a.ask(ada) as client:
        for number in range(4):
            answer = await client.get(f"/api/users/u{number}xx@{b.address}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, 6)
            # After three failures in a row, the server is left alone for a while.
            assert ("Retry-After" in answer.headers) is (number >= 3)
        assert (await client.get("/api/users/@me")).status_code == 200
        assert (await client.put(f"/api/worlds@{b.address}", json={})).status_code == 307


WRONG: list[tuple[str, object]] = [
    ("users/ada", {**USER, "email": "ada@example.org"}),
    ("users/ada", {**USER, "home": f"w_{UUID}@own"}),
    ("users/ada", {**USER, "username": "bob"}),
    ("users/ada", {**USER, "id": f"w_{UUID}"}),
    ("users/ada", {**USER, "displayname": "admin\u202egnp"}),
    ("users/ada", {**USER, "displayname": "ad\u200bmin"}),
    ("users/ada", {**USER, "displayname": "x" * 100_000}),
    ("users/ada", [USER]),
    ("users/ada", None),
    (f"worlds/w_{UUID}", {**WORLD, "tags": ["avr:private"]}),
    (f"worlds/w_{UUID}", {**WORLD, "owner": f"u_{UUID}"}),
    (f"worlds/w_{UUID}", changed(WORLD, "assets.0.hash", "x")),
    ("instances", page(*[INSTANCE] * 101)),
    ("instances", page(INSTANCE, {**INSTANCE, "id": f"u_{UUID}"})),
    ("instances", {"items": [{}] * 100_000, "total": 1, "limit": 50, "offset": 0}),
    ("instances", page(INSTANCE, {**INSTANCE, "tags": ["avr:private"]})),
]


async def test_a_hostile_server_gains_nothing(pair: Pair, peer: ScriptedPeer) -> None:
    a, _ = pair
    ada = await a.account("ada")
    await a.stop()
    await a.start("--rate-limits", "off")
    for path, data in WRONG:
        peer.answer(f"/api/{path}", data)
        for _ in range(2):
            got = await code(a, f"/api/{path}?server={peer.address}", ada)
            assert got in (7, 8, 11), (path, data)
    assert len(peer.received) == 2 * len(WRONG), "none is kept"
    for raw in (b"", b"nope", b"{}", b"[" * 200_000, b'{"data":' + b"[" * 200_000, b"x" * 2**21):
        peer.answers["/api/users/ada"] = (200, raw)
        assert await code(a, f"/api/users/ada@{peer.address}", ada) in (7, 8, 11)
    for status in (301, 302, 307):
        peer.answers["/api/users/ada"] = (status, b"")
        assert await code(a, f"/api/users/ada@{peer.address}", ada) == 9
    impostor = {**WORLD, "owner": f"{ada.at}"}
    peer.answer(f"/api/worlds/w_{UUID}", impostor)
    stranger = {**WORLD, "owner": f"u_{UUID}@{a.address}"}
    assert (await a.get(f"/api/worlds/w_{UUID}@{peer.address}", ada))["owner"] == ada.at
    other = WORLD["id"][:-1] + "1"
    peer.answer(f"/api/worlds/{other}", {**stranger, "id": other})
    assert await code(a, f"/api/worlds/{other}@{peer.address}", ada) == 11


async def test_foreign_urls_and_other_fields_are_left_out(pair: Pair, peer: ScriptedPeer) -> None:
    a, _ = pair
    ada = await a.account("ada")
    own = f"http://{peer.address}/api/users/u_{UUID}/banner"
    odd = {"thumbnail": "https://tracker.example/a.png", "banner": own, "surprise": {"a": [1]}}
    peer.answer("/api/users/ada", {**USER, **odd, "server": a.address})
    shown = await a.get(f"/api/users/ada@{peer.address}", ada)
    rest = {key: one for key, one in USER.items() if key != "thumbnail"}
    assert shown == {**rest, "banner": own, "server": peer.address}
    peer.answer("/api/instances", page({**INSTANCE, "address": "evil.example", "secure": True}))
    (place,) = (await a.get(f"/api/instances@{peer.address}", ada))["items"]
    assert (place["address"], place["secure"]) == (peer.address, False)
    assert "evil" not in json.dumps(place)


async def test_a_block_drops_what_is_kept_at_once(pair: Pair, peer: ScriptedPeer) -> None:
    a, _ = pair
    ada, admin = await a.account("ada"), await a.admin()
    path = f"/api/users/ada@{peer.address}"
    peer.answer("/api/users/ada", USER)
    assert (await a.get(path, ada))["username"] == "ada"
    async with a.ask(admin) as client:
        rule = {"pattern": peer.address, "kind": "block", "reason": "spam"}
        assert (await client.put("/api/servers/rules", json=rule)).status_code == 200
        assert await code(a, path, ada) == 135
        assert await code(a, f"/api/users/ada/thumbnail?server={peer.address}", ada) == 135
        assert (
            await client.delete(f"/api/servers/rules?pattern={peer.address}")
        ).status_code == 200
    peer.refuse("/api/users/ada", 404, 17)
    assert await code(a, path, ada) == 17
