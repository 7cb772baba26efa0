"""Servers come to know each other by challenges: over the network, between real processes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.conftest import Databases
from tests.e2e.federation.hostile_peer import HostilePeer, Json, hostile_peer
from tests.e2e.federation.servers import FederatedServer, federated_servers, two_servers

REFUSED = {"code": 110, "message": "Challenge refused"}
NO_LIMITS = ("--rate-limits", "off")


@asynccontextmanager
async def server_and_peer(
    databases: Databases, folder: Path, *options: str
) -> AsyncIterator[tuple[FederatedServer, HostilePeer]]:
    """A server B, and a peer A of the test's own."""
    async with (
        hostile_peer() as peer,
        federated_servers(
            databases, folder, 1, options=(*NO_LIMITS, *options), peers=[peer.address]
        ) as (server,),
    ):
        yield server, peer


async def post(server: FederatedServer, path: str, account: Any, body: object) -> Json:
    async with server.ask(account) as client:
        answer = await client.post(path, json=body)
    return {"status": answer.status_code, **answer.json()}


async def test_two_servers_come_to_know_each_other(databases: Databases, tmp_path: Path) -> None:
    async with two_servers(databases, tmp_path) as (a, b):
        admin_a, admin_b = await a.admin(), await b.admin()
        own = await post(a, "/api/servers", admin_a, {"server": a.address})
        assert (own["status"], own["error"]["code"]) == (400, 29)
        made = await post(a, "/api/servers", admin_a, {"server": b.address})
        assert made["status"] == 200, made
        key_a = (await a.get("/.well-known/avr"))["public_key"]
        key_b = (await b.get("/.well-known/avr"))["public_key"]
        at_a = await a.get(f"/api/servers/{b.address}", admin_a)
        at_b = await b.get(f"/api/servers/{a.address}", admin_b)
        assert (at_a["state"], at_a["public_key"]) == ("known", key_b)
        assert (at_b["state"], at_b["public_key"]) == ("known", key_a)
        assert at_a["tokens"] == []
        month_ms = 30 * 24 * 3600 * 1000
        (token,) = at_b["tokens"]
        assert token["expires_at"] - token["created_at"] == month_ms
        assert at_a["token_expires_at"] == token["expires_at"]
        # The other way round, and once more: at most four tokens of one server are valid.
        assert (await post(b, "/api/servers", admin_b, {"server": a.address}))["status"] == 200
        for _ in range(5):
            await trio.sleep(0)
        (sent, *_) = (await a.get("/api/challenges", admin_a))["items"]
        assert sent["direction"] == "sent"
        assert sent["server"] == b.address
        assert len(sent["id"]) <= 8
        assert sent["fetched_at"] >= sent["created_at"]
        # No log of either has a token, an id or a nonce.
        for server in (a, b):
            log = "\n".join(server.running.log)
            assert "sa_" not in log
            assert "challenge" in log


async def test_a_server_has_at_most_four_tokens(databases: Databases, tmp_path: Path) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin = await b.admin()
        tokens = [await peer.token_of(b) for _ in range(6)]
        valid = []
        for token in tokens:
            async with b.ask(token) as client:
                valid.append((await client.get("/api/users")).status_code == 200)
        assert valid == [False, False, True, True, True, True]
        found = await b.get(f"/api/servers/{peer.address}", admin)
        assert len(found["tokens"]) == 4


def with_field(name: str, value: object) -> Callable[[Json], Json]:
    """Changes a field; a function is called when it is."""
    return lambda data: {**data, name: value() if callable(value) else value}


def from_now(minutes: float) -> Callable[[], int]:
    """A time in ms, by the time at which it is asked for."""
    return lambda: int((time.time() + minutes * 60) * 1000)


def without(name: str) -> Callable[[Json], Json]:
    return lambda data: {key: value for key, value in data.items() if key != name}


OTHER_ID = "A" * 43
REDIRECT = b"HTTP/1.1 302 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
NO_UTF8 = b'HTTP/1.1 200 X\r\nContent-Length: 38\r\n\r\n{"error": {"code": 1, "message": "\xff"}}'
WRONG: list[tuple[str, dict[str, Any]]] = [
    *((f"signed {name}", {"challenge": with_field(name, value)}) for name, value in (
        ("id", OTHER_ID),
        ("nonce", OTHER_ID),
        ("server", "c.example"),
        ("server", "127.0.0.2"),
        ("expires_at", 1),
        ("expires_at", from_now(11)),
        ("expires_at", from_now(-11)),
    )),
    *((f"unsigned {name}", {"signed": with_field(name, value)}) for name, value in (
        ("id", OTHER_ID),
        ("nonce", OTHER_ID),
        ("server", "c.example"),
        ("expires_at", from_now(0.5)),
        ("expires_at", "soon"),
        ("expires_at", 1e300),
        ("signature", "A" * 86),
        ("signature", ""),
        ("signature", None),
    )),
    *((f"no {name}", {"signed": without(name)}) for name in (
        "id", "nonce", "server", "expires_at", "signature"
    )),
    *((f"discovery {name}", {"discovery": with_field(name, value)}) for name, value in (
        ("address", "c.example"),
        ("address", "127.0.0.9"),
        ("address", None),
        ("public_key", "A" * 43),
        ("public_key", "key"),
        ("public_key", 5),
        ("keys", [{}]),
        ("keys", [{"public_key": "A" * 43, "since": 1, "by": "A" * 86}] * 9),
    )),
    ("discovery without a key", {"discovery": without("public_key")}),
    ("no envelope", {"discovery": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"}),
    ("no UTF-8", {"signed": lambda _: _raw(b'{"data": {"nonce": "\xff"}}')}),
    ("no UTF-8 in an error", {"discovery": lambda _: NO_UTF8}),
    ("no JSON", {"signed": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n<>"}),
    ("a redirect", {"signed": lambda _: REDIRECT}),
    ("a large answer", {"discovery": with_field("padding", "x" * 70_000)}),
    ("deep JSON", {"signed": lambda _: _raw(b'{"data":' + b"[" * 60_000)}),
    ("no HTTP", {"discovery": lambda _: b"\x00\x01\x02\r\n\r\n"}),
    ("a closed port", {"port": 1}),
]  # fmt: skip


def _raw(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


CLAIMS: list[tuple[str, Json]] = [
    ("an id that was never begun", {"id": OTHER_ID}),
    ("another nonce", {"nonce": OTHER_ID}),
    ("a short id", {"id": "x"}),
    ("an id that is a path", {"id": "../../api/users"}),
    ("an id with a line break", {"id": "A" * 42 + "\n"}),
    ("a short nonce", {"nonce": ""}),
    ("no address", {"server": "no address"}),
    ("an address in another spelling of numbers", {"server": "127.1:3032"}),
    ("an internal address", {"server": "10.0.0.1"}),
    ("a blocked server", {"server": "evil.example"}),
    ("a name that does not resolve", {"server": "nowhere.invalid"}),
]


async def test_everything_that_is_wrong_has_one_answer_on_a_grid(
    databases: Databases, tmp_path: Path
) -> None:
    """Each field wrong in turn. What a stranger hears, and when, says nothing of the reason."""
    async with server_and_peer(databases, tmp_path) as (b, peer):
        admin = await b.admin()
        async with b.ask(admin) as client:
            rule = {"pattern": "evil.example", "kind": "block"}
            assert (await client.put("/api/servers/rules", json=rule)).status_code == 200

        async def refused(what: str, **changes: object) -> None:
            started = time.monotonic()
            answer = await peer.known_to(b, **changes)
            took = time.monotonic() - started
            assert (answer["status"], answer["error"]) == (403, REFUSED), what
            assert took >= 0.25, what

        for what, changes in WRONG:
            good = {name: getattr(peer, name) for name in changes if name != "port"}
            for name, change in changes.items():
                if name != "port":
                    setattr(peer, name, change)
            if "port" in changes:
                await refused(what, server=f"127.0.0.9:{changes['port']}")
            else:
                await refused(what)
            for name, value in good.items():
                setattr(peer, name, value)
        for what, claim in CLAIMS:
            await refused(what, **claim)
        await refused("its own address", server=b.address)
        # None of this left a trace but the causes, for admins.
        async with b.ask(admin) as client:
            assert (await client.get(f"/api/servers/{peer.address}")).status_code == 404
        listed = await b.get("/api/challenges", admin, params={"limit": 100})
        causes = {one["cause"] for one in listed["items"]}
        assert len(causes) > 15
        assert all(one["direction"] == "refused" for one in listed["items"])
        # And then the right one works, whatever came before.
        assert (await peer.known_to(b))["status"] == 200


async def test_wrong_types_are_invalid_input(databases: Databases, tmp_path: Path) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        for changes in ({"server": 5}, {"id": None}, {"nonce": ["x"]}, {"id": "x" * 300}):
            answer = await peer.known_to(b, **changes)
            assert (answer["status"], answer["error"]["code"]) == (400, 108), changes
        assert peer.requests == []


@pytest.mark.parametrize("minutes", [-9, 9])
async def test_a_clock_that_is_nine_minutes_off_is_right_enough(
    databases: Databases, tmp_path: Path, minutes: int
) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        peer.clock_ms = minutes * 60_000
        assert (await peer.known_to(b))["status"] == 200


async def test_a_challenge_is_served_once(databases: Databases, tmp_path: Path) -> None:
    """Whoever sees the id afterwards gains nothing: neither the nonce nor a second token."""
    async with two_servers(databases, tmp_path, *NO_LIMITS) as (a, b), hostile_peer() as peer:
        admin = await a.admin()
        assert (await post(a, "/api/servers", admin, {"server": b.address}))["status"] == 200
        (entry,) = (await a.get("/api/challenges", admin))["items"]
        async with a.ask() as client:
            for id_ in (entry["id"], entry["id"].rstrip("…"), OTHER_ID, "x", "é", "%00", "a" * 999):
                answer = await client.get(f"/api/challenges/{id_}")
                assert answer.status_code in (400, 404), answer.text
                assert answer.status_code == 400 or answer.json()["error"]["code"] == 109
        assert peer.requests == []


async def test_an_id_that_was_seen_serves_once_and_only_the_server_it_is_for(
    databases: Databases, tmp_path: Path
) -> None:
    """A server that gets a challenge can't use it at a third one, and a repeated one fails."""
    async with (
        hostile_peer() as peer,
        two_servers(databases, tmp_path, *NO_LIMITS, peers=[peer.address]) as (a, b),
    ):
        admin = await a.admin()
        body: Json = {}
        caught = trio.Event()

        async def catch(request: Any) -> None:
            if request.method == "PUT" and not body:
                body.update(json.loads(request.body))
                # Before it is answered, while the challenge can still be fetched: the peer tries
                # to become A at B.
                async with b.ask() as client:
                    answer = await client.put("/api/challenges", json=body)
                assert (answer.status_code, answer.json()["error"]) == (403, REFUSED)
                caught.set()

        peer.gate = catch
        answer = await post(a, "/api/servers", admin, {"server": peer.address})
        assert caught.is_set()
        assert body["server"] == a.address
        assert answer["status"] != 200
        # B has fetched the challenge; now nobody else can.
        async with a.ask() as client:
            assert (await client.get(f"/api/challenges/{body['id']}")).status_code == 404


async def test_a_server_can_end_its_own_tokens_only_and_admins_any(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer("127.0.0.8") as other,
        hostile_peer() as peer,
        federated_servers(
            databases, tmp_path, 1, options=NO_LIMITS, peers=[peer.address, other.address]
        ) as (b,),
    ):
        admin, user = await b.admin(), await b.account()
        issued = [(await one.known_to(b))["data"] for one in (peer, peer, other)]

        async def end(by: Any, id_: str) -> tuple[int, int | None]:
            async with b.ask(by) as client:
                answer = await client.delete(f"/api/challenges/{id_}")
            return answer.status_code, answer.json().get("error", {}).get("code")

        first, second, third = issued
        assert await end(None, first["id"]) == (401, 3)
        assert await end(user, first["id"]) == (403, 4)
        assert await end(third["token"], first["id"]) == (404, 109)
        assert await end(first["token"], first["id"]) == (200, None)
        assert await end(first["token"], first["id"]) == (401, 101)
        assert await end(second["token"], first["id"]) == (404, 109)
        assert await end(admin, second["id"]) == (200, None)
        for token, status in ((first, 401), (second, 401), (third, 200)):
            async with b.ask(token["token"]) as client:
                assert (await client.get("/api/users")).status_code == status


async def test_a_token_of_a_server_is_not_one_of_a_user(
    databases: Databases, tmp_path: Path
) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):
        user = await b.account()
        token = await peer.token_of(b)
        async with b.ask() as client:
            for query, agent, status in (
                (f"?authserver={token}", None, 200),
                ("", "AVR(Server)", 200),
                ("", "AVR(User)", 401),
                (f"?authuser={token}", None, 401),
                (f"?authserver={user.token}", None, 401),
            ):
                headers = {}
                if agent is not None:
                    headers = {"User-Agent": agent, "Authorization": f"Bearer {token}"}
                answer = await client.get(f"/api/users{query}", headers=headers)
                assert answer.status_code == status, (query, agent, answer.text)
                assert "sa_" not in answer.json()["request"]
            bearer = {"Authorization": f"Bearer {token}"}
            for method, path in (
                ("GET", "/api/users/@me"),
                ("PUT", "/api/worlds"),
                ("GET", "/api/challenges"),
                ("GET", "/api/servers"),
                ("GET", "/session"),
            ):
                answer = await client.request(method, path, headers=bearer)
                assert answer.status_code in (401, 403), (path, answer.text)


async def test_limits_hold_for_a_network_and_for_a_claimed_host(
    databases: Databases, tmp_path: Path
) -> None:
    async with (
        hostile_peer() as peer,
        federated_servers(databases, tmp_path, 1, peers=[peer.address]) as (b,),
    ):
        started = time.monotonic()

        async def status(server: str) -> int:
            answer = await peer.known_to(b, server=server, id=OTHER_ID)
            if answer["status"] != 403:
                assert answer["error"]["code"] == 122
            code: int = answer["status"]
            return code

        # Any port of one host, in any spelling.
        claims = [peer.address, "127.0.0.9:1", "127.0.0.9:2", "127.0.0.9:3"]
        assert [await status(one) for one in claims] == [403, 403, 403, 503]
        # However many hosts: ten from one network, and one more every six seconds.
        admitted = 4
        while await status(f"s{admitted}.invalid") == 403:
            admitted += 1
        assert 10 <= admitted <= 10 + (time.monotonic() - started) // 6


async def test_a_peer_that_hangs_takes_five_seconds_and_at_most_sixteen_places(
    databases: Databases, tmp_path: Path
) -> None:
    async with server_and_peer(databases, tmp_path) as (b, peer):

        async def hang(_: Any) -> None:
            await trio.sleep_forever()

        peer.gate = hang
        answers: list[Json] = []

        async def attempt() -> None:
            answers.append(await peer.known_to(b))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(attempt)
            while len(answers) < 4:
                await trio.sleep(0.01)
            # Those beyond are refused at once, and nobody else notices.
            assert [one["status"] for one in answers] == [503] * 4
            assert (await b.get("/api/time")) > 0
        assert sorted(one["status"] for one in answers) == [403] * 16 + [503] * 4


async def test_a_known_server_that_is_away_is_not_refused(
    databases: Databases, tmp_path: Path
) -> None:
    """No answer is error 6, never 110: it is not its fault, and it keeps its token."""
    async with server_and_peer(databases, tmp_path) as (b, peer):
        token = await peer.token_of(b)

        async def away(_: Any) -> None:
            raise trio.ClosedResourceError

        peer.gate = away
        answer = await peer.known_to(b)
        assert (answer["status"], answer["error"]["code"]) == (502, 6)
        async with b.ask(token) as client:
            assert (await client.get("/api/users")).status_code == 200
